"""Networks whose parts have no rule of their own: attention, norms of all kinds, and a velocity that is a gradient."""

from functools import partial

import pytest
import torch

from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from distill.pushforward import pushforward


def made(layer, seed=0):
    """In float64, every weight drawn."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in layer.double().parameters():
            weights.copy_(0.5 * torch.randn(weights.shape, generator=generator))
    return layer


def attended(x, others=None):
    """Attention of torch's, in the one form whose derivatives it knows."""
    others = x if others is None else others
    with sdpa_kernel(SDPBackend.MATH):
        return functional.scaled_dot_product_attention(x[None], others[None], others[None])[0]


STILL = torch.linspace(-30, 30, 30, dtype=torch.float64).reshape(5, 6).sin()
HEADS = made(nn.MultiheadAttention(6, 2, batch_first=True))
SOFT = {
    "attention": attended,
    "attention to what stands still": lambda x: attended(x, STILL),
    "attention of what stands still": lambda x: attended(STILL, x),
    "attention of many heads": lambda x: HEADS(x[None], x[None], x[None])[0][0],
    "masked attention": lambda x: HEADS(x[None], STILL[None], x[None], attn_mask=STILL[:, :5])[0][0],
    "softmin": lambda x: functional.softmin(x, -1),
    "special.softmax": lambda x: torch.special.softmax(x, -1),
    "special.log_softmax": lambda x: torch.special.log_softmax(x, -1),
    "special.logsumexp": lambda x: torch.special.logsumexp(x, -1)[:, None] * x,
    "logcumsumexp": lambda x: x.logcumsumexp(-1) + torch.logcumsumexp(x, 0),
    "cross entropy": lambda x: functional.cross_entropy(x, torch.arange(5)) * x,
    "length": lambda x: functional.normalize(x, 3, -1) + x.norm(1, -1, keepdim=True),
}


@pytest.mark.parametrize("name", SOFT)
def test_what_torch_would_compute_in_place_can_be_differentiated_once_more(name, assert_derivatives):
    assert_derivatives(pushforward, SOFT[name])


WEIGHT, BIAS = STILL[0] + 1.5, STILL[1]
NORMS = {
    "layer": lambda x: functional.layer_norm(x, (6,), WEIGHT, BIAS),
    "layer, two axes": lambda x: functional.layer_norm(x, (5, 6)),
    "layer, called directly": lambda x: torch.layer_norm(x, (6,), WEIGHT, BIAS, 0.1),
    "group": lambda x: functional.group_norm(x, 1, WEIGHT, BIAS),
    "group, called directly": lambda x: torch.group_norm(x, 2, WEIGHT, BIAS, 0.1),
    "instance": lambda x: functional.instance_norm(x.reshape(1, 6, 5), None, None, WEIGHT, BIAS, eps=0.1).reshape(5, 6),
    "instance, written into": lambda x: functional.instance_norm(x[None]).sin_()[0],
    "batch": lambda x: functional.batch_norm(x, None, None, WEIGHT, BIAS, training=True, eps=0.1),
    "batch of images": lambda x: functional.batch_norm(x.reshape(5, 2, 3), None, None, training=True).reshape(5, 6),
    "batch, no longer in training": lambda x: functional.batch_norm(x, BIAS, WEIGHT, WEIGHT, BIAS).sin(),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("inside", ["itself", "its gradient", "its gradient by torch.func"])
def test_norms(name, inside, assert_derivatives):
    """Also where the derivative is one of a gradient."""
    norm = NORMS[name]
    energy = lambda x: (norm(x).cos() * STILL).sum()  # noqa: E731
    net = {
        "itself": norm,
        "its gradient": partial(force, energy),
        "its gradient by torch.func": torch.func.grad(energy),
    }
    assert_derivatives(pushforward, net[inside])


def test_running_averages_of_norms_go_on(assert_derivatives):
    """By the input's own moments, as without a derivative."""
    for norm in (nn.BatchNorm1d(6).double(), nn.InstanceNorm1d(6, track_running_stats=True).double()):
        x = STILL[..., None] * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
        norm(x)
        expected = [average.clone() for average in norm.buffers()]
        norm.reset_running_stats()
        pushforward(norm, (x,), (x.sin(),))
        torch.testing.assert_close(list(norm.buffers()), expected)
        norm.eval()
        assert_derivatives(pushforward, lambda x, norm=norm: norm(x).sin(), x)


def force(energy, x):
    """The gradient of an energy, as networks take it that are one."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.requires_grad_()
        return torch.autograd.grad(energy(x), x, create_graph=True)[0]


HIDDEN = made(nn.Linear(6, 16))
ENERGIES = {
    "silu": lambda x: functional.silu(HIDDEN(x)).sum(),
    "gelu": lambda x: functional.gelu(HIDDEN(x), approximate="tanh").sum(),
    "softplus": lambda x: functional.softplus(HIDDEN(x)).sum(),
    "softmax": lambda x: HIDDEN(x).softmax(-1).square().sum(),
    "attention": lambda x: (attended(x) * STILL).sum(),
    "product": lambda x: ((x * x) @ HIDDEN.weight.T).sin().sum(),
}


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("by", ["torch.autograd", "torch.func"])
def test_a_velocity_may_be_the_gradient_of_an_energy(name, by, assert_derivatives):
    energy = ENERGIES[name]
    net = partial(force, energy) if by == "torch.autograd" else torch.func.grad(energy)
    assert_derivatives(pushforward, net)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_an_energy_may_be_differentiated_backward():
    """By `Tensor.backward`, which keeps the derivative in the leaf."""
    x, direction = STILL.clone(), STILL.sin()

    def net(x):
        x = x + 0
        x.retain_grad()
        ENERGIES["silu"](x).backward(create_graph=True)
        return x.grad

    _, slope = pushforward(net, (x.requires_grad_(),), (direction,))
    _, expected = torch.func.jvp(torch.func.grad(ENERGIES["silu"]), (x.detach(),), (direction,))
    torch.testing.assert_close(slope, expected)
