"""What the tests share: seeded generators, paths, mixtures, and laws in closed form to hold draws against.

The laws are written with plain matrices, not in the eigenbases that the package uses, so that they are a second
opinion. Draws are held against them by z-scores: the tolerance comes from the sample, never from taste.
"""

import gc
import io
import sys

from pathlib import Path

import pytest
import torch

from diamond.interpolant import Cosine, Interpolant, Linear
from diamond.mixture import GaussianMixtureFlow


class Bent(Interpolant):
    """A path that gives its two scales and nothing else: its derivatives and its inverse are the default ones."""

    name = "bent"

    def alpha(self, t):
        return t * (3 - t) / 2

    def sigma(self, t):
        return (1 - t) * (2 + t) / 2


PATHS = {"linear": Linear, "cosine": Cosine, "custom": Bent}

LONG = ("test_batches", "test_notebooks", "test_recipes", "test_state", "test_training_processes", "test_matched_cost")


# folders whose tests share what takes long to make
TOGETHER = ("align/processes", "cli/pipelines", "diamond/pipelines")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A process takes a whole file from those that are left, or a whole folder of those above."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = Path(nodeid.split("::")[0])
            return next((folder for folder in TOGETHER if file.parent.match(folder)), str(file))

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_configure(config):
    """Processes that share the files out take them in their order here, not those of most tests first."""
    config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays until the end: seconds would go by in search for garbage among it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    """Files that take long come first, so that no process is left with one when the others are done; before them the
    one that starts workers, which costs the less the less there is in memory."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def written(monkeypatch):
    """Puts a terminal, or a file, in place of stderr, outside notebooks, and gives what is written there."""

    def place(terminal):
        stderr = io.StringIO()
        stderr.isatty = lambda: terminal
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
        monkeypatch.setattr(sys, "stderr", stderr)
        return stderr

    return place


@pytest.fixture
def seeded():
    """Makes a generator from a seed."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture(params=PATHS)
def path(request):
    """Each kind of path in turn."""
    return PATHS[request.param]()


@pytest.fixture
def case_a():
    """Two isotropic components in the plane, of unequal weights and sizes."""
    return GaussianMixtureFlow(tensor([0.35, 0.65]), tensor([[-1.5, 0.5], [1.0, -0.5]]), tensor([0.16, 0.36]))


@pytest.fixture
def correlated():
    """Makes three components in the plane, with covariances of every orientation, on a given path."""
    covariances = tensor([[[0.3, 0.2], [0.2, 0.5]], [[0.6, -0.3], [-0.3, 0.2]], [[0.1, 0.0], [0.0, 0.4]]])
    means = tensor([[-1.0, 0.5], [1.0, -0.5], [0.5, 1.5]])
    return lambda path=None: GaussianMixtureFlow(tensor([0.3, 0.5, 0.2]), means, covariances, path)


@pytest.fixture
def line():
    """Makes two components on the line, of standard deviations 0.4 and 0.6, on a given path."""
    means = tensor([[-1.5], [1.0]])
    return lambda path=None: GaussianMixtureFlow(tensor([0.35, 0.65]), means, tensor([0.16, 0.36]), path)


@pytest.fixture
def check_mean():
    """Tests that draws `(N, ...)` have a given mean, each entry within `limit` standard errors."""

    def check(draws, expected, limit=4.5, slack=0.0):
        gap = (draws.mean(0) - expected).abs()
        error = draws.std(0) / len(draws) ** 0.5
        excess = (gap - slack) / error.clamp_min(1e-12)
        assert (excess <= limit).all(), f"off by {float(gap.max()):.4g}, {float(excess.max()):.1f} standard errors"

    return check


@pytest.fixture
def check_law(check_mean):
    """Tests that draws `(N, ..., D)` have a given mean `(..., D)` and covariance `(..., D, D)`."""

    def check(draws, mean, covariance, limit=4.5, slack=0.0):
        check_mean(draws, mean, limit, slack)
        centred = draws - mean
        check_mean(centred[..., :, None] * centred[..., None, :], covariance, limit, slack)

    return check


def full_covariances(model):
    if model.covariances.ndim == 3:
        return model.covariances
    return model.covariances[:, None, None] * torch.eye(model.event_shape[0], dtype=torch.float64)


@pytest.fixture
def posterior_law():
    """The law of z given `x` `(B, D)` at one time of a mixture: weights `(B, K)`, means `(B, K, D)`, covariances
    `(K, D, D)`, by Bayes' rule for matrices."""

    def law(model, x, t):
        time = tensor(t)
        alpha, sigma = model.interpolant.alpha(time), model.interpolant.sigma(time)
        prior = full_covariances(model)
        noisy = alpha**2 * prior + sigma**2 * torch.eye(x.shape[-1], dtype=x.dtype)
        gap = x[:, None] - alpha * model.means
        solved = torch.linalg.solve(noisy, gap[..., None])[..., 0]
        log_weights = model.weights.log() - 0.5 * ((gap * solved).sum(-1) + torch.logdet(2 * torch.pi * noisy))
        means = model.means + alpha * torch.einsum("kde,bke->bkd", prior, solved)
        return log_weights.softmax(-1), means, prior - alpha**2 * prior @ torch.linalg.solve(noisy, prior)

    return law


@pytest.fixture
def moments():
    """The mean `(B, D)` and covariance `(B, D, D)` of mixtures, in the form that `posterior_law` gives."""

    def of(weights, means, covariances):
        mean = torch.einsum("bk,bkd->bd", weights, means)
        spread = means - mean[:, None]
        within = torch.einsum("bk,kde->bde", weights, covariances)
        return mean, within + torch.einsum("bk,bkd,bke->bde", weights, spread, spread)

    return of


@pytest.fixture
def kernel_moments(posterior_law, moments):
    """The exact mean `(B, D)` and covariance `(B, D, D)` of `x_{t_next}` given `x` at `t`, with correlation `rho`."""

    def of(model, x, t, t_next, rho=None):
        path = model.interpolant
        (a, s), (a_next, s_next) = ((path.alpha(tensor(u)), path.sigma(tensor(u))) for u in (t, t_next))
        if rho is None:
            rho = a * s_next / (s * a_next)
        mean, covariance = moments(*posterior_law(model, x, t))
        carried = rho * s_next / s
        signal = a_next - carried * a
        noise = s_next**2 * (1 - rho**2) * torch.eye(x.shape[-1], dtype=x.dtype)
        return signal * mean + carried * x, signal**2 * covariance + noise

    return of


@pytest.fixture
def transport():
    """The increasing map on the line from the standard normal law to a mixture: `noise` `(N,)`, weights `(K,)`, means
    `(K,)` and standard deviations `(K,)` give `(N,)`, by bisection. An ODE on the line can be no other map."""

    def carry(noise, weights, means, deviations):
        level = torch.special.ndtr(noise)
        low, high = torch.full_like(noise, -30.0), torch.full_like(noise, 30.0)
        for _ in range(80):
            middle = (low + high) / 2
            below = (weights * torch.special.ndtr((middle[:, None] - means) / deviations)).sum(-1) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    return carry
