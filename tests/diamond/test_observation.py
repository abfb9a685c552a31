"""Two looks at the same data: precisions add, and the pair is a statistic and an ancillary noise."""

import pytest
import torch

from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.observation import combine_looks

TIMES = torch.tensor([0.04, 0.2, 0.35, 0.5, 0.7, 0.9, 0.97], dtype=torch.float64)
T, S = (grid.flatten() for grid in torch.meshgrid(TIMES, TIMES, indexing="ij"))
CORNERS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


def scales(path, t):
    return path.alpha(t), path.sigma(t)


def linear(s):
    return s, 1 - s


def test_precisions_of_the_looks_add(path):
    looks = combine_looks(path, scales(path, T), linear(S))
    total = 1 / path.noise_to_signal(T) + 1 / Linear().noise_to_signal(S)
    torch.testing.assert_close(1 / path.noise_to_signal(looks.time), total, rtol=1e-9, atol=0)


def test_statistic_has_the_law_of_the_state_at_the_effective_time(path):
    (a_x, s_x), (a_y, s_y) = scales(path, T), linear(S)
    looks = combine_looks(path, (a_x, s_x), (a_y, s_y))
    on_x, on_y = looks.weights
    torch.testing.assert_close(on_x * a_x + on_y * a_y, path.alpha(looks.time), rtol=1e-10, atol=0)
    variance = (on_x * s_x) ** 2 + (on_y * s_y) ** 2
    torch.testing.assert_close(variance, path.sigma(looks.time) ** 2, rtol=1e-8, atol=1e-14)


def test_ancillary_noise_is_standard_without_signal_and_uncorrelated_with_the_statistic(path):
    (a_x, s_x), (a_y, s_y) = scales(path, T), linear(S)
    looks = combine_looks(path, (a_x, s_x), (a_y, s_y))
    (on_x, on_y), (left_x, left_y) = looks.weights, looks.ancillary
    nothing, one = torch.zeros_like(T), torch.ones_like(T)
    torch.testing.assert_close(left_x * a_x + left_y * a_y, nothing, rtol=0, atol=1e-12)
    torch.testing.assert_close((left_x * s_x) ** 2 + (left_y * s_y) ** 2, one, rtol=0, atol=1e-12)
    torch.testing.assert_close(on_x * left_x * s_x**2 + on_y * left_y * s_y**2, nothing, rtol=0, atol=1e-12)


def test_draws_of_the_pair_have_those_laws(path, seeded, check_mean):
    z, noise_x, noise_y = torch.randn(3, 200_000, 1, dtype=torch.float64, generator=seeded())
    z = 0.5 + 0.7 * z
    t, s = torch.tensor([0.6], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    looks = combine_looks(path, scales(path, t), linear(s))
    x, y = path.interpolate(z, noise_x, t), Linear().interpolate(z, noise_y, s)
    statistic, noise = looks.statistic(x, y), looks.noise(x, y)
    left = (statistic - path.alpha(looks.time) * z) / path.sigma(looks.time)
    products = [noise, noise**2, noise * z, noise * statistic, left, left**2, left * z, left * noise]
    check_mean(torch.stack(products, dim=-1), torch.tensor([0, 1, 0, 0, 0, 1, 0, 0], dtype=torch.float64))


def test_mean_given_both_looks_is_the_denoiser_at_the_statistic_for_gaussian_data(path, seeded):
    """Brute force: condition the joint Gaussian law of (z, x, y) with a matrix inverse."""
    weights, mean, variance = torch.tensor([[1.0, 0.4, 0.3]], dtype=torch.float64).unbind(1)
    model = GaussianMixtureFlow(weights, mean[:, None], variance, path)
    (a_x, s_x), (a_y, s_y) = scales(path, T), linear(S)
    x, y = torch.randn(2, len(T), 1, dtype=torch.float64, generator=seeded())
    signal = torch.stack([a_x, a_y], dim=-1)
    noise = torch.diag_embed(torch.stack([s_x, s_y], dim=-1) ** 2)
    covariance = variance * signal[:, :, None] * signal[:, None, :] + noise
    gap = torch.cat([x, y], dim=-1) - mean * signal
    gain = variance * torch.linalg.solve(covariance, gap)
    expected = mean + (signal * gain).sum(-1, keepdim=True)
    looks = combine_looks(path, (a_x, s_x), (a_y, s_y))
    torch.testing.assert_close(model.denoise(looks.statistic(x, y), looks.time), expected, rtol=1e-9, atol=1e-9)


def test_mean_given_both_looks_is_the_denoiser_at_the_statistic_for_a_mixture(path, line, seeded):
    """Brute force: integrate over z on a fine grid."""
    model = line(path)
    (a_x, s_x), (a_y, s_y) = scales(path, T), linear(S)
    z = model.sample(len(T), generator=seeded())
    noise_x, noise_y = torch.randn(2, len(T), 1, dtype=torch.float64, generator=seeded(1))
    x, y = path.interpolate(z, noise_x, T), Linear().interpolate(z, noise_y, S)
    grid = torch.linspace(-6, 6, 6001, dtype=torch.float64)
    fit = ((x - a_x[:, None] * grid) / s_x[:, None]) ** 2 + ((y - a_y[:, None] * grid) / s_y[:, None]) ** 2
    weights = (model.log_prob(grid[:, None]) - fit / 2).softmax(-1)
    looks = combine_looks(path, (a_x, s_x), (a_y, s_y))
    found = model.denoise(looks.statistic(x, y), looks.time)
    torch.testing.assert_close(found, (weights @ grid)[:, None], rtol=0, atol=1e-8)


def test_looks_may_change_places():
    for path in (Linear(), Cosine()):
        one = combine_looks(path, scales(path, T), scales(path, S))
        other = combine_looks(path, scales(path, S), scales(path, T))
        torch.testing.assert_close(one.time, other.time)
        torch.testing.assert_close(one.weights, other.weights[::-1])


def test_a_silent_look_adds_nothing(path):
    silent = torch.zeros_like(TIMES)
    looks = combine_looks(path, scales(path, TIMES), linear(silent))
    torch.testing.assert_close(looks.time, TIMES, rtol=0, atol=1e-12)
    torch.testing.assert_close(looks.weights[0], torch.ones_like(TIMES), rtol=0, atol=1e-10)
    torch.testing.assert_close(looks.weights[1], silent, rtol=0, atol=1e-12)
    torch.testing.assert_close(looks.ancillary[0], silent, rtol=0, atol=1e-12)
    torch.testing.assert_close(looks.ancillary[1].abs(), torch.ones_like(TIMES), rtol=0, atol=1e-12)


def test_a_clean_look_is_all_there_is_to_know(path):
    clean, silent = torch.ones_like(TIMES), torch.zeros_like(TIMES)
    for x_scales, y_scales, place in (
        (scales(path, clean), linear(TIMES), 0),
        (scales(path, TIMES), linear(clean), 1),
    ):
        looks = combine_looks(path, x_scales, y_scales)
        torch.testing.assert_close(looks.time, clean, rtol=0, atol=1e-12)
        torch.testing.assert_close(looks.weights[place], clean, rtol=0, atol=1e-12)
        torch.testing.assert_close(looks.weights[1 - place], silent, rtol=0, atol=1e-12)


@pytest.mark.parametrize("t", CORNERS.tolist())
@pytest.mark.parametrize("s", CORNERS.tolist())
def test_every_corner_is_finite_and_keeps_the_laws(path, t, s):
    t, s = (torch.tensor([time], dtype=torch.float64) for time in (t, s))
    (a_x, s_x), (a_y, s_y) = scales(path, t), linear(s)
    looks = combine_looks(path, (a_x, s_x), (a_y, s_y))
    fields = looks.time, *looks.weights, *looks.ancillary
    assert all(field.isfinite().all() for field in fields)
    (on_x, on_y), (left_x, left_y) = looks.weights, looks.ancillary
    torch.testing.assert_close(on_x * a_x + on_y * a_y, path.alpha(looks.time), rtol=0, atol=1e-12)
    torch.testing.assert_close((on_x * s_x) ** 2 + (on_y * s_y) ** 2, path.sigma(looks.time) ** 2, rtol=0, atol=1e-12)
    torch.testing.assert_close(left_x * a_x + left_y * a_y, torch.zeros(1).double(), rtol=0, atol=1e-12)
    if float(t) < 1 or float(s) < 1:  # two clean looks leave no noise
        variance = (left_x * s_x) ** 2 + (left_y * s_y) ** 2
        torch.testing.assert_close(variance, torch.ones(1).double(), rtol=0, atol=1e-12)


def test_effective_time_and_weights_are_differentiable_in_both_times(path):
    def fields(t, s):
        looks = combine_looks(path, scales(path, t), linear(s))
        return torch.stack([looks.time, *looks.weights, *looks.ancillary])

    step = 1e-6
    one = torch.ones_like(T)
    for tangents in ((one, 0 * one), (0 * one, one)):
        slope = torch.func.jvp(fields, (T, S), tangents)[1]
        shifts = [tuple(v + sign * step * d for v, d in zip((T, S), tangents, strict=True)) for sign in (1, -1)]
        finite = (fields(*shifts[0]) - fields(*shifts[1])) / (2 * step)
        torch.testing.assert_close(slope, finite, rtol=1e-5, atol=1e-6)


def test_each_sample_has_its_own_weights_and_keeps_its_dtype(path, seeded):
    x, y = torch.randn(2, len(T), 2, 3, generator=seeded())
    looks = combine_looks(path, scales(path, T), linear(S))
    found = looks.statistic(x, y)
    assert found.dtype == torch.float32
    expected = torch.einsum("b,bij->bij", looks.weights[0], x.double())
    expected = expected + torch.einsum("b,bij->bij", looks.weights[1], y.double())
    torch.testing.assert_close(found, expected.float())
