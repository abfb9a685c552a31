"""What the tests of guidance share: posterior draws that are quadratures, a network that is exact, and a reward."""

import pytest
import torch

from diamond.flow import Flow
from diamond.mixture import GaussianMixtureFlow

SIXTEENTHS = (torch.arange(16, dtype=torch.float64) + 0.5) / 16


class Evenly(GaussianMixtureFlow):
    """A mixture on the line whose posterior draws are evenly spread levels of its law instead of random ones, so that
    averages over 16 calls' draws are quadratures."""

    calls = 0

    def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        weights, means, deviations = self.bayes(x_t, float(torch.as_tensor(t).flatten()[0]))
        offset = SIXTEENTHS[self.calls % 16]
        self.calls += 1
        level = ((torch.arange(n) + offset) / n).expand(len(x_t), n).T  # (n, B)
        tops = weights.cumsum(-1)
        chosen = (level[..., None] > tops[:, :-1]).sum(-1)  # (n, B)
        weight, mean, top = (field.gather(1, chosen.T).T for field in (weights, means, tops))
        inner = ((level - top + weight) / weight).clamp(1e-12, 1 - 1e-12)
        return (mean + deviations[chosen] * torch.special.ndtri(inner))[..., None]

    def bayes(self, x, t):
        """Weights and means `(B, K)` and deviations `(K,)` of the law given `x` `(B, 1)`, by hand."""
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = self.interpolant.alpha(time), self.interpolant.sigma(time)
        spread = alpha**2 * self.covariances + sigma**2
        gap = x - alpha * self.means[:, 0]
        weights = (self.weights.log() - 0.5 * (gap**2 / spread + spread.log())).softmax(-1)
        means = self.means[:, 0] + alpha * self.covariances / spread * gap
        return weights, means, sigma * (self.covariances / spread).sqrt()


class Velocity(torch.nn.Module):
    """A mixture's exact velocity as a network."""

    event_shape = (2,)

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, t):
        return self.model.velocity(x, t)


@pytest.fixture
def evenly(line):
    """Makes two components on the line, on a given path, with draws that are quadratures."""

    def make(path=None):
        model = line(path)
        return Evenly(model.weights, model.means, model.covariances, model.interpolant)

    return make


@pytest.fixture
def pull(quadratic):
    """A reward on the line that moves the tilt to the smaller component, and narrows it."""
    return quadratic([-1.0], 0.5)


@pytest.fixture
def as_flow():
    """A mixture as a flow over a network, for the base samplers."""
    return lambda model: Flow(Velocity(model))
