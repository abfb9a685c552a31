"""Posterior draws in one call: the exact law, draw by draw, their noise and their gradients."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.interpolant import Linear


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_one_call_carries_noise_to_the_posterior(diamond, exact, t, randn, looks, full):
    """z = m(x_t) + sqrt(v) noise, draw by draw."""
    noise = randn(5, 3, 2)
    mean, variance = exact.posterior(looks, full(t))
    expected = (mean + variance.sqrt() * (noise @ exact.basis)) @ exact.basis.T
    torch.testing.assert_close(diamond.posterior(looks, t, 5, noise=noise), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_posterior_draws_have_the_exact_mean_and_covariance(
    diamond, model, t, seeded, check_law, posterior_law, moments, looks
):
    draws = diamond.posterior(looks, t, 10_000, generator=seeded())
    check_law(draws, *moments(*posterior_law(model, looks, t)))


def test_several_shorter_maps_lead_to_the_same_draws(diamond, randn, looks):
    noise = randn(5, 3, 2)
    once = diamond.posterior(looks, 0.4, 5, noise=noise)
    torch.testing.assert_close(diamond.posterior(looks, 0.4, 5, noise=noise, steps=3), once, rtol=0, atol=1e-9)


def test_noise_replaces_the_generator(diamond, seeded, looks):
    noise = torch.randn(6, 3, 2, dtype=torch.float64, generator=seeded(3))
    given = diamond.posterior(looks, 0.4, 6, noise=noise)
    assert torch.equal(given, diamond.posterior(looks, 0.4, 6, generator=seeded(3)))
    assert not torch.equal(given, diamond.posterior(looks, 0.4, 6, generator=seeded(4)))


@pytest.mark.parametrize("shape", [(5, 3, 2), (6, 2, 2), (6, 3, 1), (3, 6, 2), (18, 2)])
def test_noise_of_another_shape_is_refused(data, shape, exact_net, looks):
    diamond = DiamondMap(exact_net(Linear(), *data))
    with pytest.raises(ValueError, match=r"^noise: got .* expected a floating tensor of shape \(6, 3, 2\)"):
        diamond.posterior(looks, 0.4, 6, noise=torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_gradient_through_a_draw_is_the_posterior_gain(diamond, exact, t, axis, looks, randn, full):
    """dz / dx_t = alpha S (alpha^2 S + sigma^2)^-1 for every draw."""
    x = looks.clone().requires_grad_()
    slope = torch.autograd.grad(diamond.posterior(x, t, noise=randn(1, 3, 2))[0, :, axis].sum(), x)[0]
    alpha, sigma = (float(scale(full(t)[0])) for scale in (exact.path.alpha, exact.path.sigma))
    gain = exact.basis * (alpha * exact.values / (alpha**2 * exact.values + sigma**2)) @ exact.basis.T
    torch.testing.assert_close(slope, gain[axis].expand(3, 2), rtol=0, atol=1e-8)
