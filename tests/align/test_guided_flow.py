"""Guided flows: the denoiser by hand, and on a Gaussian with a linear reward the tilted law itself."""

import pytest
import torch

import align

from diamond.glass import GlassFlow
from diamond.interpolant import Cosine

STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8]], dtype=torch.float64)
TIMES = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
SLOPE = torch.tensor([0.7, -0.4], dtype=torch.float64)


def linear(z):
    return z @ SLOPE


@pytest.fixture
def gaussian(normal_law):
    return normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]])


@pytest.mark.parametrize("path", [None, Cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_denoiser_is_the_flows_and_a_multiple_of_the_rewards_slope(path, scale, gaussian, mild):
    """`D + scale s^2 / a J^T grad r(D)`, with the Jacobian of a Gaussian's denoiser by hand."""
    if path is not None:
        gaussian.interpolant = path
    guided = align.GuidedFlow(gaussian, mild, scale)
    found = guided.denoise(STATES, TIMES)
    covariance, identity = gaussian.covariance(), torch.eye(2, dtype=torch.float64)
    for row in range(3):
        alpha, sigma = gaussian.interpolant.alpha(TIMES[row]), gaussian.interpolant.sigma(TIMES[row])
        jacobian = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * identity)
        mean = gaussian.mean() + jacobian @ (STATES[row] - alpha * gaussian.mean())
        slope = -(mean - mild.centre) / mild.width2
        assert torch.allclose(found[row], mean + scale * sigma**2 / alpha * jacobian.T @ slope, rtol=1e-9)
    velocity = gaussian.interpolant.velocity_from_denoiser(STATES, TIMES, found)
    assert torch.allclose(guided.velocity(STATES, TIMES), velocity)


@pytest.mark.parametrize("path", [None, Cosine()], ids=["linear", "cosine"])
def test_on_a_gaussian_with_a_linear_reward_it_is_the_tilted_law(path, gaussian, seeded):
    """The denoiser, and draw by draw what a GLASS flow makes of it: at every time but 0, which a first step feels less
    the nearer to it the next one is."""
    if path is not None:
        gaussian.interpolant = path
    guided, tilted = align.GuidedFlow(gaussian, linear), gaussian.tilt(SLOPE)
    assert torch.allclose(guided.denoise(STATES, TIMES), tilted.denoise(STATES, TIMES), rtol=1e-9)
    assert (tilted.mean() - gaussian.mean()).abs().max() > 0.3
    draws, exact = (
        GlassFlow(flow, steps=3).posterior(STATES, TIMES, 20, generator=seeded()) for flow in (guided, tilted)
    )
    assert torch.allclose(draws, exact, rtol=1e-9)
    moved, expected = (
        GlassFlow(flow, steps=3).transition(STATES, TIMES, 0.95, rho=0.3, generator=seeded())
        for flow in (guided, tilted)
    )
    assert torch.allclose(moved, expected, rtol=1e-9)


def test_samples_of_such_a_flow_follow_the_tilted_law(gaussian, seeded, check_mean):
    """Best-of-N and search run on it as on any model."""
    model = GlassFlow(align.GuidedFlow(gaussian, linear), steps=24, solver="heun")
    law = gaussian.tilt(SLOPE)
    z = align.best_of_n(model, linear, 1000, steps=2, generator=seeded()).samples[0] - law.mean()
    check_mean(z, torch.zeros(2, dtype=torch.float64), limit=4, slack=0.02)
    check_mean(z[:, :, None] * z[:, None], law.covariance(), limit=4, slack=0.02)


def test_it_is_guided_within_its_interval_alone(gaussian, mild):
    """Of effective times, row by row; and never at 0, where noise tells nothing."""
    always, within = align.GuidedFlow(gaussian, mild), align.GuidedFlow(gaussian, mild, interval=(0.3, 0.9))
    plain = gaussian.denoise(STATES, TIMES)
    found = within.denoise(STATES, TIMES)
    assert torch.equal(found[0], plain[0])
    assert torch.equal(found[1:], always.denoise(STATES, TIMES)[1:])
    assert (found[1] - plain[1]).abs().max() > 0.01
    assert torch.equal(always.denoise(STATES, 0.0), gaussian.denoise(STATES, 0.0))
    assert torch.allclose(always.denoise(STATES, 1.0), STATES, atol=1e-12)


def test_its_draws_are_differentiable(case_a, gentle, seeded):
    """Against differences; and where no gradient is asked for, no graph is left."""
    model = GlassFlow(align.GuidedFlow(case_a, gentle), steps=3)
    noise = torch.randn(4, 1, 2, dtype=torch.float64, generator=seeded())

    def level(x):
        return gentle(model.posterior(x, 0.4, 4, noise=noise)).sum()

    x = STATES[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(level(x), x)
    for axis in range(2):
        step = torch.zeros(1, 2, dtype=torch.float64)
        step[0, axis] = 1e-5
        difference = (level(STATES[:1] + step) - level(STATES[:1] - step)) / 2e-5
        assert float(slope[0, axis]) == pytest.approx(float(difference), rel=1e-4)
    assert not level(STATES[:1]).requires_grad
    with torch.no_grad():
        assert not level(x).requires_grad


def test_forbidden_means_are_not_guided(gaussian):
    guided = align.GuidedFlow(gaussian, lambda z: torch.where(z[:, 0] < 0.5, -torch.inf, z[:, 0]))
    mean = gaussian.denoise(STATES, TIMES)
    found = guided.denoise(STATES, TIMES)
    assert torch.equal((found == mean).all(1), mean[:, 0] < 0.5)
    assert (mean[:, 0] < 0.5).any() and not (mean[:, 0] < 0.5).all()


def test_conditioning_reaches_the_flow_and_the_reward(tiny_flow, family):
    """Each row meets its own: the guided denoiser by its parts, and populations as separate runs."""

    def attracted(z, cond):
        return -(z - cond).square().sum(-1)

    cond = torch.tensor([[0.5, -0.5], [1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)
    guided = align.GuidedFlow(tiny_flow, attracted, scale=0.3)
    together = guided.denoise(STATES, TIMES, cond=cond)
    for row in range(3):
        fixed = align.GuidedFlow(tiny_flow, lambda z, to=cond[row]: -(z - to).square().sum(-1), scale=0.3)
        alone = fixed.denoise(STATES[row : row + 1], TIMES[row : row + 1], cond=cond[row : row + 1])
        assert torch.allclose(together[row], alone[0], rtol=1e-9)
    model = GlassFlow(guided, steps=2)
    out = align.smc(model, attracted, 4, 3, mc=2, batch=3, cond=cond, generator=family([1, 2, 3]), chunk=5)
    for row in range(3):
        how = {"cond": cond[row : row + 1], "generator": family([row + 1])}
        assert torch.allclose(align.smc(model, attracted, 4, 3, mc=2, **how).samples[0], out.samples[row], rtol=1e-9)


def test_its_reward_may_have_a_chunk_of_its_own(tiny_flow, mild):
    sizes = []

    def reward(z):
        sizes.append(len(z))
        return mild(z)

    whole = align.GuidedFlow(tiny_flow, mild).denoise(STATES, TIMES)
    assert torch.allclose(align.GuidedFlow(tiny_flow, reward, reward_chunk=2).denoise(STATES, TIMES), whole)
    assert sizes == [2, 1]
    with pytest.raises(ValueError, match="^reward_chunk: got 0"):
        align.GuidedFlow(tiny_flow, mild, reward_chunk=0)


def test_evaluations_are_the_flows(tiny_flow, mild):
    guided = align.GuidedFlow(tiny_flow, mild)
    guided.denoise(STATES, TIMES)
    assert guided.nfe == tiny_flow.nfe == 3
    out = align.best_of_n(GlassFlow(guided, steps=2), mild, 5, batch=2)
    assert out.nfe == 10


def test_what_cannot_be_guided_is_refused(gaussian, mild):
    with pytest.raises(ValueError, match="^flow: got float, expected a flow model with a denoise method"):
        align.GuidedFlow(3.0, mild)
    with pytest.raises(ValueError, match="^reward: .*expected a differentiable reward"):
        align.GuidedFlow(gaussian, lambda z: mild(z.detach())).denoise(STATES, TIMES)
    for interval in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.8, 0.2)):
        with pytest.raises(ValueError, match="^interval: got .*expected two rising times"):
            align.GuidedFlow(gaussian, mild, interval=interval)


def test_the_rewards_that_guidance_asks_for_are_counted(tiny_flow, mild):
    model = GlassFlow(align.GuidedFlow(tiny_flow, mild), steps=5)
    out = align.best_of_n(model, mild, 7, batch=2)
    assert out.nfe == 7 * 5 and out.reward_calls == 7 * 5 + 7


def test_evaluations_that_guidance_differentiates_are_counted_once(tiny_flow, mild):
    """Per sample: all of a guided model's, whatever else goes through them, and none of the plain flow's."""
    guided = align.GuidedFlow(tiny_flow, mild, scale=0.1)
    guided.denoise(STATES, TIMES)
    assert guided.nfe_backward == 3
    for flow in (guided, align.GuidedFlow(guided, mild, scale=0.1)):
        model = GlassFlow(flow, steps=5)
        assert align.best_of_n(model, mild, 7, batch=2, chunk=3).nfe_backward == 7 * 5
        out = align.smc(model, mild, 4, 3, mc=2, proposal="reparam")
        assert out.nfe_backward == out.nfe == 4 * 5 * (3 + 2 * 2 + 2)  # moves, values, one gradient
        with torch.no_grad():
            tiny_flow.denoise(STATES, TIMES)
    plain = GlassFlow(tiny_flow, steps=5)
    assert align.best_of_n(plain, mild, 7, batch=2).nfe_backward == 0
    looking = align.smc(plain, mild, 4, 3, value=align.PlugIn(guided, mild), proposal="plugin")
    assert looking.nfe_backward == 2 * 4 + 4  # guided values, and one gradient
