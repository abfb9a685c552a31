"""Where GLASS steps: for Gaussian data every step's loss has a closed form, and "posterior" makes it that of t = 0."""

import math

import pytest
import torch

from diamond.glass import GlassFlow
from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.transition import transition_scales

GRIDS = ["uniform", "posterior"]
LATE = [(0.9, 4.0, 15.0), (0.97, 14.0, 80.0)]  # t, how many times less the squared error must be: Euler, Heun
EARLY = [0.1, 0.3, 0.5]


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian(path, deviation):
    return GaussianMixtureFlow(times(1.0), times([0.4, -0.7]), times(deviation**2), path)


def nodes(grid, steps, end, scale):
    """The inner ratios `r = s a / ((1 - s) + s b)` at which steps begin and end: even in s, or in `r / (r + scale)`."""
    alpha, sigma = end
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if grid == "uniform":
        return even * alpha / ((1 - even) + even * sigma)
    part = even * alpha / (alpha + scale * sigma)
    return scale * part / (1 - part)


def kept(ratios, precision):
    """The share of a deviation from the mean that Euler's steps keep of what they should: a cosine each."""
    return torch.atan(ratios / precision).diff().cos().prod()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("t", [0.0, 0.4, 0.95])
def test_a_step_keeps_the_cosine_of_its_angle(path, grid, deviation, t, seeded):
    """Posterior draws and transitions of Gaussian data have the exact mean, and a deviation known for any grid."""
    model, x = gaussian(path, deviation), torch.randn(1, 2, dtype=torch.float64, generator=seeded())
    glass, noise = GlassFlow(model, 6, grid=grid), torch.randn(5, 1, 2, dtype=torch.float64, generator=seeded(1))
    alpha, sigma = float(path.alpha(times(t))), float(path.sigma(times(t)))
    precision, scale = math.hypot(1 / deviation, alpha / sigma), math.hypot(1, alpha / sigma)
    mean, ratios = model.denoise(x, t), nodes(grid, 6, (1.0, 0.0), scale)
    expected = mean + noise / precision * kept(ratios, precision)
    torch.testing.assert_close(glass.posterior(x, t, 5, noise=noise), expected)

    for rho in (None, -0.4):
        scales = transition_scales(path, times(t), times(0.98), rho)
        ratios = nodes(grid, 6, (scales.alpha, scales.sigma), scale)
        spread = torch.hypot(scales.sigma, scales.alpha / precision) * kept(ratios, precision)
        noise = torch.randn(1, 2, dtype=torch.float64, generator=seeded(2))
        expected = scales.alpha * mean + scales.gamma * x + spread * noise
        torch.testing.assert_close(glass.transition(x, t, 0.98, rho=rho, generator=seeded(2)), expected)


def test_the_loss_is_the_same_at_every_time_and_that_of_equal_angles_is_near(path, seeded):
    """Of data of variance 1: with n steps at least `cos(pi / 2n)^n` is lost, and "posterior" loses up to 5 % more."""
    model, n = gaussian(path, 1.0), 24
    noise = torch.randn(1, 2, dtype=torch.float64, generator=seeded())
    lost = {grid: [] for grid in GRIDS}
    for t in (0.0, 0.3, 0.9, 0.999):
        x, width = torch.zeros(1, 2, dtype=torch.float64), model.interpolant.sigma(times(t))
        width = width / torch.hypot(width, model.interpolant.alpha(times(t)))
        for grid in GRIDS:
            drawn = GlassFlow(model, n, grid=grid).posterior(x, t, noise=noise[None])[0]
            lost[grid].append(float(1 - ((drawn - model.denoise(x, t)) / noise / width).mean()))
    even = 1 - math.cos(math.pi / 2 / n) ** n
    torch.testing.assert_close(times(*lost["posterior"]), times(lost["uniform"][0]).expand(4))
    assert 1.03 * even < lost["posterior"][0] < 1.05 * even
    assert lost["uniform"][-1] > 15 * even


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 3.0, 20.0])
def test_the_loss_where_the_scale_is_wrong(ratio):
    """`(1 + pi/4 (c/P + P/c)) / 2n` to leading order; that of angles equal for c is `pi^2/16 (c/P + P/c) / n`."""
    n = 4000
    ratios = nodes("posterior", n, (1.0, 0.0), ratio)
    expected = (1 + math.pi / 4 * (ratio + 1 / ratio)) / 2
    assert float(-n * kept(ratios, 1.0).log()) == pytest.approx(expected, rel=5e-3)
    angles = ratio * torch.tan(torch.linspace(0, math.pi / 2, n + 1, dtype=torch.float64))
    assert float(-n * kept(angles, 1.0).log()) == pytest.approx(math.pi**2 / 16 * (ratio + 1 / ratio), rel=5e-3)


def test_from_pure_noise_the_grids_agree_on_the_linear_path(correlated, seeded):
    model, x = correlated(), torch.randn(3, 2, dtype=torch.float64, generator=seeded())
    one, other = (GlassFlow(model, 5, "heun", grid) for grid in GRIDS)
    for draw in (
        lambda m: m.posterior(x, 0.0, 4, generator=seeded()),
        lambda m: m.transition(x, 0, 0.6, generator=seeded()),
    ):
        torch.testing.assert_close(draw(one), draw(other))


def test_late_draws_err_many_times_less_and_early_ones_no_more(correlated, seeded):
    """Of a mixture with components of every orientation, endpoints against 256 even steps from the same noise."""
    model = correlated()
    z, noise = model.sample(60, generator=seeded()), torch.randn(1, 60, 2, dtype=torch.float64, generator=seeded(1))

    def gains(t):
        """Uniform's mean squared error over that of "posterior": Euler's, Heun's."""
        x = t * z + (1 - t) * torch.randn(z.shape, dtype=z.dtype, generator=seeded(2))
        fine = GlassFlow(model, 256, "heun").posterior(x, t, noise=noise)
        drawn = [
            [GlassFlow(model, 8, solver, grid).posterior(x, t, noise=noise) for grid in GRIDS]
            for solver in ("euler", "heun")
        ]
        return times(*[(one - fine).square().mean() / (other - fine).square().mean() for one, other in drawn])

    for t, euler, heun in LATE:
        assert (gains(t) > times(euler, heun)).all()
    for t in EARLY:
        assert (gains(t) > 0.95).all()


@pytest.mark.parametrize(("path", "t"), [(Linear(), 0.2), (Linear(), 0.8), (Cosine(), 0.6)], ids=repr)
@pytest.mark.parametrize(("solver", "low"), [("euler", 1.8), ("heun", 3.0)])
def test_both_grids_converge_to_the_exact_posterior(path, t, solver, low, line, seeded, transport, posterior_law):
    """On the line the exact map from noise is known; half the step leaves a half or a quarter of the error."""
    model, look = line(path), times([0.15])
    noise = torch.randn(50, 1, 1, dtype=torch.float64, generator=seeded())
    weights, means, covariances = posterior_law(model, look, t)
    exact = transport(noise[:, 0, 0], weights[0], means[0, :, 0], covariances[:, 0, 0].sqrt())
    for grid in GRIDS:
        drawn = [GlassFlow(model, n, solver, grid).posterior(look, t, 50, noise=noise) for n in (64, 128)]
        coarse, fine = (float((draws[:, 0, 0] - exact).square().mean().sqrt()) for draws in drawn)
        assert coarse > low * fine
        assert fine < 0.02


def test_a_shared_time_and_times_by_row_give_the_same(path, correlated, seeded):
    glass = GlassFlow(correlated(path), 4, "heun", "posterior")
    x = torch.randn(3, 2, dtype=torch.float64, generator=seeded())
    noise = torch.randn(2, 3, 2, dtype=torch.float64, generator=seeded(1))
    for t in (0.0, 0.6, 1.0):
        rows = torch.full((3,), t, dtype=torch.float64)
        torch.testing.assert_close(
            glass.posterior(x, t, 2, noise=noise), glass.posterior(x, rows, 2, noise=noise), rtol=0, atol=1e-12
        )
    rows = times(0.0, 0.6, 0.9)
    later = torch.full((3,), 0.95, dtype=torch.float64)
    together = glass.posterior(x, rows, 2, noise=noise), glass.transition(x, rows, later, generator=seeded(2))
    moves = torch.randn(3, 2, dtype=torch.float64, generator=seeded(2))
    for i in range(3):
        row, t = slice(i, i + 1), float(rows[i])
        alone = glass.posterior(x[row], t, 2, noise=noise[:, row])
        torch.testing.assert_close(together[0][:, row], alone, rtol=0, atol=1e-12)
        alone = glass._inner(moves[row], x[row], rows[row], later[row], None, None)
        torch.testing.assert_close(together[1][row], alone, rtol=0, atol=1e-12)


def test_draws_do_not_depend_on_how_many_are_made_at_once(correlated, seeded):
    glass = GlassFlow(correlated(), 4, grid="posterior")
    x, t = torch.randn(6, 2, dtype=torch.float64, generator=seeded()), torch.linspace(0, 0.95, 6).double()
    noise = torch.randn(4, 6, 2, dtype=torch.float64, generator=seeded(1))
    whole = glass.posterior(x, t, 4, noise=noise)
    for rows in (slice(0, 2), slice(2, 6)):
        for draws in (slice(0, 1), slice(1, 4)):
            part = noise[draws, rows]
            found = glass.posterior(x[rows], t[rows], len(part), noise=part)
            torch.testing.assert_close(found, whole[draws, rows], rtol=0, atol=1e-12)


def test_near_clean_data_in_single_precision_nothing_is_lost(seeded):
    """The last single number before 1, and 1 itself: the draws are the data, up to the posterior's width."""
    model = GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1), Linear())
    x = torch.randn(4, 2, generator=seeded())
    for t in (1 - 2.0**-24, 1.0):
        for solver in ("euler", "heun"):
            drawn = GlassFlow(model, 4, solver, "posterior").posterior(x, t, 3, generator=seeded())
            torch.testing.assert_close(drawn, x.expand(3, 4, 2), rtol=0, atol=1e-5)


def test_an_unknown_grid_is_refused(correlated):
    with pytest.raises(ValueError, match=r"^grid: got 'even', expected"):
        GlassFlow(correlated(), grid="even")
