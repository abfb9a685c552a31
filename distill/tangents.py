r"""Forward derivatives of what bends, in a form that is cheap to differentiate once more.

**Softmax.** :math:`p = \mathrm{softmax}(x)` moves by :math:`dp = p \odot (dx - \langle p, dx \rangle)`.

**Normalisation** is centred and scaled first, without weights, and the weights then multiply what moved.

**GELU**, in its form :math:`f(x) = \tfrac{x}{2} (1 + \tau)`, :math:`\tau = \tanh u`, :math:`u = \sqrt{2 / \pi} (x + c \, x^3)`:

.. math:: f''(x) = (1 - \tau^2) \left( u' + \tfrac{x}{2} u'' - x \, \tau \, u'^2 \right),

so that the pair :math:`(f(x), f'(x) \, dx)`, whose errors are :math:`(g, h)`, passes :math:`f' g + f'' \, dx \, h` back to
`x` and :math:`f' h` to `dx`. Written out by the rules of products, the same takes twenty passes over memory.

References:
    | Gaussian Error Linear Units (Hendrycks & Gimpel, 2016), https://arxiv.org/abs/1606.08415
"""

from __future__ import annotations

import math

from typing import Any

import torch

from torch import Tensor
from torch.autograd.forward_ad import make_dual, unpack_dual
from torch.autograd.function import once_differentiable

__all__ = ["gelu", "group_normalised", "layer_normalised", "softmax"]

RATE, CUBIC = math.sqrt(2 / math.pi), 0.044715


def softmax(function: Any, x: Tensor, *rest: Any, **more: Any) -> Tensor:
    primal, tangent = unpack_dual(x)
    value = function(primal, *rest, **more)
    change = value * tangent
    change = change - value * change.sum(more.get("dim", rest[0] if rest else -1), keepdim=True)
    return make_dual(value, change)


def layer_normalised(
    function: Any,
    x: Tensor,
    shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _scaled(function(x, shape, eps=eps), weight, bias, ())


def group_normalised(
    function: Any,
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _scaled(function(x, groups, eps=eps), weight, bias, (1,) * (x.ndim - 2))


def _scaled(unit: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: tuple[int, ...]) -> Tensor:
    """`weight * unit + bias`, each of the two with `trailing` axes more, where `unit` alone moves."""
    if weight is None:
        return unit
    primal, tangent = unpack_dual(unit)
    weight = weight.to(primal.dtype).reshape(*weight.shape, *trailing)
    scaled = primal * weight
    if bias is not None:
        scaled = scaled + bias.to(primal.dtype).reshape(*bias.shape, *trailing)
    return make_dual(scaled, tangent * weight)


def gelu(function: Any, x: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "tanh":
        return function(x, approximate=approximate)
    return make_dual(*_Gelu.apply(*unpack_dual(x)))


class _Gelu(torch.autograd.Function):
    """The pair `(f(x), f'(x) dx)` of the tanh form."""

    @staticmethod
    def forward(x: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        return torch.nn.functional.gelu(x, approximate="tanh"), _times_slope(change, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)  # where the derivative is held fixed, nothing goes back through it

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor | None, error_of_change: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        x, change = ctx.saved_tensors
        back = None if error is None else _times_slope(error, x)
        if error_of_change is None:
            return back, None
        bent = _curvature(x).mul_(change).mul_(error_of_change)
        return bent if back is None else bent.add_(back), _times_slope(error_of_change, x)


def _times_slope(factor: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(factor, x, approximate="tanh")


def _curvature(x: Tensor) -> Tensor:
    """`f''(x)`."""
    square = x * x
    tau = (square * (RATE * CUBIC)).add_(RATE).mul_(x).tanh_()
    rate = (square * (3 * RATE * CUBIC)).add_(RATE)  # u'
    inner = square.mul_(3 * RATE * CUBIC).add_(rate)  # x / 2 u'' + u'
    inner.addcmul_((x * tau).mul_(rate), rate, value=-1)
    return inner.mul_(tau.square_().neg_().add_(1))
