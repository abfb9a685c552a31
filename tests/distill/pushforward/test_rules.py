"""The forward derivative and its gradient are torch's own, for every network, path and function that has a rule; but for
layer norms, whose derivative has a wrong gradient there (https://github.com/pytorch/pytorch/issues/196700): they are
written out."""

from functools import partial
from unittest.mock import patch

import pytest
import torch

from torch import nn

from diamond import DiamondMap, FlowMap
from diamond.interpolant import Interpolant, Linear
from diamond.nets import Preconditioned, ResidualMLP, Transformer, UNet, Whitened
from distill.pushforward import AFFINE, BENT, pushforward

EVENT = (1, 8, 8)
N = 5
NETWORKS = {
    "perceptron": lambda **more: ResidualMLP(EVENT, 16, 2, **more),
    "whitened": lambda **more: Whitened(
        ResidualMLP((64,), 16, 2, **more),
        EVENT,
        data=torch.randn(200, *EVENT, generator=torch.Generator().manual_seed(1)),
    ),
    "transformer": lambda **more: Transformer(EVENT, width=16, depth=2, **more),
    "preconditioned u-net": lambda **more: Preconditioned(UNet(EVENT, 8, (1, 2), attention=4, **more), 0.7, 0.1),
}


class Bent(Interpolant):
    """A path without derivatives in closed form, which the networks then take inside the derivative."""

    def alpha(self, t):
        return t * (2 - t)

    def sigma(self, t):
        return (1 - t).square() + 0.5 * t * (1 - t)


def stirred(net, seed=0):
    """In float64, with no weight left at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net.double()


def written_out(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """A layer norm over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    unit = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    unit = unit if weight is None else unit * weight
    return unit if bias is None else unit + bias


def by_torch(function, point, direction):
    with patch.object(nn.functional, "layer_norm", written_out):
        return torch.func.jvp(function, point, direction)


def both(function, point, direction, weights):
    """Value, derivative, and gradients of functions of either and of both, by torch's rules and by these."""
    found = []
    touched = 0 * weights[0].sum()
    for way in (by_torch, pushforward):
        value, slope = way(function, point, direction)
        pulls = [
            pull
            for loss in (value.sin(), slope.cos() * slope, value * slope)
            for pull in torch.autograd.grad(loss.sum() + touched, weights, retain_graph=True, materialize_grads=True)
        ]
        found.append((value.detach(), slope.detach(), *pulls))
    return found


def assert_same(function, point, direction, weights):
    expected, found = both(function, point, direction, weights)
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == one.dtype and torch.allclose(other, one, rtol=1e-10, atol=1e-10 * float(one.abs().max()))
    assert float(expected[1].abs().max()) > 1e-3


def draws(*shape, seed=2):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("path", [Linear(), Bent()], ids=["linear", "custom"])
@pytest.mark.parametrize("moving", ["end", "start"])
def test_maps_have_torchs_derivative_and_its_gradient(name, path, moving):
    """Along the end of the map alone (Lagrangian), and along its start (Eulerian); maps with and without a second state."""
    x, x_t, direction = draws(3, N, *EVENT)
    s, r, t = torch.tensor([[0.0], [0.6], [0.4]], dtype=torch.float64) + 0.3 * draws(3, N, seed=3).sigmoid()
    stochastic = DiamondMap(stirred(NETWORKS[name](states=1, times=3)), path, EVENT)
    deterministic = FlowMap(stirred(NETWORKS[name](times=1)), path, EVENT)
    for model, more in ((stochastic, (x_t, t)), (deterministic, ())):
        if moving == "end":
            function = partial(lambda model, more, r: model.displace(x, s, r, *more), model, more)
            assert_same(function, (r,), (torch.ones_like(r),), tuple(model.parameters()))
        else:
            function = partial(lambda model, more, x, s: model.displace(x, s, r, *more), model, more)
            assert_same(function, (x, s), (direction, torch.ones_like(s)), tuple(model.parameters()))


def written_into(x, change):
    """Both what was changed and what the change was made from."""
    y = x.sin()
    h = change(y)
    h *= 3
    h[0] = 0.5
    h += 0.1 * y[: len(h)]
    return y * h


FUNCTIONS = {
    "product": lambda x, a: (x * a, a * x, 2 * x, x * 2, torch.mul(a, x), x * x),
    "sum": lambda x, a: (x + a, a + x, 1 + x, x + 1, a[0] + x, x[0] + a, torch.add(a, x, alpha=3), x + x),
    "difference": lambda x, a: (x - a, a - x, 1 - x, x - 1, x[0] - a, a - x[0], torch.sub(x, a, alpha=2)),
    "quotient": lambda x, a: (x / a, a / (x + 9), x / 2, 2 / (x + 9), torch.div(x, a), x / (x + 9)),
    "matrix product": lambda x, a: (x @ a.T, a @ x.T, torch.bmm(x[None], a.T[None]), x[None].bmm(x.T[None])),
    "sum with product": lambda x, a: (
        torch.addcmul(x, a, a), torch.addcmul(a, x, a), torch.addcmul(a, a, x), torch.addcmul(a[0], x, a),
        torch.addcmul(x[0], a, a), torch.addcmul(x, x, a), torch.addcmul(x, a, a, value=2), a.addcmul(x, a),
    ),
    "layer": lambda x, a: (
        nn.functional.linear(x, a), nn.functional.linear(x, a, a[:, 0]), nn.functional.linear(a, x),
        nn.functional.linear(a, a, x[:, 0]), nn.functional.linear(x, a, bias=a[:, 0]),
        torch.conv1d(x[None], a[..., None], a[:, 0]), torch.conv2d(x[None, None], a[:2, None, :2, None], a[0, :2], 1, 1),
        torch.conv2d(a[None, None], x[:2, None, :2, None], a[0, :2]), torch.conv1d(x[None], a[..., None], padding=1),
    ),
    "softmax": lambda x, a: (
        x.softmax(-1), torch.softmax(x, dim=0), nn.functional.softmax(x, 1), nn.functional.softmax(x, dim=0),
        torch.softmax(x, 0, dtype=torch.float64), torch.softmax(input=x, dim=0),
        x.log_softmax(-1), torch.log_softmax(x, dim=0), nn.functional.log_softmax(x, 1),
        x.logsumexp(0), torch.logsumexp(3 * x, dim=(0, 1)), torch.logsumexp(x, 1, keepdim=True),
    ),
    "normalisation": lambda x, a: (
        nn.functional.layer_norm(x, (6,)), nn.functional.layer_norm(x, (6,), a[0], a[1]),
        nn.functional.layer_norm(x, (6,), a[0], eps=0.1), nn.functional.layer_norm(a, (6,), x[0], a[1]),
        nn.functional.layer_norm(x, (6,), x[0], x[1], 0.1), nn.functional.group_norm(x, 2, a[0], a[1]),
        nn.functional.layer_norm(x, (6,), None, a[1]), nn.functional.layer_norm(x, (6,), a[0], x[1]),
        nn.functional.group_norm(x[..., None, None] + a[:, 0], 3, a[0], a[1], 0.1), nn.functional.group_norm(x, 2),
        nn.functional.group_norm(x, 2, x[0], a[0]),
    ),
    "softmax over the axis of torch's choice": lambda x, a: (
        nn.functional.softmax(x), nn.functional.softmax(x.reshape(2, 3, 3, 2)),
        nn.functional.log_softmax(x.reshape(3, 4, 3)), nn.Softmax()(x),
    ),
    "silu": lambda x, a: (
        nn.functional.silu(x), nn.functional.silu(-3 * x), nn.functional.silu(2 * x, inplace=True),
    ),
    "gelu": lambda x, a: (
        nn.functional.gelu(x, approximate="tanh"), nn.functional.gelu(3 * x), nn.functional.gelu(-x, approximate="none"),
    ),
    "sum written into": lambda x, a: (
        written_into(x, lambda y: y + 1), written_into(x, lambda y: a + y), written_into(x, lambda y: y - 1),
        written_into(x, lambda y: y[:, :1] + a), written_into(x, lambda y: a - y[:1]), written_into(x, lambda y: y[0] + a),
        written_into(x, lambda y: torch.addcmul(y, a, a)), written_into(x, lambda y: torch.addcmul(y[:1], a, a)),
        x.sin() + nn.functional.relu(x.sin() + a - 2, inplace=True), written_into(x, lambda y: (y + a)[1:2]),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_has_torchs_derivative_whatever_moves(name):
    x, a, direction = draws(3, 6, 6, seed=4)
    x, a = x.requires_grad_(), (a.abs() + 1).requires_grad_()
    for i in range(len(FUNCTIONS[name](x, a))):
        assert_same(lambda x, i=i: FUNCTIONS[name](x, a)[i], (x,), (direction,), (x, a))


def test_what_does_not_move_has_no_derivative():
    x, still, direction = draws(3, 4, 6, seed=7)
    value, slope = pushforward(lambda x: still.sin(), (x,), (direction,))
    assert torch.equal(value, still.sin()) and torch.equal(slope, torch.zeros_like(still))


def test_rules_are_found_under_the_names_that_torch_hands_over(monkeypatch):
    """Operators, methods, functions and layers alike: without a rule they would give the same, but slowly."""
    met = []
    for table in (AFFINE, BENT):
        for function, rule in list(table.items()):
            monkeypatch.setitem(
                table, function, lambda *args, _rule=rule, **more: met.append(_rule) or _rule(*args, **more)
            )
    x, a = draws(2, 6, 6, seed=4)
    layers = (
        nn.Linear(6, 6),
        nn.LayerNorm(6),
        nn.GELU("tanh"),
        nn.GroupNorm(2, 6),
        nn.Softmax(-1),
        nn.SiLU(),
        nn.Conv1d(6, 6, 1),
    )
    cases = [
        lambda x: x * a, lambda x: 2 * x, lambda x: x + a, lambda x: 1 + x, lambda x: x - a, lambda x: x / 2,
        lambda x: x @ a, lambda x: torch.addcmul(a, x, a), *(layer.double() for layer in layers),
    ]  # fmt: skip
    for case in cases:
        before = len(met)
        pushforward(case, (x,), (x,))
        assert len(met) == before + 1, case
