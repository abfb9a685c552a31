"""Gaussian data N(MEAN, VARIANCE I), whose flow maps are affine, and students that can be wrong in three ways."""

import pytest
import torch

from torch import nn

from diamond.diamond_map import DiamondMap
from diamond.flow_map import FlowMap
from diamond.mixture import GaussianMixtureFlow

MEAN, VARIANCE = torch.tensor([0.7, -0.3], dtype=torch.float64), 0.6


def teacher_on(interpolant):
    return GaussianMixtureFlow(torch.ones(1), MEAN[None], torch.tensor([VARIANCE], dtype=torch.float64), interpolant)


def carried(theta, x, mean, spread, scales, s, r):
    """The affine map from the law `N(alpha_s mean, spread(s)^2)` to that at `r`, exact for `theta = 0`. The first entry
    turns its tangent, the second bends it off the diagonal alone, the third shifts it."""
    s, r = s[:, None].to(x.dtype), r[:, None].to(x.dtype)
    step = r - s
    factor = spread(r) / spread(s) * (1 + theta[0] * step + theta[1] * step.square())
    return scales(r) * mean + factor * (x - scales(s) * mean) + theta[2] * step


class GaussianFlowMap(FlowMap):
    """The flow map of N(MEAN, VARIANCE I) in closed form."""

    def __init__(self, interpolant, theta=(0.0, 0.0, 0.0)):
        super().__init__(lambda *_: None, interpolant, (2,))
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def displace(self, x, t, r, *, cond=None):
        path = self.interpolant
        spread = lambda q: (path.alpha(q).square() * VARIANCE + path.sigma(q).square()).sqrt()  # noqa: E731
        return carried(self.theta, x, MEAN, spread, path.alpha, t, r)

    def velocity(self, x_t, t, *, cond=None):
        return torch.func.jvp(lambda r: self.displace(x_t, t, r), (t,), (torch.ones_like(t),))[1]


class GaussianDiamondMap(DiamondMap):
    """The Diamond Map of N(MEAN, VARIANCE I): for each `x_t` the affine flow from N(0, I) to the posterior. What is wrong
    in it shrinks with the noise that is left, as the posterior does."""

    def __init__(self, interpolant, theta=(0.0, 0.0, 0.0)):
        super().__init__(lambda *_: None, interpolant, (2,))
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def displace(self, x_bar, s, r, x_t, t, *, cond=None):
        alpha, sigma = (scale(t.to(x_bar.dtype))[:, None] for scale in (self.interpolant.alpha, self.interpolant.sigma))
        total = alpha**2 * VARIANCE + sigma**2
        mean, variance = MEAN + alpha * VARIANCE / total * (x_t - alpha * MEAN), VARIANCE * sigma**2 / total
        spread = lambda q: (q**2 * variance + (1 - q) ** 2).sqrt()  # noqa: E731
        return carried(self.theta[:, None, None] * sigma, x_bar, mean, spread, lambda q: q, s, r)

    def inner_velocity(self, x_bar, s, x_t, t, *, cond=None):
        return torch.func.jvp(lambda r: self.displace(x_bar, s, r, x_t, t), (s,), (torch.ones_like(s),))[1]


@pytest.fixture
def students():
    """Makers of the students, by name: of a path, and of three numbers that say how wrong it is."""
    return {"flow map": GaussianFlowMap, "diamond map": GaussianDiamondMap}


@pytest.fixture
def gaussian():
    """Makes the exact model of the data, on a given path."""
    return teacher_on
