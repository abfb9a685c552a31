"""Gaussian transitions: any correlation keeps the marginals, and GLASS flows draw from the very kernels."""

import pytest
import torch

from diamond.glass import GlassFlow
from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.transition import ddpm_correlation, gaussian_step, transition_scales

STEPS = [(0.0, 0.3), (0.2, 0.5), (0.5, 0.8), (0.5, 1.0), (0.9, 0.95), (0.0, 1.0)]
RHOS = [None, -1.0, -0.6, 0.0, 0.4, 0.9, 1.0]


@pytest.fixture(params=STEPS, ids=str)
def times(request):
    return tuple(torch.tensor([time], dtype=torch.float64) for time in request.param)


@pytest.mark.parametrize("rho", RHOS)
def test_given_the_data_the_marginal_is_kept_and_the_noises_have_that_correlation(path, times, rho):
    t, t_next = times
    scales = transition_scales(path, t, t_next, rho)
    asked = ddpm_correlation(path, t, t_next) if rho is None else torch.tensor([rho], dtype=torch.float64)
    torch.testing.assert_close(scales.alpha + scales.gamma * path.alpha(t), path.alpha(t_next))
    variance = (scales.gamma * path.sigma(t)) ** 2 + scales.sigma**2
    torch.testing.assert_close(variance, path.sigma(t_next) ** 2)
    torch.testing.assert_close(scales.gamma * path.sigma(t), asked * path.sigma(t_next))


def test_ddpm_is_bayes_rule_for_the_noising_process(path, times):
    """Noising x_{t'} to x_t multiplies by a / a' and adds noise; reversed, given z, it is the DDPM kernel."""
    t, t_next = times
    (a, s), (a_next, s_next) = ((path.alpha(u), path.sigma(u)) for u in times)
    faded = a / a_next
    added = s**2 - (faded * s_next) ** 2
    gain = s_next**2 * faded / ((faded * s_next) ** 2 + added)
    scales = transition_scales(path, t, t_next, None)
    torch.testing.assert_close(scales.gamma, gain)
    torch.testing.assert_close(scales.alpha, a_next - gain * faded * a_next)
    torch.testing.assert_close(scales.sigma**2, s_next**2 - gain * faded * s_next**2)


def test_ddpm_correlation_has_its_formula(path):
    t, t_next = torch.tensor([[0.2, 0.5, 0.7], [0.4, 0.6, 1.0]], dtype=torch.float64)
    expected = (path.noise_to_signal(t_next) / path.noise_to_signal(t)).sqrt()
    torch.testing.assert_close(ddpm_correlation(path, t, t_next), expected)


def test_adjacent_times_give_a_step_that_stays_put(path):
    t = torch.linspace(0.01, 0.98, 400, dtype=torch.float64)
    scales = transition_scales(path, t, torch.nextafter(t, torch.ones_like(t)), None)
    torch.testing.assert_close(scales.gamma, torch.ones_like(t), rtol=0, atol=1e-7)
    assert float(scales.sigma.max()) < 1e-6


@pytest.mark.parametrize("rho", [-1.0, 0.0, 0.5])
def test_clean_data_stay_what_they_are(path, rho):
    end = torch.ones(2, dtype=torch.float64)
    z, noise = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gaussian_step(path, z, z, end, end, rho, noise), z)


def test_each_sample_has_its_own_correlation(path, seeded):
    x, z, noise = torch.randn(3, 3, 2, dtype=torch.float64, generator=seeded())
    t, t_next = torch.tensor([[0.1, 0.5, 0.7], [0.3, 0.6, 1.0]], dtype=torch.float64)
    rhos = torch.tensor([-0.5, 0.0, 0.8])
    together = gaussian_step(path, x, z, t, t_next, rhos, noise)
    for i, rho in enumerate(rhos.tolist()):
        row = slice(i, i + 1)
        alone = gaussian_step(path, x[row], z[row], t[row], t_next[row], rho, noise[row])
        torch.testing.assert_close(together[row], alone)


@pytest.mark.parametrize("rho", [1.01, -2.0, float("nan")])
def test_a_correlation_outside_its_range_is_refused(rho):
    t, t_next = torch.tensor([[0.2], [0.5]])
    with pytest.raises(ValueError, match=r"^rho: got .* expected correlations in \[-1, 1\]"):
        transition_scales(Linear(), t, t_next, rho)


# ---------------------------------------------------------------- chains keep the marginals


@pytest.mark.parametrize("rho", [None, -0.7, 0.0, 0.5, 0.95])
def test_a_chain_of_transitions_ends_in_the_law_of_the_data(path, rho, correlated, seeded, check_law):
    """Two exact steps from the marginal at 0.2 to that at 0.5 to the data, whatever the correlation."""
    model, generator = correlated(path), seeded(5)
    z = model.sample(20_000, generator=generator)
    start = torch.full((len(z),), 0.2, dtype=torch.float64)
    x = path.interpolate(z, torch.randn(z.shape, dtype=z.dtype, generator=generator), start)
    x = model.transition(x, 0.2, 0.5, rho=rho, generator=generator)
    alpha, sigma = (float(scale(torch.tensor(0.5, dtype=torch.float64))) for scale in (path.alpha, path.sigma))
    noise = sigma**2 * torch.eye(2, dtype=torch.float64)
    check_law(x, alpha * model.mean(), alpha**2 * model.covariance() + noise)
    check_law(model.transition(x, 0.5, 1.0, rho=rho, generator=generator), model.mean(), model.covariance())


# ---------------------------------------------------------------- the kernel itself

KERNELS = [(0.3, 0.5, None), (0.5, 0.8, None), (0.5, 0.8, 0.4), (0.5, 0.8, -0.6), (0.1, 0.9, 0.9), (0.5, 1.0, 0.3)]


@pytest.mark.parametrize(("t", "t_next", "rho"), KERNELS)
def test_exact_kernel_of_a_mixture_has_its_mean_and_covariance(
    t, t_next, rho, correlated, seeded, check_law, kernel_moments
):
    model = correlated(Cosine())
    x = torch.tensor([[0.3, -0.4], [-1.0, 1.5]], dtype=torch.float64)
    draws = model.transition(x.repeat(20_000, 1), t, t_next, rho=rho, generator=seeded()).reshape(-1, *x.shape)
    check_law(draws, *kernel_moments(model, x, t, t_next, rho))


@pytest.mark.parametrize(("t", "t_next", "rho"), KERNELS)
def test_glass_flow_draws_from_the_exact_kernel(t, t_next, rho, correlated, seeded, check_law, kernel_moments):
    model = correlated()
    x = torch.tensor([[0.3, -0.4], [-1.0, 1.5]], dtype=torch.float64)
    glass = GlassFlow(model, steps=30, solver="heun")
    draws = glass.transition(x.repeat(3_000, 1), t, t_next, rho=rho, generator=seeded()).reshape(-1, *x.shape)
    check_law(draws, *kernel_moments(model, x, t, t_next, rho), slack=4e-3)


@pytest.mark.parametrize(("t", "t_next", "rho"), KERNELS)
def test_glass_flow_is_the_increasing_map_to_the_kernel_on_the_line(
    t, t_next, rho, line, seeded, transport, posterior_law
):
    """Draw by draw: the inner flow carries its start to the kernel's quantile of the same level."""
    path = Cosine()
    model = line(path)
    start = torch.randn(200, 1, dtype=torch.float64, generator=seeded())
    x = torch.tensor([[0.6]], dtype=torch.float64)
    weights, means, covariances = posterior_law(model, x, t)
    scales = transition_scales(path, *(torch.tensor([u], dtype=torch.float64) for u in (t, t_next)), rho)
    deviations = (scales.alpha**2 * covariances[:, 0, 0] + scales.sigma**2).sqrt()
    expected = transport(start[:, 0], weights[0], scales.alpha * means[0, :, 0] + scales.gamma * x[0], deviations)
    glass = GlassFlow(model, steps=100, solver="heun")
    found = glass.transition(x.expand(200, 1), t, t_next, rho=rho, generator=seeded())
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=4e-3)


@pytest.mark.parametrize(("t", "t_next", "rho"), KERNELS[1::2])
def test_glass_flow_of_gaussian_data_is_affine_with_the_exact_kernel(path, t, t_next, rho, seeded, kernel_moments):
    """Gaussian data: mean and covariance in closed form, draw by draw, without Monte Carlo error."""
    weight, mean, variance = torch.tensor([[1.0, 0.4, 0.3]], dtype=torch.float64).unbind(1)
    model = GaussianMixtureFlow(weight, mean[:, None], variance, path)
    x = torch.tensor([[-0.8]], dtype=torch.float64)
    centre, spread = kernel_moments(model, x, t, t_next, rho)
    glass = GlassFlow(model, steps=64, solver="heun")
    found = glass.transition(x.expand(50, 1), t, t_next, rho=rho, generator=seeded())
    start = torch.randn(50, 1, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(found, centre + spread[:, 0].sqrt() * start, rtol=0, atol=4e-3)


def test_glass_flow_starts_at_its_right_mean_before_the_end(line, seeded, kernel_moments, check_mean):
    """From t = 0.5 to 0.8 at x_t = 2 the mean is 1.5455; an inner flow started at 0 instead ends near 1.458."""
    model = line()
    x = torch.full((40_000, 1), 2.0, dtype=torch.float64)
    exact = kernel_moments(model, x[:1], 0.5, 0.8)[0][0]
    assert abs(float(exact) - 1.5455) < 5e-5
    draws = GlassFlow(model, steps=30, solver="heun").transition(x, 0.5, 0.8, generator=seeded())
    check_mean(draws, exact, slack=5e-4)
    assert float(draws.mean()) > 1.53


def test_every_correlation_leads_to_the_same_posterior_at_time_one(correlated, seeded):
    glass = GlassFlow(correlated(), steps=8)
    x = torch.tensor([[0.3, -0.4], [-1.0, 1.5]], dtype=torch.float64)
    posterior = glass.posterior(x, 0.4, generator=seeded())[0]
    for rho in (None, -0.5, 0.0, 1.0):
        torch.testing.assert_close(glass.transition(x, 0.4, 1.0, rho=rho, generator=seeded()), posterior)
