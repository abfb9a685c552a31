"""What a noisy look tells of a mixture: density, score, denoiser, velocity and posterior, against matrix algebra."""

import pytest
import torch

from diamond.mixture import GaussianMixtureFlow

TIMES = [0.0, 0.1, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("t", TIMES)
def test_log_density_is_that_of_a_mixture_of_normal_laws(model, x, t):
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = model.interpolant.alpha(time), model.interpolant.sigma(time)
    eye = torch.eye(*2 * model.event_shape, dtype=torch.float64)
    covariances = model.covariances if model.covariances.ndim == 3 else model.covariances[:, None, None] * eye
    normal = torch.distributions.MultivariateNormal(alpha * model.means, alpha**2 * covariances + sigma**2 * eye)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(model.weights), normal)
    torch.testing.assert_close(model.log_prob(x, t), mixture.log_prob(x))


@pytest.mark.parametrize("t", TIMES)
def test_score_is_the_gradient_of_the_log_density(model, x, t):
    x.requires_grad_()
    slope = torch.autograd.grad(model.log_prob(x, t).sum(), x)[0]
    torch.testing.assert_close(model.score(x, t), slope)


@pytest.mark.parametrize("t", TIMES)
def test_denoiser_is_the_posterior_mean_and_tweedies(model, x, t, posterior_law, moments):
    denoised = model.denoise(x, t)
    torch.testing.assert_close(denoised, moments(*posterior_law(model, x, t))[0])
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = model.interpolant.alpha(time), model.interpolant.sigma(time)
    torch.testing.assert_close(alpha * denoised, x + sigma**2 * model.score(x, t))


@pytest.mark.parametrize("t", TIMES[1:-1])
def test_velocity_moves_the_density_by_the_continuity_equation(model, x, t):
    """d/dt log p = - div u - u . grad log p."""
    times = torch.full((len(x),), t, dtype=torch.float64)
    change = torch.func.jvp(lambda time: model.log_prob(x, time), (times,), (torch.ones_like(times),))[1]
    velocity = model.velocity(x, t)
    divergence = torch.zeros_like(change)
    for axis in range(x.shape[1]):
        unit = torch.zeros_like(x)
        unit[:, axis] = 1
        divergence += torch.func.jvp(lambda y: model.velocity(y, t), (x,), (unit,))[1][:, axis]
    torch.testing.assert_close(change, -divergence - (velocity * model.score(x, t)).sum(-1))


@pytest.mark.parametrize("t", TIMES)
def test_velocity_is_that_of_the_denoiser(model, x, t):
    times = torch.full((len(x),), t, dtype=torch.float64)
    expected = model.interpolant.velocity_from_denoiser(x, times, model.denoise(x, t))
    if t == 1:  # where the noise is gone, and a clean state says nothing of it
        expected = model.interpolant.alpha_dot(times)[:, None] * x
    torch.testing.assert_close(model.velocity(x, t), expected)


def test_at_the_ends_the_posterior_is_the_data_or_the_state(model, x, seeded):
    torch.testing.assert_close(model.denoise(x, 0.0), model.mean().expand_as(x))
    torch.testing.assert_close(model.denoise(x, 1.0), x)
    torch.testing.assert_close(model.posterior(x, 1.0, 3, generator=seeded()), x.expand(3, -1, -1))


@pytest.mark.parametrize("t", TIMES[:-1])
def test_posterior_draws_have_the_mean_and_covariance_of_the_posterior(
    model, x, t, seeded, check_law, posterior_law, moments
):
    draws = model.posterior(x, t, 10_000, generator=seeded())
    check_law(draws, *moments(*posterior_law(model, x, t)))


def test_posterior_draws_fill_the_distribution_function_evenly(line, seeded, check_mean, posterior_law):
    model, look = line(), torch.tensor([[0.15]], dtype=torch.float64)
    weights, means, covariances = posterior_law(model, look, 0.4)
    z = model.posterior(look, 0.4, 50_000, generator=seeded())[:, 0]
    level = (weights[0] * torch.special.ndtr((z - means[0, :, 0]) / covariances[:, 0, 0].sqrt())).sum(-1)
    shares = torch.nn.functional.one_hot((20 * level).long(), 20).double()
    check_mean(shares, torch.full((20,), 0.05, dtype=torch.float64))


def test_each_row_has_its_own_time(model, x):
    times = torch.linspace(0, 1, len(x), dtype=torch.float64)
    for face in (model.denoise, model.score, model.velocity, model.log_prob):
        together = face(x, times)
        alone = torch.cat([face(x[i : i + 1], float(times[i])) for i in range(len(x))])
        torch.testing.assert_close(together, alone)


def test_draws_of_a_population_do_not_depend_on_the_others(model, x):
    def draw(rows, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return model.posterior(x[rows], 0.5, 3, generator=generators)

    together = draw(slice(0, 6), [1, 2, 3])
    assert torch.equal(together[:, 2:4], draw(slice(2, 4), [2]))


@pytest.mark.parametrize("t", TIMES)
def test_matrices_and_variances_describe_the_same_law(case_a, twin, plane, t):
    full, tilt = twin(case_a), (torch.tensor([0.8, -0.5], dtype=torch.float64), 0.7)
    for face in ("log_prob", "denoise", "score", "velocity"):
        torch.testing.assert_close(getattr(full, face)(plane, t), getattr(case_a, face)(plane, t))
    torch.testing.assert_close(full.value(plane, t, *tilt), case_a.value(plane, t, *tilt))
    torch.testing.assert_close(full.tilt(*tilt).state_dict(), twin(case_a.tilt(*tilt)).state_dict())


@pytest.mark.parametrize("t", TIMES)
def test_components_without_width_are_points(t):
    """With covariances of zero the data are the means themselves, and the denoiser a softmax over them."""
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    model = GaussianMixtureFlow(torch.ones(2).double(), points, torch.zeros(2).double())
    x = torch.tensor([[-0.9, 0.1], [0.2, 0.2], [1.0, 0.5]], dtype=torch.float64)
    far = ((x[:, None] - t * points) ** 2).sum(-1) / (2 * max(1 - t, 1e-6) ** 2)
    torch.testing.assert_close(model.denoise(x, t), (-far).softmax(-1) @ points)
