"""What the tests of values and of their gradients share: states with their times, and what is known of them exactly.

`exp V^` is unbiased for every number of draws, and so is `exp(V^) grad V^` of both Monte Carlo estimators up to a known
factor: most of the tests are plain z-scores on these.
"""

import pytest
import torch

STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8], [-0.3, 0.2]], dtype=torch.float64)
TIMES = torch.tensor([0.4, 0.6, 0.8, 0.15], dtype=torch.float64)


@pytest.fixture
def states():
    """Four states in the plane."""
    return STATES.clone()


@pytest.fixture
def times():
    """The times of the four states."""
    return TIMES.clone()


@pytest.fixture
def repeated():
    """Those states and times, so many times each."""
    return lambda rows=5000: (STATES.repeat_interleave(rows, dim=0), TIMES.repeat_interleave(rows))


@pytest.fixture
def by_state():
    """Estimates for the rows that `repeated` gives, as `(rows, states, ...)`."""
    return lambda estimates: estimates.reshape(len(STATES), -1, *estimates.shape[1:]).transpose(0, 1)


@pytest.fixture
def exact_gradient():
    """The gradient of a tilt's exact value."""

    def of(model, reward, x, t):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(reward.value(model, x, t).sum(), x)[0]

    return of


@pytest.fixture
def forbidding():
    """Log of the indicator of a half-plane."""
    return lambda z: torch.where(z[:, 0] < 0, 0.0, -torch.inf)


@pytest.fixture
def share_allowed(posterior_law):
    """`P(z_0 < 0 | x)` by hand, `(B,)`."""

    def share(model, x, t):
        weights, means, covariances = posterior_law(model, x, t)
        return (weights * torch.special.ndtr(-means[..., 0] / covariances[:, 0, 0].sqrt())).sum(-1)

    return share


class Weighted(torch.nn.Module):
    """A model whose draws carry weights, which are recorded."""

    def __init__(self, model):
        super().__init__()
        self.model, self.interpolant, self.event_shape, self.seen = model, model.interpolant, model.event_shape, []

    def weighted_posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        z = self.model.posterior(x_t, t, n, generator=generator)
        self.seen.append((z, z[..., 0] / 2))
        return self.seen[-1]


@pytest.fixture
def recording():
    """Makes a model whose draws carry weights, and are recorded in its `seen`."""
    return Weighted


@pytest.fixture
def slow_jackknife():
    """`n V^ - (n - 1) mean_i V^_{-i}` of one state's draws, `(mc,)` each; what is left out at a time is one of n groups of
    indices, each a draw alone by default."""

    def of(rewards, weights, groups=None):
        def estimate(kept):
            return ((weights[kept] * rewards[kept].exp()).sum() / weights[kept].sum()).log()

        everyone = range(len(rewards))
        groups = groups or [{i} for i in everyone]
        n = len(groups)
        without = [estimate([j for j in everyone if j not in group]) for group in groups]
        return n * estimate(list(everyone)) - (n - 1) * sum(without) / n

    return of
