"""What the tests of Weighted Diamond Maps share: flow maps that are exact, and noise on a grid.

On the line the only flow map is the monotone rearrangement, and for one Gaussian it is affine. Where the noise is put
on a fine grid, with its density added to the log-weights, estimates are integrals, and the closed forms of mixtures are
met to many digits; where it is drawn, they are met within the standard errors of the draws.
"""

import math
import warnings

import pytest
import torch

from diamond.degeneracy import DegenerateWeights
from diamond.mixture import GaussianMixtureFlow
from diamond.model import Model


class Attraction:
    """The reward `-(z + 1)^2 / (2 * 0.5)` but for a constant, in every coordinate, and its exact values."""

    linear, precision = torch.tensor([-2.0], dtype=torch.float64), 2.0

    def __call__(self, z):
        return (z * self.linear.to(z)).sum(-1) - self.precision * z.square().sum(-1) / 2

    def value(self, law, x, t):
        return law.value(x, t, self.linear.expand(x.shape[1]), self.precision)

    def gradient(self, law, x, t):
        """That of the value."""
        x = x.clone().requires_grad_()
        return torch.autograd.grad(self.value(law, x, t).sum(), x)[0]


class ExactMap(Model):
    """The flow map of a mixture, with its exact score and denoiser; counts as a network would."""

    def __init__(self, law, score_time=None):
        super().__init__(law.interpolant, law.event_shape)
        self.law, self.score_time = law, score_time

    def velocity(self, x_t, t, *, cond=None):
        return self.law.velocity(x_t, t)

    def denoise(self, x_t, t, *, cond=None):
        self.nfe += len(x_t)
        return self.law.denoise(x_t, t)

    def score(self, x_t, t, *, cond=None):
        assert not torch.is_grad_enabled()
        self.nfe += len(x_t)
        return self.law.score(x_t, t if self.score_time is None else self.score_time)

    def scales(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.interpolant.alpha(t), self.interpolant.sigma(t)


class LineMap(ExactMap):
    """On the line: to where the same share of the law lies below."""

    def share(self, x, t, side):
        """The log of the law's share below `x` `(N,)` at t where `side` `(N,)` is 1, and above where it is -1."""
        alpha, sigma = (scale.reshape(-1, 1) for scale in self.scales(t))
        gaps = (x[:, None] - alpha * self.law.means[:, 0]) / (alpha**2 * self.law.covariances + sigma**2).sqrt()
        return (self.law.weights.log() + torch.special.log_ndtr(side[:, None] * gaps)).logsumexp(-1)

    def forward(self, x, t, r, *, cond=None):
        self.nfe += len(x)
        start = x.detach()[:, 0]
        side = torch.where(
            self.share(start, t, torch.ones_like(start)) < math.log(0.5), 1.0, -1.0
        )  # the tail with more digits
        level, low, high = self.share(start, t, side), torch.full_like(start, -15.0), torch.full_like(start, 15.0)
        for _ in range(32):
            middle = (low + high) / 2
            below = side * (self.share(middle, r, side) - level) < 0
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        z = ((low + high) / 2)[:, None]
        found = self.share(z[:, 0], r, side)  # and a step of Newton's method, which leaves rounding alone
        z = z + (side * (level - found) / (self.law.log_prob(z, r) - found).exp())[:, None]
        slope = (self.law.log_prob(x, t) - self.law.log_prob(z, r)).detach().exp()[:, None]
        return z + slope * (x - x.detach())


class GaussianMap(ExactMap):
    """For one Gaussian: keeps each principal direction's distance to the mean, in deviations."""

    def forward(self, x, t, r, *, cond=None):
        self.nfe += len(x)
        mean, (values, basis) = self.law.means[0], torch.linalg.eigh(self.law.covariances[0])
        (a, s), (a_r, s_r) = ((scale.reshape(-1, 1) for scale in self.scales(u)) for u in (t, r))
        ratio = ((a_r**2 * values + s_r**2) / (a**2 * values + s**2)).sqrt()
        return a_r * mean + ((x - a * mean) @ basis * ratio) @ basis.T


def noise_grid(size=2401, reach=12.0):
    """Noise `(size, 1, 1)` and the log of its density times the spacing `(size, 1)`."""
    noise = torch.linspace(-reach, reach, size, dtype=torch.float64)
    return noise[:, None, None], (-noise.square() / 2 + math.log(2 * reach / (size - 1) / math.sqrt(2 * math.pi)))[
        :, None
    ]


@pytest.fixture
def states():
    """Three states on the line."""
    return torch.tensor([[0.2], [-0.9], [1.3]], dtype=torch.float64)


@pytest.fixture
def reward():
    return Attraction()


@pytest.fixture
def line_map():
    """The class of the exact flow maps of mixtures on the line."""
    return LineMap


@pytest.fixture
def gaussian_map():
    """The class of the exact flow maps of one Gaussian."""
    return GaussianMap


@pytest.fixture
def gaussian():
    """Makes correlated Gaussian data in the plane, on a given path, some times as broad."""

    def make(path=None, scale=1.0):
        covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]], dtype=torch.float64) * scale**2
        return GaussianMixtureFlow(torch.ones(1).double(), torch.tensor([[0.6, -0.3]]).double(), covariance, path)

    return make


@pytest.fixture
def grid():
    """Makes a grid of noise with its log-density."""
    return noise_grid


@pytest.fixture
def quietly():
    """What a function gives, whatever it thinks of its weights."""

    def call(function, *args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateWeights)
            return function(*args, **kwargs)

    return call


@pytest.fixture
def integrate(quietly):
    """Proposals and log-weights on the grid of noise, the log-weights with the noise's density in them."""

    def on_grid(model, x, t, noise=None):
        noise, log_density = noise or noise_grid()
        z, log_weights = quietly(model.weighted_posterior, x, t, len(noise), noise=noise.expand(-1, *x.shape))
        return z, log_weights + log_density

    return on_grid
