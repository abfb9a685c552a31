"""The exact model of a Gaussian mixture, against matrix algebra, automatic differentiation and Monte Carlo."""

import math

import pytest
import torch

from diamond.interpolant import Linear
from diamond.mixture import GaussianMixtureFlow

TIMES = [0.0, 0.1, 0.5, 0.9, 1.0]
KINDS = ["isotropic", "full"]


@pytest.fixture(params=KINDS)
def model(request, path, case_a, seeded):
    """Isotropic components in the plane, and correlated ones in space: in the plane an eigenbasis is often its own
    transpose, and hides a confusion of the two."""
    if request.param == "isotropic":
        return GaussianMixtureFlow(case_a.weights, case_a.means, case_a.covariances, path)
    factors = 0.5 * torch.randn(3, 3, 3, dtype=torch.float64, generator=seeded(8))
    means = torch.tensor([[-1.0, 0.5, 0.2], [1.0, -0.5, 0.0], [0.5, 1.0, -0.6]], dtype=torch.float64)
    covariances = factors @ factors.mT + 0.05 * torch.eye(3, dtype=torch.float64)
    return GaussianMixtureFlow(torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64), means, covariances, path)


@pytest.fixture
def tilt(model):
    """The linear part and the precision of a reward."""
    return torch.tensor([0.8, -0.5, 0.3], dtype=torch.float64)[: model.event_shape[0]], 0.7


@pytest.fixture
def reward(tilt):
    linear, precision = tilt
    return lambda z: z @ linear - precision * z.square().sum(-1) / 2


@pytest.fixture
def twin():
    """The same law with its isotropic covariances written as matrices."""

    def of(model):
        full = model.covariances[:, None, None] * torch.eye(2, dtype=torch.float64)
        return GaussianMixtureFlow(model.weights, model.means, full, model.interpolant)

    return of


@pytest.fixture
def x(model, seeded):
    return 1.5 * torch.randn(7, *model.event_shape, dtype=torch.float64, generator=seeded(2))


@pytest.fixture
def plane(seeded):
    return 1.5 * torch.randn(7, 2, dtype=torch.float64, generator=seeded(2))


# ---------------------------------------------------------------- the law of the data


def test_samples_have_the_mean_and_covariance_of_the_mixture(model, seeded, check_law):
    check_law(model.sample(50_000, generator=seeded()), model.mean(), model.covariance())


def test_samples_fill_the_distribution_function_evenly(line, seeded, check_mean):
    """Under its own distribution function a sample is uniform, whatever its law."""
    model = line()
    z = model.sample(50_000, generator=seeded())
    level = (model.weights * torch.special.ndtr((z - model.means[:, 0]) / model.covariances.sqrt())).sum(-1)
    shares = torch.nn.functional.one_hot((20 * level).long(), 20).double()
    check_mean(shares, torch.full((20,), 0.05, dtype=torch.float64))


def test_mean_and_covariance_have_their_closed_form(case_a, twin):
    mean = 0.35 * case_a.means[0] + 0.65 * case_a.means[1]
    gap = (case_a.means[1] - case_a.means[0])[:, None]
    within = (0.35 * 0.16 + 0.65 * 0.36) * torch.eye(2, dtype=torch.float64)
    for model in (case_a, twin(case_a)):
        torch.testing.assert_close(model.mean(), mean)
        torch.testing.assert_close(model.covariance(), within + 0.35 * 0.65 * gap @ gap.T)


def test_weights_are_normalised(case_a):
    scaled = GaussianMixtureFlow(7 * case_a.weights, case_a.means, case_a.covariances)
    torch.testing.assert_close(scaled.weights, case_a.weights)


def test_whole_numbers_and_lists_are_read_as_numbers(plane):
    model = GaussianMixtureFlow([1, 3], [[0, 1], [2, -1]], [1, 2])
    assert model.weights.tolist() == [0.25, 0.75]
    exact = GaussianMixtureFlow(*(torch.tensor(v).double() for v in ([1, 3], [[0, 1], [2, -1]], [1, 2])))
    torch.testing.assert_close(model.denoise(plane.float(), 0.5), exact.denoise(plane, 0.5).float())


# ---------------------------------------------------------------- what a noisy look tells


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
    if t < 1:
        torch.testing.assert_close(model.velocity(x, t), expected)
    assert model.velocity(x, t).isfinite().all()


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


# ---------------------------------------------------------------- tilts and values


def test_tilted_density_is_the_density_times_the_exponential_of_the_reward(model, x, tilt, reward):
    tilted = model.tilt(*tilt)
    torch.testing.assert_close(tilted.log_prob(x), model.log_prob(x) + reward(x) - model.log_normaliser(*tilt))


@pytest.mark.parametrize("t", TIMES)
def test_tilted_marginal_is_the_marginal_times_the_exponential_of_the_value(model, x, t, tilt):
    value = model.value(x, t, *tilt)
    tilted = model.tilt(*tilt).log_prob(x, t)
    torch.testing.assert_close(tilted, model.log_prob(x, t) + value - model.log_normaliser(*tilt))


def test_value_ends_in_the_reward_and_starts_at_log_z(model, x, tilt, reward):
    torch.testing.assert_close(model.value(x, 1.0, *tilt), reward(x))
    torch.testing.assert_close(model.value(x, 0.0, *tilt), model.log_normaliser(*tilt).expand(len(x)))


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_value_is_the_log_mean_of_exponential_rewards(model, x, t, seeded, check_mean, tilt, reward):
    draws = model.posterior(x, t, 10_000, generator=seeded())
    check_mean(reward(draws).exp(), model.value(x, t, *tilt).exp())


def test_normaliser_is_the_mean_exponential_reward_of_the_data(model, seeded, check_mean, tilt, reward):
    z = model.sample(50_000, generator=seeded())
    check_mean(reward(z).exp(), model.log_normaliser(*tilt).exp())


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_gradient_of_the_value_is_a_tilted_mean_less_the_mean(model, x, t, tilt):
    """grad V = alpha / sigma^2 (E_tilted[z | x] - E[z | x])."""
    x.requires_grad_()
    slope = torch.autograd.grad(model.value(x, t, *tilt).sum(), x)[0]
    time = torch.tensor(t, dtype=torch.float64)
    factor = model.interpolant.alpha(time) / model.interpolant.sigma(time) ** 2
    torch.testing.assert_close(slope, factor * (model.tilt(*tilt).denoise(x, t) - model.denoise(x, t)))


CASES = {
    "mild": ((-1.0, 0.0), 0.5, -1.544201, (-1.14818, 0.27864), ((0.43671, -0.13129), (-0.13129, 0.19141))),
    "hard": ((-2.5, 1.5), 0.05, -7.246811, (-2.2619, 1.2619), ((0.0381, 0.0), (0.0, 0.0381))),
    "very hard": ((-3.0, 2.0), 0.02, -15.747047, (-2.83333, 1.83333), ((0.01778, 0.0), (0.0, 0.01778))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_reference_tilts(case, kind, case_a, twin):
    """r(z) = -|z - c|^2 / (2 tau^2), whose constant part is not the mixture's business."""
    target, width, log_z, mean, covariance = CASES[case]
    target, mean, covariance = (torch.tensor(v, dtype=torch.float64) for v in (target, mean, covariance))
    model = twin(case_a) if kind == "full" else case_a
    constant = -target.square().sum() / (2 * width)
    assert abs(float(model.log_normaliser(target / width, 1 / width) + constant) - log_z) < 1e-6
    tilted = model.tilt(target / width, 1 / width)
    torch.testing.assert_close(tilted.mean(), mean, rtol=0, atol=5e-5)
    torch.testing.assert_close(tilted.covariance(), covariance, rtol=0, atol=5e-5)
    if case == "mild":
        torch.testing.assert_close(tilted.weights, torch.tensor([0.85041, 0.14959]).double(), rtol=0, atol=5e-6)


def test_linear_tilt_moves_means_and_keeps_covariances(case_a):
    slope = torch.tensor([0.4, -1.1], dtype=torch.float64)
    tilted = case_a.tilt(slope)
    variances = case_a.covariances
    log_weights = case_a.weights.log() + case_a.means @ slope + variances * slope.square().sum() / 2
    torch.testing.assert_close(tilted.means, case_a.means + variances[:, None] * slope)
    torch.testing.assert_close(tilted.covariances, variances)
    torch.testing.assert_close(tilted.weights, log_weights.softmax(-1))
    torch.testing.assert_close(case_a.log_normaliser(slope), log_weights.logsumexp(-1))


# ---------------------------------------------------------------- gradients through draws


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


def test_single_precision_is_close_to_double(model, x, tilt):
    single = GaussianMixtureFlow(*(v.float() for v in model.state_dict().values()), model.interpolant)
    for t in (0.1, 0.5, 0.9):
        torch.testing.assert_close(single.denoise(x.float(), t).double(), model.denoise(x, t), rtol=1e-4, atol=1e-4)
    found = single.value(x.float(), 0.5, *tilt).double()
    torch.testing.assert_close(found, model.value(x, 0.5, *tilt), rtol=1e-4, atol=1e-4)


def test_the_model_is_a_yardstick_that_costs_nothing(model, x):
    model.posterior(x, 0.5, 10)
    model.velocity(x, 0.5)
    assert model.nfe == 0
    assert model.event_shape == x.shape[1:]
    assert math.isclose(float(model.weights.sum()), 1)
