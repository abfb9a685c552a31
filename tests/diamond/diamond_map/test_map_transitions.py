"""Transitions by stopping early: the exact kernels of every correlation, and the time to stop at."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.interpolant import Linear
from diamond.observation import combine_looks

STEPS = [(0.0, 0.3), (0.2, 0.5), (0.5, 0.8), (0.9, 0.95), (0.4, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize(("t", "t_next"), STEPS)
def test_stopping_early_is_the_ddpm_kernel_draw_by_draw(
    diamond, model, exact, t, t_next, seeded, kernel_moments, looks
):
    """The stopped map is affine in its noise with the kernel's mean and the root of its covariance."""
    mean, covariance = kernel_moments(model, looks, t, t_next)
    deviations = (exact.basis.T @ covariance @ exact.basis).diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    noise = torch.randn(looks.shape, dtype=torch.float64, generator=seeded())
    expected = mean + (deviations * (noise @ exact.basis)) @ exact.basis.T
    found = diamond.transition(looks, t, t_next, generator=seeded())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("t", "t_next"), STEPS)
@pytest.mark.parametrize("rho", [None, -0.5, 0.0, 0.4, 1.0])
def test_transitions_have_the_mean_and_covariance_of_their_kernel(
    diamond, model, t, t_next, rho, seeded, check_law, kernel_moments, looks
):
    draws = diamond.transition(looks.repeat(4_000, 1), t, t_next, rho=rho, generator=seeded())
    check_law(draws.reshape(-1, 3, 2), *kernel_moments(model, looks, t, t_next, rho), slack=1e-9)


def test_stopping_time_makes_the_pair_worth_a_look_at_the_next_time(path):
    t, t_next = (v.flatten() for v in torch.meshgrid(*2 * [torch.linspace(0, 1, 21).double()], indexing="ij"))
    later = t_next > t
    t, t_next = t[later], t_next[later]
    stop = DiamondMap(lambda x: x, path, (2,)).stopping_time(t, t_next)
    assert (stop > 0).all()
    assert (stop <= 1).all()
    pair = combine_looks(path, (path.alpha(t), path.sigma(t)), (stop, 1 - stop))
    torch.testing.assert_close(pair.time, t_next, rtol=0, atol=1e-12)
    inside = (t > 0) & (t_next < 1)
    total = 1 / path.noise_to_signal(t) + 1 / Linear().noise_to_signal(stop)
    torch.testing.assert_close(total[inside], 1 / path.noise_to_signal(t_next)[inside])


def test_stopping_time_at_the_ends(path):
    """From pure noise to t' it is t' up to the clock of the path, and to the data it is the whole way."""
    times = torch.linspace(0.05, 0.95, 10).double()
    map_of = DiamondMap(lambda x: x, path, (2,))
    from_noise = map_of.stopping_time(torch.zeros_like(times), times)
    torch.testing.assert_close(from_noise, path.alpha(times) / (path.alpha(times) + path.sigma(times)))
    assert (map_of.stopping_time(times, torch.ones_like(times)) == 1).all()


def test_rows_of_a_batch_may_stand_at_different_times(diamond, seeded, randn, looks):
    t, t_next = torch.tensor([[0.0, 0.3, 0.8], [0.2, 1.0, 0.9]], dtype=torch.float64)
    noise = randn(1, 3, 2)
    drawn = diamond.posterior(looks, t, noise=noise)
    moved = diamond.transition(looks, t, t_next, generator=[seeded(0), seeded(1), seeded(2)])
    for i in range(3):
        row = slice(i, i + 1)
        torch.testing.assert_close(drawn[:, row], diamond.posterior(looks[row], float(t[i]), noise=noise[:, row]))
        alone = diamond.transition(looks[row], float(t[i]), float(t_next[i]), generator=seeded(i))
        torch.testing.assert_close(moved[row], alone)
