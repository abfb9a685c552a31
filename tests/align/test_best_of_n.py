"""Best-of-N: order statistics of the best, importance sampling by the rest."""

import pytest
import torch

import align

from align.resampling import ess
from diamond.glass import GlassFlow

EXPECTED_MAXIMUM = {1: 0.0, 2: 0.5642, 4: 1.0294, 8: 1.4236, 16: 1.7660, 32: 2.0697}  # of n standard normal numbers


@pytest.mark.parametrize("n", EXPECTED_MAXIMUM)
def test_best_reward_is_the_maximum_of_n(n, normal_law, seeded, check_mean):
    """A linear reward on a Gaussian of any mean and spread, along any direction."""
    model = normal_law([1.0, -2.0], [[2.0, 0.6], [0.6, 1.0]])
    direction = torch.tensor([0.8, -0.5], dtype=torch.float64)
    scale = (direction @ model.covariance() @ direction).sqrt()
    out = align.best_of_n(model, lambda z: z @ direction, n, batch=6000, generator=seeded())
    best = out.best() @ direction
    assert torch.equal(best, out.rewards.amax(1))
    check_mean((best - model.mean() @ direction) / scale, EXPECTED_MAXIMUM[n], limit=4, slack=1e-4)


def test_best_reward_has_the_distribution_function_to_the_power_n(normal_law, seeded, check_mean):
    model = normal_law([0.0], [[1.0]])
    best = align.best_of_n(model, lambda z: z[:, 0], 5, batch=20_000, generator=seeded()).best()
    points = torch.tensor([-0.5, 0.3, 1.0, 1.8], dtype=torch.float64)
    check_mean((best <= points).double(), torch.special.ndtr(points) ** 5, limit=4)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("n", [1, 3, 64])
def test_evidence_and_weighted_law_are_exact(n, steps, case_a, mild, seeded, check_tilt):
    out = align.best_of_n(case_a, mild, n, steps=steps, batch=2000, generator=seeded())
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("steps", [1, 3])
def test_samples_follow_the_base_law(steps, correlated, seeded, check_mean):
    model = correlated()
    z = align.best_of_n(model, lambda z: z[:, 0], 8000, steps=steps, generator=seeded()).samples[0] - model.mean()
    check_mean(z, torch.zeros(2, dtype=torch.float64), limit=4)
    check_mean(z[:, :, None] * z[:, None], model.covariance(), limit=4)


@pytest.mark.parametrize("times", [[0, 0.9, 1], [0, 0.05, 0.1, 0.6, 1]])
def test_evidence_and_weighted_law_are_exact_on_any_grid(times, case_a, mild, seeded, check_tilt):
    out = align.best_of_n(case_a, mild, 16, times=times, batch=2000, generator=seeded())
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


def test_weights_are_the_rewards_but_not_the_same_tensor(case_a, mild, seeded):
    out = align.best_of_n(case_a, mild, 10, batch=2, generator=seeded())
    assert torch.equal(out.log_weights, out.rewards)
    assert torch.equal(out.ess, ess(out.rewards)[None])
    assert out.log_weights.data_ptr() != out.rewards.data_ptr()


def test_hard_constraints_keep_what_is_allowed(case_a, seeded, check_mean):
    def allowed(z):
        return torch.where(z[:, 0] < 0, 0.0, -torch.inf)

    out = align.best_of_n(case_a, allowed, 20, batch=4000, generator=seeded())
    tails = torch.special.ndtr(-case_a.means[:, 0] / case_a.covariances.sqrt())
    check_mean(out.log_z.exp(), case_a.weights @ tails, limit=4)
    assert (out.best()[:, 0] < 0).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_cost_is_counted_for_one_population(batch, tiny_flow, mild):
    out = align.best_of_n(GlassFlow(tiny_flow, steps=5), mild, 7, steps=2, batch=batch, chunk=4)
    assert (out.nfe, out.nfe_backward, out.reward_calls) == (7 * 2 * 5, 0, 7)


@pytest.mark.parametrize("n", [0, -1, 2.0])
def test_no_samples_are_refused(n, case_a, mild):
    with pytest.raises(ValueError, match="^n: got"):
        align.best_of_n(case_a, mild, n)
