"""What the tests of `align` share: rewards whose tilt is known in closed form, toy models, and every algorithm by name.

An unbiased evidence and its weighted samples are held against the tilted law together: for every number of particles,
`E[Z^ sum_i W_i f(z_i)] = Z E_tilt[f(z)]`, so that independent populations give plain z-scores, with no bias to forgive.
"""

from functools import partial

import pytest
import torch

import align

from diamond.flow import Flow
from diamond.interpolant import Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.randomness import normal


class QuadraticReward:
    """`r(z) = -|z - centre|^2 / 2 width2`, and what tilting a mixture by it gives."""

    def __init__(self, centre, width2):
        self.centre, self.width2 = torch.tensor(centre, dtype=torch.float64), width2
        self.linear, self.precision = self.centre / width2, 1 / width2
        self.constant = -float(self.centre.square().sum()) / (2 * width2)

    def __call__(self, z):
        return -(z - self.centre.to(z.dtype)).square().sum(-1) / (2 * self.width2)

    def log_z(self, model):
        return model.log_normaliser(self.linear, self.precision) + self.constant

    def law(self, model):
        return model.tilt(self.linear, self.precision)

    def value(self, model, x, t):
        return model.value(x, t, self.linear, self.precision) + self.constant

    def twice(self):
        """The reward `2 r`."""
        return QuadraticReward(self.centre.tolist(), self.width2 / 2)


class Still:
    """A model whose particles never move: what becomes of each can be read off its sample. `cond` is added to what the
    posterior gives, for the tests of which row gets which."""

    interpolant = Linear()
    event_shape = (1,)

    def prior(self, n, *, generator=None):
        return normal((n, 1), generator, dtype=torch.float64)

    def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        return (x_t if cond is None else x_t + cond).expand(n, *x_t.shape)

    def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
        return x_t

    def velocity(self, x_t, t, *, cond=None):
        return torch.zeros_like(x_t)

    def denoise(self, x_t, t, *, cond=None):
        return x_t


class Net(torch.nn.Module):
    """A network of float64 that follows its conditioning, and counts the rows of its largest call."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(0.7, dtype=torch.float64))
        self.largest = 0

    def forward(self, x, t, cond=None):
        self.largest = max(self.largest, len(x))
        pull = torch.tanh(x.flip(-1)) - self.gain * x
        return pull if cond is None else pull + cond


@pytest.fixture
def mild():
    """A tilt that leaves importance sampling efficient."""
    return QuadraticReward([-1.0, 0.0], 0.5)


@pytest.fixture
def gentle():
    """A tilt so mild that even estimates of one draw have little variance."""
    return QuadraticReward([-1.0, 0.5], 2.0)


@pytest.fixture
def hard():
    """A tilt into a far corner of the law."""
    return QuadraticReward([-2.5, 1.5], 0.05)


@pytest.fixture
def quadratic():
    """The class of the rewards above."""
    return QuadraticReward


@pytest.fixture
def still():
    return Still()


@pytest.fixture
def tiny_flow():
    """A flow in the plane over a tiny network that takes conditioning."""
    return Flow(Net())


@pytest.fixture
def normal_law():
    """The flow model of one Gaussian in any dimension."""
    return lambda mean, covariance: GaussianMixtureFlow(
        torch.ones(1, dtype=torch.float64),
        torch.as_tensor(mean, dtype=torch.float64)[None],
        torch.as_tensor(covariance, dtype=torch.float64)[None],
    )


@pytest.fixture
def family():
    """Makes a list of generators from a list of seeds."""
    return lambda seeds: [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture
def run():
    """Runs sequential Monte Carlo from one seed: a thousand populations side by side, so that each claim is a z-score."""

    def smc(model, reward, seed=0, populations=1000, particles=64, steps=6, **options):
        generator = torch.Generator().manual_seed(seed)
        return align.smc(model, reward, particles, steps, batch=populations, generator=generator, **options)

    return smc


@pytest.fixture
def check_tilt(check_mean):
    """Tests that evidence and weighted samples are those of a tilt, `law` with normaliser `exp(log_z)`: evidence, mean
    and covariance, within four standard errors of the populations."""

    def check(out, law, log_z, limit=4.0):
        evidence = (out.log_z - log_z).exp()
        gap = out.samples.double() - law.mean()
        squares = (gap[..., :, None] * gap[..., None, :]).flatten(2)
        features = torch.cat([torch.ones_like(gap[..., :1]), gap, squares], dim=-1)
        weighted = torch.einsum("bk,bkf->bf", out.log_weights.double().softmax(-1), features)
        expected = torch.cat([gap.new_ones(1), torch.zeros_like(law.mean()), law.covariance().flatten()])
        check_mean(evidence[:, None] * weighted, expected, limit)

    return check


ALGORITHMS = {
    "best_of_n": partial(align.best_of_n, n=6, steps=2),
    "search": partial(align.search, particles=3, branch=2, steps=3, mc=3),
    "search-each": partial(align.search, particles=3, branch=2, steps=3, mc=18, keep="each"),
    "smc": partial(align.smc, particles=6, steps=3, mc=18, ess_threshold=1.0),
    "smc-multinomial": partial(align.smc, particles=6, steps=3, mc=3, rho=0.4, resampling="multinomial"),
    "smc-lookahead": partial(
        align.smc, particles=6, steps=3, mc=18, proposal="lookahead", tempering=0.5, antithetic=True, ess_threshold=1.0
    ),
    "smc-reparam": partial(
        align.smc, particles=6, steps=3, mc=3, proposal="reparam", tempering=lambda t: t, resampling="stratified"
    ),
    "smc-score": partial(align.smc, particles=6, steps=3, mc=2, proposal="score", potential="max", ess_threshold=0.9),
    "smc-plugin": partial(
        align.smc, particles=6, steps=3, mc=2, proposal="plugin", potential="sum", rho=0.3, resampling="residual"
    ),
    "search-antithetic": partial(align.search, particles=3, branch=2, steps=3, mc=4, antithetic=True),
    "guide": partial(align.guide, particles=4, steps=3, mc=3),
    "guide-corrected": partial(
        align.guide, particles=4, steps=3, mc=4, antithetic=True, eta=0.6, correct=True, scale=0.3, interval=(0.1, 0.9)
    ),
    "guide-drift": partial(align.guide, particles=4, steps=3, estimator="plugin", strength="drift", scale=lambda t: t),
    "guide-score": partial(align.guide, particles=4, steps=3, mc=18, estimator="score", eta=0.5),
    "guide-plugin": partial(align.guide, particles=4, steps=3, estimator="plugin", eta=1.0),
}


@pytest.fixture(params=ALGORITHMS)
def algorithm(request):
    """Each algorithm in turn, at a small size: a callable of a model, a reward and what all of them take."""
    return ALGORITHMS[request.param]


@pytest.fixture
def differentiates(algorithm):
    """Whether that algorithm asks the reward for its derivative."""
    if algorithm.func is align.guide:
        return algorithm.keywords.get("estimator") != "score"
    return algorithm.keywords.get("proposal") in ("reparam", "plugin")
