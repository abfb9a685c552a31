"""What must hold to the last digits: no resampling, one step, constants, rewards as large as they may be."""

import pytest
import torch

import align

from align.resampling import ess

PARTICLES = 64  # of each population of a run


def test_without_resampling_the_weights_are_the_rewards(case_a, mild, values, run):
    """Importance sampling: every value estimate cancels, and no weight is lost on the way."""
    for value in values.values():
        out = run(case_a, mild, populations=3, ess_threshold=0.0, **value(case_a, mild))
        assert torch.allclose(out.log_weights, out.rewards, atol=1e-12)
        assert torch.allclose(out.log_z, out.rewards.exp().mean(1).log(), atol=1e-12)
        assert torch.allclose(out.ess[-1], ess(out.rewards))


def test_a_high_effective_sample_size_keeps_the_weights(case_a, gentle, run, values):
    """A threshold that is never crossed is no resampling at all."""
    low, never = (
        run(case_a, gentle, populations=5, ess_threshold=c, **values["exact"](case_a, gentle)) for c in (0.05, 0.0)
    )
    assert torch.equal(low.ancestors, torch.arange(PARTICLES).expand(6, 5, -1))
    assert torch.allclose(low.log_weights, low.rewards, atol=1e-12)
    assert float(never.log_weights.std()) > 0.1


@pytest.mark.parametrize("ess_threshold", [0.0, 0.5, 1.0])
def test_a_constant_more_reward_moves_the_evidence_by_it_and_nothing_else(ess_threshold, case_a, mild, run):
    rewards = mild, lambda z: mild(z) + 321.0
    plain, more = (run(case_a, r, populations=4, ess_threshold=ess_threshold) for r in rewards)
    assert torch.allclose(more.log_z, plain.log_z + 321.0, rtol=1e-12)
    assert torch.equal(more.samples, plain.samples)
    assert torch.equal(more.ancestors, plain.ancestors)
    assert torch.allclose(more.log_weights.softmax(-1), plain.log_weights.softmax(-1), rtol=1e-9)


@pytest.mark.parametrize("mc", [1, 4, 20])
@pytest.mark.parametrize("particles", [1, 3, 50])
def test_constant_rewards_have_even_weights_and_their_own_evidence(mc, particles, case_a, run):
    for constant in (0.0, -2.0, 3.5):
        out = run(case_a, lambda z, c=constant: torch.full((len(z),), c), populations=5, particles=particles, mc=mc)
        assert torch.allclose(out.log_z, torch.full((5,), constant, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(out.log_weights, out.log_weights[:, :1].expand_as(out.log_weights), atol=1e-12)
        assert torch.allclose(out.ess, torch.full_like(out.ess, particles))
        assert torch.equal(out.ancestors, torch.arange(particles).expand(6, 5, -1))


def test_no_reward_gives_the_base_law(case_a, mild, check_mean, run):
    out = run(case_a, lambda z: 0 * mild(z), seed=9)
    centred = out.samples.flatten(0, 1) - case_a.mean()
    check_mean(centred, torch.zeros(2, dtype=torch.float64), limit=4)
    check_mean(centred[:, :, None] * centred[:, None], case_a.covariance(), limit=4)


def test_one_step_is_importance_sampling(case_a, mild, run):
    out = run(case_a, mild, steps=1, populations=3)
    other = align.best_of_n(case_a, mild, PARTICLES, batch=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out.samples, other.samples)
    assert torch.allclose(out.log_z, other.log_z, rtol=1e-14)
    assert torch.equal(out.log_weights, other.log_weights)


def test_rewards_and_values_are_those_of_the_samples(case_a, mild, run):
    out = run(case_a, mild, populations=4, ess_threshold=1.0)
    assert torch.equal(out.rewards.flatten(), mild(out.samples.flatten(0, 1)))
    assert torch.allclose(out.ess[-1], ess(out.log_weights))


def test_extreme_rewards_do_not_overflow(case_a, mild, run):
    """Weights live in the log domain from end to end."""
    plain, out = (run(case_a, lambda z, c=c: 2000 * mild(z) + c, populations=4, mc=2) for c in (0.0, 1e6))
    assert torch.equal(out.ancestors, plain.ancestors)
    assert torch.allclose(out.log_z - 1e6, plain.log_z, rtol=0, atol=1e-7)
    assert out.log_z.isfinite().all() and out.log_weights.isfinite().all()
    assert (out.ess >= 1 - 1e-9).all() and (out.ess <= PARTICLES + 1e-6).all()
