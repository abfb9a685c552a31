r"""Forward derivatives of what bends, in a form that is cheap to differentiate once more.

**Softmax.** :math:`p = \mathrm{softmax}(x)` moves by :math:`dp = p \odot (dx - \langle p, dx \rangle)`, its logarithm by
:math:`dx - \langle p, dx \rangle`, and the logarithm of its denominator by :math:`\langle p, dx \rangle`. The first is
linear in `dx` by a symmetric matrix, and so torch's own kernel of the gradient of a softmax; an error `h` of `dp` passes
:math:`p \odot (h - \langle p, h \rangle)` to `dx`, and to `p`
:math:`h \odot (dx - \langle p, dx \rangle) - \langle p, h \rangle dx`.

**Activations.** The pair :math:`(f(x), f'(x) \, dx)`, whose errors are :math:`(g, h)`, passes :math:`f' g + f'' \, dx \, h`
back to `x` and :math:`f' h` to `dx`. Written out by the rules of products, the same takes up to twenty passes over memory.
With :math:`s` the logistic function, and for GELU's form :math:`f(x) = \tfrac{x}{2} (1 + \tau)`,
:math:`\tau = \tanh u`, :math:`u = \sqrt{2 / \pi} (x + c \, x^3)`:

.. math::
    \text{SiLU: } f'' &= s (1 - s) \left( 2 + x (1 - 2 s) \right) \\
    \text{GELU: } f'' &= (1 - \tau^2) \left( u' + \tfrac{x}{2} u'' - x \, \tau \, u'^2 \right)

**Normalisation** is centred and scaled first, without weights, and the weights then multiply what moved. Over `N` entries
with mean :math:`\langle \cdot \rangle` and inverse deviation :math:`\rho`, :math:`y = \rho (x - \langle x \rangle)` moves
by :math:`dy = J dx`, :math:`J v = \rho (v - \langle v \rangle - y \langle y v \rangle)`, which is symmetric and the
gradient's own kernel. (Torch's derivative of a layer norm has a wrong gradient: it holds the mean and the deviation fixed,
https://github.com/pytorch/pytorch/issues/196700.) Of errors :math:`(g, h)` of :math:`(y, dy)`, `dx` gets :math:`J h`, and `x`

.. math:: J g - \rho \left( \langle y \, dx \rangle J h + \langle y h \rangle dy + \langle h \, dy \rangle y \right).

References:
    | Gaussian Error Linear Units (Hendrycks & Gimpel, 2016), https://arxiv.org/abs/1606.08415 (both activations)
    | Layer Normalization (Ba et al., 2016), https://arxiv.org/abs/1607.06450
"""

from __future__ import annotations

import math

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from torch import Tensor
from torch.autograd.function import once_differentiable

from .duals import dual_of, parts_of
from .rule import Rule

__all__ = ["gelu", "group_normalised", "layer_normalised", "log_softmax", "logsumexp", "silu", "softmax"]

RATE, CUBIC = math.sqrt(2 / math.pi), 0.044715


def softmax(function: Any, input: Tensor, *rest: Any, **more: Any) -> Tensor:
    primal, tangent = parts_of(input)
    value = function(primal, *rest, **more)
    return dual_of(value, _Shifted.of(value, tangent.to(value.dtype), _axis(value, *rest, **more)))


class _Shifted(Rule):
    """`dp` of the probabilities `p` and of `dx`, over one axis."""

    @staticmethod
    def forward(value: Tensor, change: Tensor, axis: int) -> Tensor:
        return torch._softmax_backward_data(change, value, axis, value.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Any) -> None:
        value, change, ctx.axis = inputs
        ctx.save_for_backward(value, change)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, Tensor, None]:
        value, change = ctx.saved_tensors
        moved = value * change
        mean = moved.sum(ctx.axis, keepdim=True)
        weight = torch.mul(value, error, out=moved).sum(ctx.axis, keepdim=True)
        of_value = (change - mean).mul_(error).addcmul_(change, weight, value=-1)
        return of_value, torch._softmax_backward_data(error, value, ctx.axis, value.dtype), None


def log_softmax(function: Any, input: Tensor, *rest: Any, **more: Any) -> Tensor:
    primal, tangent = parts_of(input)
    value = function(primal, *rest, **more)
    mean = (value.exp() * tangent).sum(_axis(value, *rest, **more), keepdim=True)
    return dual_of(value, tangent - mean)


def _axis(value: Tensor, dim: int | None = None, *_: Any, **more: Any) -> int:
    """The axis of a softmax, with torch's choice where none is named."""
    if dim is None:
        return 0 if value.ndim in (0, 1, 3) else 1
    return dim


def logsumexp(function: Any, input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    primal, tangent = parts_of(input)
    weights = (primal - primal.logsumexp(dim, keepdim=True)).exp()
    return dual_of(function(primal, dim, keepdim), (weights * tangent).sum(dim, keepdim))


def layer_normalised(
    function: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    axes = len(normalized_shape)
    shape = (*input.shape[:-axes], math.prod(normalized_shape))
    return _scaled(*_normalised(input, shape, eps), weight, bias, ())


def group_normalised(
    function: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    shape = len(input), num_groups, math.prod(input.shape[1:]) // num_groups
    return _scaled(*_normalised(input, shape, eps), weight, bias, (1,) * (input.ndim - 2))


def _normalised(x: Tensor, shape: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    """`x` and its derivative, each row centred and scaled in float32 or better, seen in a `shape` `(..., N)` of rows."""
    wide = torch.promote_types(x.dtype, torch.float32)
    pair = parts_of(x)
    rows = (torch.zeros_like(x) if part is None else part for part in pair)
    unit, moved, _, _ = _Normalised.of(*(_shaped(part.to(wide), shape) for part in rows), eps)
    return _shaped(unit.to(x.dtype), x.shape), _shaped(moved.to(x.dtype), x.shape)


def _shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape == shape else x.reshape(shape)


def _scaled(
    unit: Tensor, moved: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: tuple[int, ...]
) -> Tensor:
    """The dual of `weight * unit + bias`, each of the two with `trailing` axes more."""
    factor, term = (
        None if part is None else part.to(unit.dtype).reshape(*part.shape, *trailing) for part in (weight, bias)
    )
    if any(part is not None and parts_of(part)[1] is not None for part in (factor, term)):
        scaled = dual_of(unit, moved)
        scaled = scaled if factor is None else scaled * factor
        return scaled if term is None else scaled + term
    if factor is not None:
        unit, moved = unit * factor, moved * factor
    return dual_of(unit if term is None else unit + term, moved)


class _Normalised(Rule):
    """`(y, dy)` of rows `(..., N)`, with their means and inverse deviations."""

    @staticmethod
    def forward(x: Tensor, change: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        unit, mean, inverse = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        return unit, _through_norm(change, x, mean, inverse), mean, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Any) -> None:
        x, change, _ = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(x, change, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, error: Tensor | None, error_of_change: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, Tensor | None, None]:
        x, change, unit, moved, mean, inverse = ctx.saved_tensors
        if error_of_change is None:
            return None if error is None else _through_norm(error, x, mean, inverse), None, None
        scale = -inverse / x.shape[-1]
        bend = scale * _product(unit, change)
        bent = error_of_change * bend if error is None else torch.addcmul(error, error_of_change, bend)
        back = _through_norm(bent, x, mean, inverse)
        back.addcmul_(moved, scale * _product(unit, error_of_change))
        back.addcmul_(unit, scale * _product(error_of_change, moved))
        return back, _through_norm(error_of_change, x, mean, inverse), None


def _through_norm(change: Tensor, x: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """`J change`."""
    return torch.ops.aten.native_layer_norm_backward(
        change, x, x.shape[-1:], mean, inverse, None, None, [True, False, False]
    )[0]


def _product(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(-1, keepdim=True)


class _Activation(NamedTuple):
    value: Callable[[Tensor], Tensor]  # f(x)
    times_slope: Callable[[Tensor, Tensor], Tensor]  # (factor, x): factor * f'(x)
    curvature: Callable[[Tensor], Tensor]  # f''(x)


def gelu(function: Any, input: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "tanh":
        return function(input, approximate=approximate)
    return dual_of(*_Activated.of(*parts_of(input), GELU))


def silu(function: Any, input: Tensor, inplace: bool = False) -> Tensor:
    return function(input, inplace) if inplace else dual_of(*_Activated.of(*parts_of(input), SILU))


class _Activated(Rule):
    """The pair `(f(x), f'(x) dx)`."""

    @staticmethod
    def forward(x: Tensor, change: Tensor, kind: _Activation) -> tuple[Tensor, Tensor]:
        return kind.value(x), kind.times_slope(change, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, _Activation], output: Any) -> None:
        x, change, ctx.kind = inputs
        ctx.save_for_backward(x, change)
        ctx.set_materialize_grads(False)  # where the derivative is held fixed, nothing goes back through it

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, error: Tensor | None, error_of_change: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        x, change = ctx.saved_tensors
        back = None if error is None else ctx.kind.times_slope(error, x)
        if error_of_change is None:
            return back, None, None
        bent = ctx.kind.curvature(x).mul_(change).mul_(error_of_change)
        return bent if back is None else bent.add_(back), ctx.kind.times_slope(error_of_change, x), None


def _gelu_curvature(x: Tensor) -> Tensor:
    square = x * x
    tau = (square * (RATE * CUBIC)).add_(RATE).mul_(x).tanh_()
    rate = (square * (3 * RATE * CUBIC)).add_(RATE)  # u'
    inner = square.mul_(3 * RATE * CUBIC).add_(rate)  # x / 2 u'' + u'
    inner.addcmul_((x * tau).mul_(rate), rate, value=-1)
    return inner.mul_(tau.square_().neg_().add_(1))


def _silu_curvature(x: Tensor) -> Tensor:
    gate = x.sigmoid()
    bend = torch.addcmul(x, x, gate, value=-2).add_(2)
    return bend.mul_(gate).mul_(gate.neg_().add_(1))


GELU = _Activation(
    lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    lambda factor, x: torch.ops.aten.gelu_backward(factor, x, approximate="tanh"),
    _gelu_curvature,
)
SILU = _Activation(torch.nn.functional.silu, torch.ops.aten.silu_backward, _silu_curvature)
