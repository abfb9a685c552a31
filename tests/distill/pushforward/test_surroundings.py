"""Forward derivatives inside other derivatives and transformations, under a compiler, and in several threads."""

from threading import Event, Thread
from unittest.mock import patch

import pytest
import torch

from torch import nn
from torch._dynamo.testing import CompileCounter

from distill.pushforward import pushforward


def draws(*shape, seed=6):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def net():
    layers = nn.Sequential(
        nn.Linear(6, 6), nn.LayerNorm(6), nn.SiLU(), nn.GroupNorm(2, 6), nn.GELU("tanh"), nn.Linear(6, 6)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in layers.double().parameters():
            weights.copy_(0.5 * torch.randn(weights.shape, generator=generator))
    return layers


def test_a_compiled_network_keeps_its_derivative(net):
    x, direction = draws(2, 4, 6)
    expected = pushforward(net, (x,), (direction,))
    net.compile(backend="aot_eager")
    for one, other in zip(pushforward(net, (x,), (direction,)), expected, strict=True):
        assert torch.equal(one, other)


def test_a_compiled_step_keeps_its_derivative(net):
    x, direction = draws(2, 4, 6)
    expected = pushforward(net, (x,), (direction,))
    compiled = torch.compile(lambda x: pushforward(net, (x,), (direction,)), backend="eager")
    torch.testing.assert_close(compiled(x), expected)


def test_derivatives_nest(net, assert_derivatives):
    """A derivative of a derivative, the inner one by these rules or by torch's; and rows one by one inside it."""
    direction = draws(5, 6)
    assert_derivatives(pushforward, lambda x: pushforward(net, (x,), (direction,))[1])
    assert_derivatives(pushforward, lambda x: torch.func.jvp(net, (x,), (direction,))[1])
    assert_derivatives(pushforward, lambda x: torch.func.vmap(lambda row: net(row[None])[0])(x))


def test_a_gradient_of_torch_autograd_has_no_derivative_beside_one_of_torch_func(net):
    x = draws(4, 6)

    def force(x):
        slope = torch.func.jvp(net, (x,), (x,))[1]
        return torch.autograd.grad(slope.sum(), x, create_graph=True)[0]

    with pytest.raises(RuntimeError, match="take the gradient by torch.func.grad$"):
        pushforward(force, (x,), (x,))


def test_transformations_go_around_a_derivative(net):
    x, direction = draws(2, 4, 6)
    value, slope = pushforward(net, (x,), (direction,))
    rows = torch.func.vmap(lambda x, v: tuple(part[0] for part in pushforward(net, (x[None],), (v[None],))))
    torch.testing.assert_close(rows(x, direction), (value, slope))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(pushforward(net, (leaf,), (direction,))[1].sin().sum(), leaf)
    pull = torch.func.grad(lambda x: pushforward(net, (x,), (direction,))[1].sin().sum())(x)
    torch.testing.assert_close(pull, expected)


def test_two_threads_take_turns(net):
    """The compiler's stance is whatever it was before, though the second begins while the first is under way."""
    x, direction = draws(2, 4, 6)
    expected = pushforward(net, (x,), (direction,))
    begun, found, waited = Event(), [], []

    def slow(x):
        begun.set()
        waited.append(second.join(0.05))  # which it cannot: it waits for this one
        return net(x)

    first = Thread(target=lambda: found.append(pushforward(slow, (x,), (direction,))))
    second = Thread(target=lambda: begun.wait() and found.append(pushforward(net, (x,), (direction,))))
    with patch.object(torch.compiler, "set_stance", wraps=torch.compiler.set_stance) as stances:
        second.start()
        first.start()
        first.join()
        second.join()
    assert len(found) == stances.call_count == 2 and waited
    for pair in found:
        assert all(torch.equal(one, other) for one, other in zip(pair, expected, strict=True))
    compiled = CompileCounter()
    torch.compile(net, backend=compiled)(x)
    assert compiled.frame_count == 1


@pytest.mark.parametrize("layer", [nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.SiLU(), nn.Softmax(-1), nn.Linear(6, 6)])
def test_no_rows_have_no_derivative(layer):
    x = draws(0, 6)
    for part in pushforward(layer.double(), (x,), (x,)):
        assert part.shape == x.shape
