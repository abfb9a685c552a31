"""Damping: the factor between the mean gradient of a quadratic reward and the gradient of its value."""

import pytest
import torch

import align

from diamond.interpolant import Cosine, Linear

STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8]], dtype=torch.float64)
VARIANCE, WIDTH2 = 0.6, 0.4


@pytest.fixture
def case(normal_law, quadratic):
    """An isotropic Gaussian, a quadratic reward, and the exact gradient of its value at states `(B, 2)`."""
    model = normal_law([0.4, -0.2], torch.eye(2, dtype=torch.float64) * VARIANCE)
    reward = quadratic([-1.0, 0.5], WIDTH2)

    def gradient(x, t):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(reward.value(model, leaf, t).sum(), leaf)[0]

    return model, reward, gradient


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_it_makes_the_plug_in_gradient_exact_on_gaussian_data(path, case):
    model, reward, gradient = case
    model.interpolant = path
    factor = align.damping(path, 1 / WIDTH2, VARIANCE**0.5)
    for t in (0.05, 0.4, 0.8, 0.99):
        plugin = align.value_gradient(model, reward, STATES, t, estimator="plugin")
        assert torch.allclose(factor(t) * plugin, gradient(STATES, t), rtol=1e-9)
        assert 0.3 < factor(t) < 0.9999


def test_it_makes_the_gradient_of_one_draw_unbiased_on_gaussian_data(case, seeded, check_mean):
    model, reward, gradient = case
    factor = align.damping(model.interpolant, 1 / WIDTH2, VARIANCE**0.5)
    for t in (0.2, 0.6):
        found = align.value_gradient(model, reward, STATES[:1].expand(10_000, -1), t, 1, generator=seeded())
        check_mean(factor(t) * found, gradient(STATES[:1], t)[0], limit=4)


@pytest.mark.parametrize("estimator, particles", [("plugin", 50), ("reparam", 300)])
def test_damped_guidance_follows_the_flow_of_the_tilted_law(estimator, particles, case, seeded, check_mean):
    """The plug-in's is the exact flow's own walk, sample by sample; one draw's is so in the mean, for every step is
    affine. Both start after the first moments, where the noise tells nothing."""
    model, reward, _ = case
    times = torch.cat([torch.tensor([0.0, 1e-9]).double(), torch.linspace(0, 1, 17).double()[1:]])
    scale = align.damping(model.interpolant, 1 / WIDTH2, VARIANCE**0.5)
    out = align.guide(model, reward, particles, mc=1, estimator=estimator, scale=scale, times=times, generator=seeded())
    law, x = reward.law(model), model.prior(particles, generator=seeded())
    for t, t_next in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = x + (t_next - t) * law.velocity(x, t)
    if estimator == "plugin":
        assert torch.allclose(out.samples[0], x, atol=1e-6)
    else:
        check_mean(out.samples[0] - x, torch.zeros(2, dtype=torch.float64), limit=4, slack=1e-6)
    undamped = align.guide(model, reward, particles, mc=1, estimator=estimator, times=times, generator=seeded())
    assert (undamped.samples[0] - x).mean(0).abs().max() > 0.1


def test_without_curvature_it_damps_nothing():
    assert [align.damping(Linear(), 0.0)(t) for t in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]
    assert align.damping(Linear(), 4.0, 0.5)(0.0) == pytest.approx(1 / (1 + 4 * 0.25))
    assert align.damping(Linear(), 4.0, 0.5)(1.0) == 1.0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"curvature": -1.0}, "^curvature: got -1.0"),
        ({"curvature": float("inf")}, "^curvature: got inf"),
        ({"curvature": float("nan")}, "^curvature: got nan"),
        ({"curvature": 1.0, "spread": 0.0}, "^spread: got 0.0"),
        ({"curvature": 1.0, "spread": float("nan")}, "^spread: got nan"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        align.damping(Linear(), **options)
