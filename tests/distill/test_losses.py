"""Each loss is zero on the exact map of Gaussian data, and on no other."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from distill.losses import diagonal, endpoint, flow_matching, lagrangian
from distill.problems import PosteriorProblem, trajectory
from distill.times import inner_grid, inner_pairs, uniform_times

MEAN, VARIANCE = torch.tensor([0.7, -0.3], dtype=torch.float64), 0.6


class ExactMap(DiamondMap):
    """The Diamond Map of N(MEAN, VARIANCE I) in closed form: for each `x_t` the affine flow from N(0, 1) to N(m', v')."""

    def __init__(self, interpolant, stretch=1.0):
        super().__init__(lambda *_: None, interpolant, (2,))
        self.stretch = stretch

    def _law(self, x_t, t):
        alpha, sigma = self.interpolant.alpha(t)[:, None], self.interpolant.sigma(t)[:, None]
        total = alpha**2 * VARIANCE + sigma**2
        return MEAN + alpha * VARIANCE / total * (x_t - alpha * MEAN), VARIANCE * sigma**2 / total

    def displace(self, x_bar, s, r, x_t, t, *, cond=None):
        mean, variance = self._law(x_t, t)
        s, r = s[:, None], r[:, None]
        spread = lambda q: (q**2 * variance + (1 - q) ** 2).sqrt()  # noqa: E731
        ratio = (spread(r) / spread(s)) ** self.stretch
        return r * mean + ratio * (x_bar - s * mean)

    def inner_velocity(self, x_bar, s, x_t, t, *, cond=None):
        return torch.func.jvp(lambda r: self.displace(x_bar, s, r, x_t, t), (s,), (torch.ones_like(s),))[1]


def problem(interpolant, stretch=1.0, n=64):
    generator = torch.Generator().manual_seed(3)
    teacher = GaussianMixtureFlow(torch.ones(1), MEAN[None], torch.tensor([VARIANCE], dtype=torch.float64), interpolant)
    t = uniform_times(n, generator, torch.device("cpu")).double()
    x_t = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return PosteriorProblem(teacher, ExactMap(interpolant, stretch), x_t, t), x, generator


@pytest.mark.parametrize("interpolant", [Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize("stretch, zero", [(1.0, True), (1.1, False)], ids=["exact", "wrong"])
def test_map_losses_vanish_on_the_exact_map_alone(interpolant, stretch, zero):
    part, x, generator = problem(interpolant, stretch)
    s, r = (times.double() for times in inner_pairs(len(x), 0.3, generator, x.device))
    r = r + 1e-4  # the endpoint loss divides by r - s
    losses = {
        "diagonal": diagonal(part.slope, part.teacher, part.weight, x, s),
        "lagrangian": lagrangian(part.displace, part.teacher, part.weight, x, s, r),
        "endpoint": endpoint(part.displace, part.weight, x, s, r, problem(interpolant)[0].displace(x, s, r)),
    }
    for name, loss in losses.items():
        assert (float(loss.mean()) < 1e-20) is zero, (name, float(loss.mean()))


def test_trajectories_end_where_the_exact_map_does():
    """Twice the steps leave a quarter of the error, but for the last step, whose length falls with their number."""
    errors = []
    for points in (8, 16, 32):
        part, x, _ = problem(Linear())
        grid = inner_grid(len(x), points, torch.Generator().manual_seed(0), x.device).double()
        states = trajectory(part, x, grid)
        zeros, ones = torch.zeros_like(part.t), torch.ones_like(part.t)
        errors.append(float((states[-1] - part.displace(x, zeros, ones)).square().mean().sqrt()))
    assert errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5, errors


@pytest.mark.parametrize("prediction", ["velocity", "denoiser", "noise"])
@pytest.mark.parametrize("interpolant", [Linear(), Cosine()], ids=repr)
def test_flow_matching_is_least_at_the_exact_network(prediction, interpolant):
    """The minimiser is the conditional mean: the exact network beats any other by the square of their difference."""
    from diamond.flow import Flow

    generator = torch.Generator().manual_seed(0)
    exact = GaussianMixtureFlow(torch.ones(1), MEAN[None], torch.tensor([VARIANCE], dtype=torch.float64), interpolant)
    z = exact.sample(40_000, generator=generator)
    noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
    t = uniform_times(len(z), generator, z.device).double()

    def network(x, t):
        denoised = exact.denoise(x, t)
        return {
            "velocity": lambda: interpolant.velocity_from_denoiser(x, t, denoised),
            "denoiser": lambda: denoised,
            "noise": lambda: interpolant.noise_from_denoiser(x, t, denoised),
        }[prediction]()

    best = flow_matching(Flow(network, interpolant, (2,), prediction), z, noise, t)
    shift = 0.3
    other = flow_matching(Flow(lambda x, t: network(x, t) + shift, interpolant, (2,), prediction), z, noise, t)
    gap = other - best
    assert abs(float(gap.mean()) - shift**2) < 4 * float(gap.std()) / len(gap) ** 0.5


def test_inner_times_cover_what_they_say():
    generator = torch.Generator().manual_seed(0)
    s, r = inner_pairs(20_000, 0.25, generator, torch.device("cpu"))
    assert bool((s <= r).all()) and 0 <= float(s.min()) and float(r.max()) < 1
    from_zero = float((s == 0).double().mean())
    assert abs(from_zero - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5
    grid = inner_grid(1000, 8, generator, torch.device("cpu"))
    assert bool((grid.diff(dim=1) > 0).all()) and bool((grid[:, 0] == 0).all()) and bool((grid[:, -1] == 1).all())
