"""GLASS flows: posterior draws from a denoiser alone, exact as the inner steps shrink."""

import pytest
import torch

from diamond.flow import Flow, euler
from diamond.glass import GlassFlow, glass_velocity
from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.transition import transition_scales

LOOKS = torch.tensor([[0.3, -0.4], [-1.0, 1.5]], dtype=torch.float64)


def flow_of(model):
    """The same model as a flow that counts its evaluations."""
    return Flow(model.denoise, model.interpolant, model.event_shape, "denoiser")


def slope(steps, errors):
    """The exponent p of errors ~ steps^-p, by least squares."""
    x, y = torch.log(torch.tensor(steps, dtype=torch.float64)), torch.log(torch.tensor(errors, dtype=torch.float64))
    return -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def test_velocity_is_theorem_one_with_the_joint_covariance_inverted(path, correlated, seeded):
    """The mean given both looks by a 2 x 2 inverse, then u = (mean - x_bar) / (1 - s)."""
    model = correlated(path)
    t, s = (v.flatten() for v in torch.meshgrid(*2 * [torch.linspace(0.05, 0.95, 7).double()], indexing="ij"))
    x, x_bar = torch.randn(2, len(t), 2, dtype=torch.float64, generator=seeded())
    signal = torch.stack([path.alpha(t), s], dim=-1)
    precision = torch.diag_embed(torch.stack([path.sigma(t), 1 - s], dim=-1) ** -2.0)
    total = torch.einsum("bi,bij,bj->b", signal, precision, signal)
    statistic = torch.einsum("bi,bij,bjd->bd", signal, precision, torch.stack([x, x_bar], dim=1)) / total[:, None]
    time = path.noise_to_signal_inverse(1 / total)
    mean = model.denoise(path.alpha(time)[:, None] * statistic, time)
    found = glass_velocity(model.denoise, path, x_bar, s, x, t)
    torch.testing.assert_close(found, (mean - x_bar) / (1 - s)[:, None], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize("t", [0.0, 0.2, 0.6, 0.9])
def test_posterior_draws_have_the_exact_mean_and_covariance(
    path, t, correlated, seeded, check_law, posterior_law, moments
):
    model = correlated(path)
    draws = GlassFlow(model, steps=40, solver="heun").posterior(LOOKS, t, 2_000, generator=seeded())
    check_law(draws, *moments(*posterior_law(model, LOOKS, t)), slack=5e-3)


@pytest.mark.parametrize("t", [0.2, 0.6])
@pytest.mark.parametrize(("solver", "low", "high"), [("euler", 0.85, 1.1), ("heun", 1.5, 2.2)])
def test_posterior_draws_converge_at_the_order_of_the_solver(
    t, solver, low, high, line, seeded, transport, posterior_law
):
    """On the line the inner flow is the increasing map from its noise to the posterior, which is known."""
    model, look = line(), torch.tensor([[0.15]], dtype=torch.float64)
    noise = torch.randn(50, 1, 1, dtype=torch.float64, generator=seeded())
    weights, means, covariances = posterior_law(model, look, t)
    exact = transport(noise[:, 0, 0], weights[0], means[0, :, 0], covariances[:, 0, 0].sqrt())
    steps, errors = [16, 32, 64, 128], []
    for count in steps:
        draws = GlassFlow(model, count, solver).posterior(look, t, 50, noise=noise)
        errors.append(float((draws[:, 0, 0] - exact).square().mean().sqrt()))
    assert low < slope(steps, errors) < high
    assert errors[-1] < 0.02


def test_one_inner_step_draws_around_the_denoiser(path, correlated, seeded):
    """One step is exact for a denoiser that does not move: the Gaussian step with z = D(x_t)."""
    model = correlated(path)
    glass = GlassFlow(model, steps=1)
    torch.testing.assert_close(glass.posterior(LOOKS, 0.4, generator=seeded())[0], model.denoise(LOOKS, 0.4))
    noise = torch.randn(LOOKS.shape, dtype=torch.float64, generator=seeded())
    for rho in (None, -0.5, 0.7):
        scales = transition_scales(path, *torch.tensor([[0.4], [0.8]], dtype=torch.float64), rho)
        expected = scales.alpha * model.denoise(LOOKS, 0.4) + scales.gamma * LOOKS + scales.sigma * noise
        torch.testing.assert_close(glass.transition(LOOKS, 0.4, 0.8, rho=rho, generator=seeded()), expected)


def test_from_pure_noise_it_is_the_flow_itself(correlated, seeded):
    """At t = 0 the outer look is silent; on the linear path the inner flow is then the outer one, step by step."""
    model = correlated()
    noise = torch.randn(1, 2, 2, dtype=torch.float64, generator=seeded())
    found = GlassFlow(model, steps=12).posterior(LOOKS, 0.0, noise=noise)[0]
    torch.testing.assert_close(found, euler(model.velocity, noise[0], torch.linspace(0, 1, 13).double()))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_from_clean_data_it_stays_there(path, solver, correlated, seeded):
    glass = GlassFlow(correlated(path), steps=4, solver=solver)
    torch.testing.assert_close(glass.posterior(LOOKS, 1.0, 3, generator=seeded()), LOOKS.expand(3, -1, -1))


def test_rows_of_a_batch_may_stand_at_different_times(path, correlated, seeded):
    glass = GlassFlow(correlated(path), steps=5)
    x = torch.randn(4, 2, dtype=torch.float64, generator=seeded())
    noise = torch.randn(3, 4, 2, dtype=torch.float64, generator=seeded(1))
    t = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    together = glass.posterior(x, t, 3, noise=noise)
    for i in range(4):
        alone = glass.posterior(x[i : i + 1], float(t[i]), 3, noise=noise[:, i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone)


def test_noise_replaces_the_generator(correlated, seeded):
    glass = GlassFlow(correlated(), steps=5)
    noise = torch.randn(6, 2, 2, dtype=torch.float64, generator=seeded(3))
    given = glass.posterior(LOOKS, 0.4, 6, noise=noise)
    assert torch.equal(given, glass.posterior(LOOKS, 0.4, 6, generator=seeded(3)))
    assert torch.equal(given, glass.posterior(LOOKS, 0.4, 6, noise=noise, generator=seeded(4)))
    assert not torch.equal(given, glass.posterior(LOOKS, 0.4, 6, generator=seeded(4)))


@pytest.mark.parametrize("shape", [(5, 2, 2), (6, 3, 2), (6, 2, 1), (2, 6, 2), (12, 2)])
def test_noise_of_another_shape_is_refused(correlated, shape):
    with pytest.raises(ValueError, match=r"^noise: got .* expected a floating tensor of shape \(6, 2, 2\)"):
        GlassFlow(correlated()).posterior(LOOKS, 0.4, 6, noise=torch.zeros(shape, dtype=torch.float64))


def test_gradient_through_a_draw_of_gaussian_data_is_the_posterior_gain(path, seeded):
    """z = mean(x_t) + deviation * noise, whose slope in x_t is alpha S / (alpha^2 S + sigma^2)."""
    weight, mean, variance = torch.tensor([[1.0, 0.4, 0.3]], dtype=torch.float64).unbind(1)
    model = GaussianMixtureFlow(weight, mean[:, None], variance, path)
    x = torch.zeros(9, 1, dtype=torch.float64, requires_grad=True)
    z = GlassFlow(model, steps=64, solver="heun").posterior(x, 0.4, generator=seeded())
    alpha, sigma = (scale(torch.tensor(0.4, dtype=torch.float64)) for scale in (path.alpha, path.sigma))
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    torch.testing.assert_close(torch.autograd.grad(z.sum(), x)[0], gain.expand(9, 1), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("solver", "cost"), [("euler", 7), ("heun", 13)])
def test_evaluations_are_counted_per_draw(solver, cost, correlated):
    """Heun's method looks twice a step, but for the last, which ends where there is no noise left."""
    flow = flow_of(correlated())
    glass = GlassFlow(flow, steps=7, solver=solver)
    glass.posterior(LOOKS, 0.4, 5)
    assert glass.nfe == flow.nfe == 5 * len(LOOKS) * cost
    glass.nfe = 0
    glass.transition(LOOKS, 0.4, 0.8)
    assert glass.nfe == flow.nfe == len(LOOKS) * cost


def test_making_a_view_keeps_the_count_of_the_flow(correlated):
    flow = flow_of(correlated())
    flow.denoise(LOOKS, 0.5)
    assert GlassFlow(flow).nfe == 2


def test_velocity_and_denoiser_are_those_of_the_flow(correlated):
    model = correlated()
    glass = GlassFlow(model)
    assert torch.equal(glass.velocity(LOOKS, 0.3), model.velocity(LOOKS, 0.3))
    assert torch.equal(glass.denoise(LOOKS, 0.3), model.denoise(LOOKS, 0.3))
    torch.testing.assert_close(glass.score(LOOKS, 0.3), model.score(LOOKS, 0.3))
    assert glass.interpolant is model.interpolant
    assert glass.event_shape == model.event_shape


def test_every_draw_of_a_row_has_the_rows_conditioning(seeded):
    """A network whose denoiser is its label: all draws of a row must end there."""
    flow = Flow(lambda x, t, cond: cond[:, None].expand_as(x), None, (2,), "denoiser")
    cond = torch.tensor([1.0, 2.0, 3.0])
    glass = GlassFlow(flow, steps=3)
    draws = glass.posterior(torch.zeros(3, 2), 0.3, 4, cond=cond, generator=seeded())
    torch.testing.assert_close(draws, cond[:, None].expand(4, 3, 2))
    torch.testing.assert_close(glass.transition(torch.zeros(3, 2), 0.3, 1.0, cond=cond), cond[:, None].expand(3, 2))


def test_events_of_any_shape_are_treated_alike(seeded):
    """A denoiser that acts on each number alone gives the same draws for images and for their flat lists."""
    image = GlassFlow(Flow(lambda x, t: torch.tanh(x), None, (2, 3, 2), "denoiser"), steps=4)
    flat = GlassFlow(Flow(lambda x, t: torch.tanh(x), None, (12,), "denoiser"), steps=4)
    x, noise = torch.randn(5, 2, 3, 2, generator=seeded()), torch.randn(3, 5, 2, 3, 2, generator=seeded(1))
    drawn = image.posterior(x, 0.4, 3, noise=noise)
    torch.testing.assert_close(drawn.flatten(2), flat.posterior(x.flatten(1), 0.4, 3, noise=noise.flatten(2)))


def test_draws_of_a_population_do_not_depend_on_the_others(correlated, seeded):
    glass = GlassFlow(correlated(), steps=4)
    x = torch.randn(6, 2, dtype=torch.float64, generator=seeded())

    def draw(rows, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = glass.posterior(x[rows], 0.5, 3, generator=generators)
        return drawn, glass.transition(x[rows], 0.5, 0.8, generator=generators)

    posterior, moved = draw(slice(0, 6), [1, 2, 3])
    alone_posterior, alone_moved = draw(slice(2, 4), [2])
    torch.testing.assert_close(posterior[:, 2:4], alone_posterior, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved[2:4], alone_moved, rtol=0, atol=1e-12)
