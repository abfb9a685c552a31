r"""The derivative of a function along a direction, in forward mode, at the price of what moves.

Of a product in which only one factor moves, :math:`d(a x) = a \, dx`. Torch's rule takes :math:`a \, dx + da \, x` with
:math:`da = 0` where `a` is a weight, a constant or a number. So a layer costs three products forwards in place of two, each
with a gradient of its own; and every sum or product with something that stands still makes a detour of a tenth of a
millisecond, to find that it adds nothing. Here these functions have the rule that they need, and what bends has one
whose own gradient is cheap (:mod:`distill.tangents`); all others keep torch's.

The value, the derivative and their gradients are those of `torch.func.jvp`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor
from torch.autograd.forward_ad import make_dual, unpack_dual
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .tangents import gelu, group_normalised, layer_normalised, softmax

__all__ = ["pushforward"]


def pushforward(
    function: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The value of `function` at `point`, and its derivative along `direction`; each can be differentiated once more."""
    with _Moving():
        value, tangent = torch.func.jvp(function, point, direction)  # type: ignore[misc]
    return value, tangent


class _Moving(TorchFunctionMode):
    """Looks for what moves among the arguments of each function that has a rule, and applies it."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function in AFFINE and not kwargs:
            places = [i for i, given in enumerate(args) if _moves(given)]
            if len(places) == 1:
                return _apply(function, args, places[0])
        elif function in BENT and args and _moves(args[0]) and not any(map(_moves, (*args[1:], *kwargs.values()))):
            return BENT[function](function, *args, **kwargs)
        return function(*args, **kwargs)


def _moves(given: Any) -> bool:
    return isinstance(given, Tensor) and unpack_dual(given).tangent is not None


def _apply(function: Any, args: tuple, place: int) -> Tensor:
    """The function's value, and its tangent where only the argument in this `place` moves."""
    primal, tangent = unpack_dual(args[place])
    before, after = args[:place], args[place + 1 :]
    moved = AFFINE[function](function, before, tangent, after)
    if moved is None:
        return function(*args)
    value = function(*before, primal, *after)
    return make_dual(value, moved.to(value.dtype).expand(value.shape))


def _product(function: Any, before: tuple, tangent: Tensor, after: tuple) -> Tensor:
    return function(*before, tangent, *after)


def _sum(function: Any, before: tuple, tangent: Tensor, after: tuple) -> Tensor:
    return tangent


def _difference(function: Any, before: tuple, tangent: Tensor, after: tuple) -> Tensor:
    return -tangent if before else tangent


def _quotient(function: Any, before: tuple, tangent: Tensor, after: tuple) -> Tensor | None:
    return None if before else function(tangent, *after)


def _layer(function: Any, before: tuple, tangent: Tensor, after: tuple) -> Tensor | None:
    """Of a layer called with its input, its weight and its bias, where the input moves."""
    return None if before else function(tangent, after[0], None, *after[2:])


def _sum_with_product(function: Any, before: tuple, tangent: Tensor, after: tuple) -> Tensor:
    return tangent * (*before[1:], *after)[0] if before else tangent


CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
AFFINE: dict[Any, Callable[[Any, tuple, Tensor, tuple], Tensor | None]] = {
    **dict.fromkeys((torch.mul, Tensor.mul, torch.matmul, Tensor.matmul, torch.bmm, Tensor.bmm), _product),
    **dict.fromkeys((torch.add, Tensor.add), _sum),
    **dict.fromkeys((torch.sub, Tensor.sub), _difference),
    **dict.fromkeys((torch.div, Tensor.div), _quotient),
    **dict.fromkeys((functional.linear, *CONVOLUTIONS), _layer),
    **dict.fromkeys((torch.addcmul, Tensor.addcmul), _sum_with_product),
}
BENT: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys((torch.softmax, Tensor.softmax, functional.softmax), softmax),
    functional.layer_norm: layer_normalised,
    functional.group_norm: group_normalised,
    functional.gelu: gelu,
}
