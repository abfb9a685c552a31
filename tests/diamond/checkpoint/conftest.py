"""What the tests of files share: every kind of model that a file can hold, small and random."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Transformer, Whitened, grow

EVENT = (1, 4, 4)
METADATA = {"data": "digits", "seed": 3, "losses": [0.5, 0.25], "nested": {"ema": 0.999, "notes": None, "name": "ä"}}


def perceptron(**config):
    return ResidualMLP(EVENT, width=8, depth=1, embedding=8, **config)


def transformer(**config):
    return Transformer(EVENT, width=8, depth=1, heads=2, **config)


def whitened(**config):
    inner = ResidualMLP((16,), width=8, depth=1, embedding=8, **config)
    return Whitened(inner, EVENT, "cosine", data=torch.randn(50, *EVENT) @ torch.randn(4, 4))


def mixture(shape=()):
    covariances = torch.eye(16).expand(2, 16, 16) * torch.tensor([0.3, 0.5])[:, None, None]
    covariances = covariances + 0.1 if shape else torch.tensor([0.3, 0.5])
    return GaussianMixtureFlow(torch.tensor([0.3, 0.7]), torch.randn(2, 16), covariances, Cosine())


MODELS = {
    "flow": lambda: Flow(perceptron(), Cosine()),
    "flow with classes": lambda: Flow(transformer(classes=3), prediction="denoiser"),
    "whitened flow": lambda: Flow(whitened(), Cosine()),
    "noise flow": lambda: Flow(perceptron(), prediction="noise"),
    "glass flow": lambda: GlassFlow(Flow(transformer(), Cosine()), steps=5, solver="heun"),
    "glass flow of a mixture": lambda: GlassFlow(mixture(), steps=3, grid="uniform"),
    "glass flow of a glass flow": lambda: GlassFlow(GlassFlow(Flow(perceptron()), steps=5), steps=2),
    "flow map": lambda: FlowMap(perceptron(times=1), Cosine()),
    "diamond map": lambda: DiamondMap(transformer(states=1, times=3), Cosine()),
    "whitened diamond map": lambda: DiamondMap(whitened(states=1, times=3), Cosine()),
    "grown diamond map": lambda: DiamondMap(grow(transformer(classes=3), 1, 3), Cosine()),
    "grown and whitened flow map": lambda: FlowMap(grow(whitened(), 0, 1), Cosine()),
    "isotropic mixture": mixture,
    "full mixture": lambda: mixture((16, 16)),
}


@pytest.fixture(params=MODELS)
def make(request):
    """Makes each kind of model in turn, in a given precision, with noise on every weight."""

    def make(dtype=torch.float32):
        torch.set_default_dtype(dtype)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)
                model = MODELS[request.param]().to(dtype)
                for weights in model.parameters():
                    weights += 0.1 * torch.randn_like(weights)
        finally:
            torch.set_default_dtype(torch.float32)
        model.metadata = METADATA
        return model

    return make


@pytest.fixture
def metadata():
    """That of the models, with values of every type."""
    return METADATA


@pytest.fixture
def model(make):
    return make()


@pytest.fixture
def small_net():
    """Makes the small perceptron."""
    return perceptron


@pytest.fixture
def flow():
    return Flow(perceptron())
