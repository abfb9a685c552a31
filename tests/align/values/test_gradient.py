"""Gradients of values, against the closed forms of Gaussian mixtures."""

import pytest
import torch

import align

from align.draws import posterior_blocks
from align.gradient import mean_shift
from align.scoring import Scorer
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine


@pytest.mark.parametrize("estimator", ["reparam", "score"])
@pytest.mark.parametrize("mc", [2, 5, 21])
def test_weighted_by_its_evidence_the_gradient_is_unbiased(
    estimator, mc, case_a, mild, seeded, check_mean, repeated, exact_gradient, states, times, by_state
):
    r"""`E[exp(V^) g] = exp(V) grad V` for the derivative of V^, and `(1 - 1/mc)` times it for the covariance of draws:
    value and gradient see the same draws from the same seed."""
    x, t = repeated()
    gradients = align.value_gradient(case_a, mild, x, t, mc, estimator, generator=seeded())
    evidence = (align.value(case_a, mild, x, t, mc, generator=seeded()) - mild.value(case_a, x, t)).exp()
    expected = exact_gradient(case_a, mild, states, times) * (1 - 1 / mc if estimator == "score" else 1)
    check_mean(by_state(evidence[:, None] * gradients), expected, limit=4)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_gradients_on_anisotropic_mixtures_and_other_paths(
    estimator, correlated, gentle, seeded, check_mean, repeated, exact_gradient, states, times, by_state
):
    model, (x, t) = correlated(Cosine()), repeated(3000)
    gradients = align.value_gradient(model, gentle, x, t, 4, estimator, generator=seeded())
    evidence = (align.value(model, gentle, x, t, 4, generator=seeded()) - gentle.value(model, x, t)).exp()
    expected = exact_gradient(model, gentle, states, times) * (0.75 if estimator == "score" else 1)
    check_mean(by_state(evidence[:, None] * gradients), expected, limit=4)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_gradients_are_consistent(
    estimator, case_a, mild, seeded, check_mean, exact_gradient, states, times, by_state, repeated
):
    """The bias falls as one over the number of draws; what is left of it at 512 is forgiven by that law."""
    exact = exact_gradient(case_a, mild, states, times)

    def estimates(mc, rows):
        return by_state(align.value_gradient(case_a, mild, *repeated(rows), mc, estimator, generator=seeded()))

    few, many = estimates(8, 3000), estimates(512, 60)
    bias = (few.mean(0) - exact).abs().max()
    check_mean(many, exact, limit=4, slack=float(bias) * 8 / 512 * 2)
    assert float(bias) > 4 * float((few.std(0) / 3000**0.5).max())


def test_one_draw_gives_a_gradient_too_large_by_a_known_factor(
    normal_law, seeded, quadratic, check_mean, states, exact_gradient
):
    """For `r = -lam |z - c|^2` on a Gaussian, `E[grad r] = (1 + 2 lam v) grad V`, with v the posterior's variance."""
    model, lam, t = normal_law([0.4, -0.2], torch.eye(2, dtype=torch.float64) * 0.6), 1.5, 0.45
    reward = quadratic([-1.0, 0.5], 1 / (2 * lam))
    posterior_variance = 0.6 * (1 - t) ** 2 / (t**2 * 0.6 + (1 - t) ** 2)
    gradients = align.value_gradient(model, reward, states[:1].expand(20_000, -1), t, 1, generator=seeded())
    exact = exact_gradient(model, reward, states[:1], t)[0]
    check_mean(gradients, (1 + 2 * lam * posterior_variance) * exact, limit=4)


def test_plugin_is_the_gradient_at_the_posterior_mean(case_a, mild, states, times):
    x = states.clone().requires_grad_()
    (expected,) = torch.autograd.grad(mild(case_a.denoise(x, times)).sum(), x)
    for chunk in (None, 1, 3):
        found = align.value_gradient(case_a, mild, states, times, estimator="plugin", chunk=chunk)
        assert torch.allclose(found, expected, rtol=1e-12)


def test_plugin_overshoots_where_the_posterior_is_wide(case_a, mild, states, times, exact_gradient):
    """Its bias does not vanish: that is what the draws are for."""
    plugin = align.value_gradient(case_a, mild, states, times, estimator="plugin")
    assert (plugin - exact_gradient(case_a, mild, states, times)).norm(dim=1).max() > 0.2


def test_gradients_at_noise_vanish_and_the_mean_shift_does_not(case_a, mild, seeded, check_mean, states):
    """`grad V_0 = 0`, while `E_w[z] - E[z]` tends to the shift of the whole law's mean."""
    x = states[:1].expand(4000, -1)
    assert not align.value_gradient(case_a, mild, states, 0.0, 9, "score", generator=seeded()).any()
    assert align.value_gradient(case_a, mild, states, 0.0, 9, generator=seeded()).abs().max() < 1e-9
    blocks = posterior_blocks(case_a, x, torch.zeros(4000, dtype=torch.float64), 4, None, seeded(), None)
    shift = mean_shift(Scorer(mild), x, 4, blocks, None)
    evidence = (align.value(case_a, mild, x, 0.0, 4, generator=seeded()) - mild.log_z(case_a)).exp()
    check_mean(evidence[:, None] * shift, 0.75 * (mild.law(case_a).mean() - case_a.mean()), limit=4)


def test_reparametrised_gradients_pass_through_a_network(tiny_flow, mild, seeded, states, times):
    """On a GLASS flow the gradient is that of the log-mean-exp of its draws, as a whole."""
    model = GlassFlow(tiny_flow, steps=3)
    x = states.clone().requires_grad_()
    z = model.posterior(x, times, 6, generator=seeded())
    (expected,) = torch.autograd.grad(mild(z).logsumexp(0).sum(), x)
    for chunk in (None, 1, 5):
        found = align.value_gradient(model, mild, states, times, 6, generator=seeded(), chunk=chunk)
        assert torch.allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("mc", [2, 4, 16])
def test_the_mean_of_the_same_draws_is_the_better_baseline(mc, case_a, mild, gentle, seeded, states):
    """`E_w[z] - mean(z)` against `E_w[z] - D(x)`, which needs an evaluation more: for weights that are nearly even the
    variances differ by that of a mean of `mc` draws."""
    x = states[:1].expand(20000, -1)
    z = case_a.posterior(x, 0.4, mc, generator=seeded())
    spread = z.flatten(0, 1).var(0).sum() / mc
    for reward in (mild, gentle):
        tilted = (reward(z.flatten(0, 1)).reshape(mc, -1).softmax(0)[..., None] * z).sum(0)
        variances = [(tilted - baseline).var(0).sum() for baseline in (z.mean(0), case_a.denoise(x, 0.4))]
        assert variances[0] < variances[1] - 0.3 * spread
