"""What the tests of Diamond Maps share: for Gaussian data the exact map is affine, and some network makes it so."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.mixture import GaussianMixtureFlow
from diamond.observation import combine_looks

LOOKS = torch.tensor([[0.3, -0.4], [-1.0, 1.5], [0.8, 0.1]], dtype=torch.float64)


class Affine:
    """The posterior flow of `x_t` for Gaussian data, in the eigenbasis of their covariance: from N(0, 1) to
    N(m', v') on the straight path, whose map from s to r keeps the distance to the mean in marginal deviations."""

    def __init__(self, path, mean, covariance):
        self.path, self.mean = path, mean
        self.values, self.basis = torch.linalg.eigh(covariance)

    def posterior(self, x_t, t):
        """Mean in the eigenbasis, variances."""
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        mean = self.mean @ self.basis
        noisy = alpha**2 * self.values + sigma**2
        return mean + alpha * self.values / noisy * (x_t @ self.basis - alpha * mean), sigma**2 * self.values / noisy

    def map(self, x_bar, s, r, x_t, t):
        mean, variance = self.posterior(x_t, t)
        s, r = s[:, None], r[:, None]
        before, after = (time**2 * variance + (1 - time) ** 2 for time in (s, r))
        return (r * mean + (after / before).sqrt() * (x_bar @ self.basis - s * mean)) @ self.basis.T


class ExactNet(torch.nn.Module):
    """The network that makes a Diamond Map exact: it undoes the parametrisation around the affine map."""

    def __init__(self, path, mean, covariance):
        super().__init__()
        self.path, self.event_shape = path, mean.shape
        self.register_buffer("mean", mean)
        self.exact = Affine(path, mean, covariance)
        self.model = GaussianMixtureFlow(torch.ones(1).double(), mean[None], covariance[None], path)

    def forward(self, x, time, cond, states, times):
        (noise,), (s, r, t) = states, times
        share = torch.where(r > s, (r - s) / (1 - s).clamp_min(1e-300), 1.0)[:, None]
        # the two looks from the statistic and the ancillary noise: a 2 x 2 system a sample
        looks = combine_looks(self.path, (self.path.alpha(t), self.path.sigma(t)), (s, 1 - s))
        (a, b), (c, d) = ((v[:, None] for v in pair) for pair in (looks.weights, looks.ancillary))
        ancillary, determinant = noise / share, a * d - b * c
        safe = torch.where(determinant != 0, determinant, 1.0)
        x_t, x_bar = (d * x - b * ancillary) / safe, (a * ancillary - c * x) / safe
        moved = x_bar + (self.exact.map(x_bar, s, r, x_t, t) - x_bar) / share
        endpoint = torch.where((r > s)[:, None], moved, self.model.denoise(x, time))
        return self.path.velocity_from_denoiser(x, time, endpoint)


@pytest.fixture
def data():
    """Mean and covariance of correlated Gaussian data in the plane."""
    return torch.tensor([0.6, -0.3]).double(), torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double()


@pytest.fixture
def exact(path, data):
    return Affine(path, *data)


@pytest.fixture
def model(path, data):
    """The same data as a mixture of one, whose laws are known."""
    return GaussianMixtureFlow(torch.ones(1).double(), data[0][None], data[1][None], path)


@pytest.fixture
def diamond(path, data):
    return DiamondMap(ExactNet(path, *data), path)


@pytest.fixture
def looks():
    """Three noisy states in the plane."""
    return LOOKS.clone()


@pytest.fixture
def full():
    """Makes one time of all looks."""
    return lambda value: torch.full((len(LOOKS),), value, dtype=torch.float64)


@pytest.fixture
def randn():
    """Makes noise of a shape, the same each time."""
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def exact_net():
    """The class of the networks that make a Diamond Map exact."""
    return ExactNet
