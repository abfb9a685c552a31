"""Gradients from antithetic draws: unbiased still, and without the linear part of the noise."""

import pytest
import torch

import align


def test_plugin_takes_no_antithetic_draws(case_a, mild, states, times):
    with pytest.raises(ValueError, match="^antithetic: got True with estimator='plugin', which takes no draws; leave"):
        align.value_gradient(case_a, mild, states, times, estimator="plugin", antithetic=True)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_antithetic_gradients_weighted_by_their_evidence_are_unbiased(
    estimator, normal_law, quadratic, seeded, check_mean, repeated, states, times, by_state
):
    """For "score" up to a factor that is no longer `1 - 1/mc`, so on one pair: `E[e^V^ g]` for two opposite draws is the
    covariance of z and exp r over their odd parts, which for a linear reward is all of it."""
    model = normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]])
    x, t = repeated(3000)
    slope = torch.tensor([0.7, -0.4], dtype=torch.float64)
    reward = quadratic([-0.5, 0.5], 1.0) if estimator == "reparam" else lambda z: z @ slope
    leaf = states.clone().requires_grad_()
    exact = reward.value(model, leaf, times) if estimator == "reparam" else model.value(leaf, times, slope)
    (expected,) = torch.autograd.grad(exact.sum(), leaf)
    found = align.value_gradient(model, reward, x, t, 2, estimator, antithetic=True, generator=seeded())
    values = align.value(model, reward, x, t, 2, antithetic=True, generator=seeded())
    evidence = (values - exact.detach().repeat_interleave(3000)).exp()
    check_mean(by_state(evidence[:, None] * found), expected, limit=4)


def test_antithetic_draws_take_the_linear_part_of_the_noise_off_the_gradient(normal_law, seeded, check_mean):
    """`r = b z - k z^2 / 2` with little of either: weights are nearly even, the plain variance is `(c k)^2 v / mc` with
    `c = dz/dx` and v the posterior's variance, and next to nothing is left with pairs."""
    model, t, curvature, mc = normal_law([0.4], [[0.6]]), 0.45, 0.05, 4
    spread = 0.45**2 * 0.6 + 0.55**2
    variance, gain = 0.6 * 0.55**2 / spread, 0.45 * 0.6 / spread
    x = torch.tensor([[0.2]], dtype=torch.float64).expand(10_000, -1)

    def reward(z):
        return 0.02 * z[:, 0] - curvature / 2 * z[:, 0].square()

    plain, paired = (
        align.value_gradient(model, reward, x, t, mc, antithetic=antithetic, generator=seeded())[:, 0]
        for antithetic in (False, True)
    )
    expected = (gain * curvature) ** 2 * variance / mc
    assert float(plain.var()) == pytest.approx(expected, rel=0.1)
    assert float(paired.var()) < 0.01 * expected
    check_mean(plain - paired, 0.0, limit=4, slack=1e-4)


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_antithetic_gradients_do_not_depend_on_the_chunk(chunk, estimator, case_a, mild, seeded, states, times):
    whole, parts = (
        align.value_gradient(
            case_a, mild, states, times, 18, estimator, antithetic=True, generator=seeded(), chunk=size
        )
        for size in (None, chunk)
    )
    assert torch.allclose(parts, whole, rtol=1e-9, atol=1e-12)
