"""The path: its scales, their derivatives and inverse, and the faces of one network."""

import pytest
import torch

from diamond.interpolant import Cosine, Linear, interpolant_named

INSIDE = torch.linspace(0.03, 0.97, 48, dtype=torch.float64)
ALL = torch.linspace(0, 1, 33, dtype=torch.float64)


@pytest.fixture
def states():
    return torch.randn(2, len(INSIDE), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_path_goes_from_pure_noise_to_clean_data(path):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert path.alpha(ends).tolist() == [0, 1]
    assert path.sigma(ends).tolist() == [1, 0]


def test_derivatives_agree_with_finite_differences(path):
    step = 1e-5
    for scale, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        finite = (scale(INSIDE + step) - scale(INSIDE - step)) / (2 * step)
        torch.testing.assert_close(slope(INSIDE), finite, rtol=0, atol=1e-9)


def test_derivatives_exist_at_both_ends(path):
    step = 1e-7
    for scale, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        ends, inward = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([step, -step], dtype=torch.float64)
        torch.testing.assert_close(slope(ends), (scale(ends + inward) - scale(ends)) / inward, rtol=0, atol=1e-6)


def test_noise_to_signal_falls_from_infinity_to_zero(path):
    ratio = path.noise_to_signal(ALL)
    assert ratio[0] == torch.inf
    assert ratio[-1] == 0
    assert (ratio.diff()[1:] < 0).all()


def test_inverse_of_noise_to_signal_gives_the_time_back(path):
    torch.testing.assert_close(path.noise_to_signal_inverse(path.noise_to_signal(ALL)), ALL, rtol=0, atol=1e-12)


def test_time_of_ignores_the_common_scale(path):
    for scale in (1e-6, 1.0, 1e6):
        found = path.time_of(scale * path.alpha(ALL), scale * path.sigma(ALL))
        torch.testing.assert_close(found, ALL, rtol=0, atol=1e-12)


def test_time_of_is_differentiable_in_both_scales(path):
    alpha, sigma = (scale(INSIDE).clone().requires_grad_() for scale in (path.alpha, path.sigma))
    slopes = torch.autograd.grad(path.time_of(alpha, sigma).sum(), (alpha, sigma))
    step = 1e-5
    for slope, (da, ds) in zip(slopes, ((step, 0), (0, step)), strict=True):
        finite = path.time_of(alpha + da, sigma + ds) - path.time_of(alpha - da, sigma - ds)
        torch.testing.assert_close(slope, finite.detach() / (2 * step), rtol=1e-5, atol=1e-7)


def test_time_of_inverts_the_path_under_forward_differentiation(path):
    def back(t):
        return path.time_of(path.alpha(t), path.sigma(t))

    time, slope = torch.func.jvp(back, (INSIDE,), (torch.ones_like(INSIDE),))
    torch.testing.assert_close(time, INSIDE, rtol=0, atol=1e-12)
    torch.testing.assert_close(slope, torch.ones_like(INSIDE), rtol=0, atol=1e-9)


def test_velocity_and_denoiser_are_inverse_to_each_other(path, states):
    x, denoised = states
    velocity = path.velocity_from_denoiser(x, INSIDE, denoised)
    torch.testing.assert_close(path.denoiser_from_velocity(x, INSIDE, velocity), denoised, rtol=0, atol=1e-10)
    velocity = denoised
    back = path.velocity_from_denoiser(x, INSIDE, path.denoiser_from_velocity(x, INSIDE, velocity))
    torch.testing.assert_close(back, velocity, rtol=0, atol=1e-10)


def test_noise_and_denoiser_are_inverse_to_each_other(path, states):
    x, denoised = states
    noise = path.noise_from_denoiser(x, INSIDE, denoised)
    torch.testing.assert_close(path.denoiser_from_noise(x, INSIDE, noise), denoised, rtol=0, atol=1e-10)


def test_denoiser_and_noise_add_up_to_the_state(path, states):
    x, denoised = states
    rebuilt = path.interpolate(denoised, path.noise_from_denoiser(x, INSIDE, denoised), INSIDE)
    torch.testing.assert_close(rebuilt, x, rtol=0, atol=1e-12)


def test_score_is_the_noise_over_minus_sigma(path, states):
    x, denoised = states
    score = path.score_from_denoiser(x, INSIDE, denoised)
    noise = path.noise_from_denoiser(x, INSIDE, denoised)
    torch.testing.assert_close(-path.sigma(INSIDE)[:, None] * score, noise, rtol=1e-12, atol=1e-12)


def test_velocity_of_known_data_is_the_time_derivative_of_the_path(path, states):
    z, noise = states
    x, slope = torch.func.jvp(lambda t: path.interpolate(z, noise, t), (INSIDE,), (torch.ones_like(INSIDE),))
    torch.testing.assert_close(path.velocity_from_denoiser(x, INSIDE, z), slope, rtol=0, atol=1e-10)


def test_at_time_zero_the_velocity_tells_the_mean_and_the_score_is_that_of_noise(path, states):
    x, denoised = states
    start = torch.zeros(len(x), dtype=torch.float64)
    velocity = path.velocity_from_denoiser(x, start, denoised)
    expected = path.alpha_dot(start)[:, None] * denoised + path.sigma_dot(start)[:, None] * x
    torch.testing.assert_close(velocity, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.denoiser_from_velocity(x, start, velocity), denoised, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.score_from_denoiser(x, start, denoised), -x, rtol=0, atol=1e-12)
    assert path.denoiser_from_noise(x, start, denoised).isfinite().all()


def test_at_time_one_the_denoiser_is_the_state_whatever_the_network_says(path, states):
    x, output = states
    end = torch.ones(len(x), dtype=torch.float64)
    torch.testing.assert_close(path.denoiser_from_velocity(x, end, output), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.denoiser_from_noise(x, end, output), x, rtol=0, atol=1e-12)
    assert (path.noise_from_denoiser(x, end, x) == 0).all()
    expected = path.alpha_dot(end)[:, None] * x
    torch.testing.assert_close(path.velocity_from_denoiser(x, end, x), expected, rtol=0, atol=1e-12)


def test_gradients_in_the_state_are_finite_at_both_ends(path, states):
    for end in (0.0, 1.0):
        x, output = (state.clone().requires_grad_() for state in states)
        t = torch.full((len(x),), end, dtype=torch.float64)
        for face in (path.velocity_from_denoiser, path.denoiser_from_velocity, path.noise_from_denoiser):
            slopes = torch.autograd.grad(face(x, t, output).sum(), (x, output))
            assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("event", [(), (5,), (2, 3, 4)])
def test_each_sample_is_scaled_by_its_own_time(path, event):
    generator = torch.Generator().manual_seed(1)
    z, noise = torch.randn(2, 3, *event, generator=generator)
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    x = path.interpolate(z, noise, t)
    assert x.dtype == z.dtype
    for row in range(3):
        expected = float(path.alpha(t[row])) * z[row] + float(path.sigma(t[row])) * noise[row]
        torch.testing.assert_close(x[row], expected)


def test_cosine_keeps_the_variance(states):
    torch.testing.assert_close(Cosine().alpha(ALL) ** 2 + Cosine().sigma(ALL) ** 2, torch.ones_like(ALL))


def test_names_lead_back_to_their_paths():
    assert type(interpolant_named("linear")) is Linear
    assert type(interpolant_named("cosine")) is Cosine
