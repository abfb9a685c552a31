"""Gradients through draws of a mixture are those of its exact moments and quantiles."""

import pytest
import torch

from diamond.interpolant import Linear

FUNCTIONS = {
    "first": lambda z: z[..., 0],
    "second squared": lambda z: z[..., 1] ** 2,
    "product": lambda z: z[..., 0] * z[..., 1],
    "exponential": lambda z: (0.4 * z[..., 0] - 0.3 * z[..., 1]).exp(),
}


@pytest.mark.parametrize("t", [0.15, 0.5, 0.85])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_mean_gradient_through_draws_is_the_gradient_of_the_mean(
    model, t, name, seeded, check_mean, posterior_law, moments
):
    x = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)[:, : model.event_shape[0]].requires_grad_()
    linear = torch.tensor([0.4, -0.3, 0.0], dtype=torch.float64)[: model.event_shape[0]]
    mean, covariance = moments(*posterior_law(model, x, t))
    second = covariance + mean[:, :, None] * mean[:, None, :]
    exact = {
        "first": mean[:, 0],
        "second squared": second[:, 1, 1],
        "product": second[:, 0, 1],
        "exponential": model.value(x, t, linear).exp(),
    }[name]
    expected = torch.autograd.grad(exact.sum(), x)[0][0]
    many = x.detach().repeat(5_000, 1).requires_grad_()
    drawn = FUNCTIONS[name](model.posterior(many, t, generator=seeded()))
    check_mean(torch.autograd.grad(drawn.sum(), many)[0], expected)


def test_gradient_through_a_draw_on_the_line_is_that_of_its_quantile(line, seeded, transport, posterior_law):
    """Draw by draw: the level of z under the posterior's distribution function stays what it is."""
    model, t, step = line(), 0.5, 1e-5
    x = torch.full((60, 1), 0.15, dtype=torch.float64, requires_grad=True)
    z = model.posterior(x, t, generator=seeded())
    slope = torch.autograd.grad(z.sum(), x)[0][:, 0]

    def law(look):
        weights, means, covariances = posterior_law(model, torch.tensor([[look]], dtype=torch.float64), t)
        return weights[0], means[0, :, 0], covariances[:, 0, 0].sqrt()

    weights, means, deviations = law(0.15)
    level = (weights * torch.special.ndtr((z.detach()[0] - means) / deviations)).sum(-1)
    noise = torch.special.ndtri(level)
    finite = (transport(noise, *law(0.15 + step)) - transport(noise, *law(0.15 - step))) / (2 * step)
    torch.testing.assert_close(slope, finite, rtol=1e-4, atol=1e-6)


def test_gradients_leave_the_draws_as_they_are(model, x, seeded):
    plain = model.posterior(x, 0.4, 5, generator=seeded())
    traced = model.posterior(x.requires_grad_(), 0.4, 5, generator=seeded())
    assert traced.requires_grad
    assert torch.equal(plain, traced)
    with torch.no_grad():
        assert not model.posterior(x, 0.4, 5, generator=seeded()).requires_grad


def test_gradient_of_a_draw_stays_in_its_row(model, x, seeded):
    x.requires_grad_()
    draws = model.posterior(x, 0.4, 5, generator=seeded())
    slope = torch.autograd.grad(draws[:, 2].sum(), x)[0]
    assert float(slope[2].abs().min()) > 0
    slope[2] = 0
    assert (slope == 0).all()


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_gradient_at_the_ends_is_none_or_the_identity(model, x, t, seeded):
    x.requires_grad_()
    for axis in range(x.shape[1]):
        slope = torch.autograd.grad(model.posterior(x, t, generator=seeded())[..., axis].sum(), x)[0]
        expected = torch.zeros_like(x)
        expected[:, axis] = t
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-6)


def test_gradient_through_a_transition_is_that_of_the_kernel_mean(correlated, seeded, check_mean, kernel_moments):
    model = correlated(Linear())
    x = torch.tensor([[0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    for rho in (None, -0.5):
        mean = kernel_moments(model, x, 0.4, 0.7, rho)[0]
        expected = torch.autograd.grad(mean[0, 1], x)[0][0]
        many = x.detach().repeat(10_000, 1).requires_grad_()
        moved = model.transition(many, 0.4, 0.7, rho=rho, generator=seeded())
        check_mean(torch.autograd.grad(moved[:, 1].sum(), many)[0], expected)
