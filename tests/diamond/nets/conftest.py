"""What the tests of networks share: a small one of each kind, noise on its weights, and inputs of every sort."""

import pytest
import torch

from diamond.nets import Preconditioned, ResidualMLP, Transformer, UNet, Whitened

ROWS = 5
CLASSES = 3


def perceptron(classes=0, states=0, times=0):
    return ResidualMLP((2, 2, 4), width=12, depth=2, classes=classes, states=states, times=times, embedding=8)


def transformer(classes=0, states=0, times=0):
    return Transformer((2, 2, 4), patch=2, width=8, depth=2, heads=2, classes=classes, states=states, times=times)


def whitened(classes=0, states=0, times=0):
    data = torch.randn(200, 2, 2, 4) @ torch.randn(4, 4) + 0.3
    inner = ResidualMLP((16,), width=12, depth=2, classes=classes, states=states, times=times, embedding=8)
    return Whitened(inner, (2, 2, 4), data=data)


def unet(classes=0, states=0, times=0):
    inputs = {"classes": classes, "states": states, "times": times}
    return UNet((2, 2, 4), width=8, multipliers=(1, 2), attention=1, embedding=8, **inputs)


def preconditioned(classes=0, states=0, times=0):
    return Preconditioned(unet(classes, states, times), std=0.6, mean=-0.3)


NETWORKS = {
    "ResidualMLP": perceptron, "Transformer": transformer, "UNet": unet, "Whitened": whitened,
    "Preconditioned": preconditioned,
}  # fmt: skip


@pytest.fixture
def sown():
    """Weights are the same in every test, and the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=NETWORKS)
def make_flow(request, sown):
    """Makes each kind of network that can be a flow's."""
    return NETWORKS[request.param]


@pytest.fixture(params=NETWORKS)
def make_map(request, sown):
    """Makes each kind of network that can be a map's."""
    return NETWORKS[request.param]


@pytest.fixture
def makers():
    """What makes the small networks, by name."""
    return {make.__name__: make for make in NETWORKS.values()}


@pytest.fixture
def awake():
    """The network in double precision, with noise on every weight, so that nothing in it is silent."""

    def wake(net, dtype=torch.float64):
        net = net.to(dtype)
        with torch.no_grad():
            for weights in net.parameters():
                weights += 0.3 * torch.randn(weights.shape, dtype=dtype)
        return net

    return wake


@pytest.fixture
def inputs():
    """Makes x, t, two more states and three more times, of which the first two are in order."""

    def make(dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        x, one, other = torch.randn(3, ROWS, 2, 2, 4, dtype=dtype, generator=generator)
        t, first, second, outer = torch.rand(4, ROWS, dtype=dtype, generator=generator)
        return x, t, (one, other), (torch.minimum(first, second), torch.maximum(first, second), outer)

    return make


@pytest.fixture
def labels():
    """One for each of the inputs, of three classes."""
    return torch.arange(ROWS) % CLASSES
