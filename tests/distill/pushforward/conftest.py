"""Central differences, which ask no rule of anyone."""

import pytest
import torch

STEP = 1e-3


def draws(*shape, seed=5):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope_at_zero(function):
    """Of fourth order."""
    near, far = (function(step) - function(-step) for step in (STEP, 2 * STEP))
    return (8 * near - far) / (12 * STEP)


def height(value, slope):
    """Of which every gradient is asked, through the value and through its derivative."""
    return (1.3 * slope.sin() + value * slope).sum()


@pytest.fixture
def assert_derivatives():
    """Holds the derivative of a network along a direction, and the gradient of both for its argument, against differences."""

    def check(pushforward, net, x=None, seed=5):
        x = draws(5, 6, seed=seed) if x is None else x
        direction, turn = draws(2, *x.shape, seed=seed + 1)
        value, slope = pushforward(net, (x.clone().requires_grad_(),), (direction,))
        torch.testing.assert_close(value.detach(), net(x).detach(), rtol=1e-10, atol=1e-10)
        along = lambda x: slope_at_zero(lambda h: net(x + h * direction).detach())  # noqa: E731
        torch.testing.assert_close(slope.detach(), along(x), rtol=1e-6, atol=1e-7)
        leaf = x.clone().requires_grad_()
        (pull,) = torch.autograd.grad(height(*pushforward(net, (leaf,), (direction,))), leaf)
        expected = slope_at_zero(lambda h: height(net(x + h * turn).detach(), along(x + h * turn)))
        torch.testing.assert_close((pull * turn).sum(), expected, rtol=1e-5, atol=0)
        assert abs(float(expected)) > 1e-3

    return check
