r"""The derivative of a function along a direction, in forward mode, at the price of what moves.

Of a product in which only one factor moves, :math:`d(a x) = a \, dx`. Torch's rule takes :math:`a \, dx + da \, x` with
:math:`da = 0` where `a` is a weight, a constant or a number. So a layer costs three products forwards in place of two, each
with a gradient of its own; and every sum or product with something that stands still makes a detour of a tenth of a
millisecond, to find that it adds nothing. Here these functions have the rule that they need, and what bends has one
whose own gradient is cheap (:mod:`distill.tangents`); all others keep torch's.

Compiled networks run as they are written, because a compiler does not see what dual tensors carry.

Torch carries derivatives in dual tensors, of one level, or by `torch.func`, whose levels nest and take twice the time for
each operation. The first serves, but where the function takes a forward derivative itself, as a path does that knows
its slope by no formula.

The value, the derivative and their gradients are those of `torch.func.jvp`, but for its gradient through a layer norm's
derivative, which is wrong there.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch

from torch import Tensor, nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .tangents import gelu, group_normalised, layer_normalised, log_softmax, logsumexp, silu, softmax

__all__ = ["pushforward"]


def pushforward(
    function: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The value of `function` at `point`, and its derivative along `direction`; each can be differentiated once more."""
    with torch.compiler.set_stance("force_eager"):
        try:
            with dual_level(), _Moving():
                value, tangent = unpack_dual(function(*map(make_dual, point, direction)))
                return value, torch.zeros_like(value) if tangent is None else tangent
        except RuntimeError as error:
            if "Nested forward mode" not in str(error):
                raise
        with _Moving():
            value, tangent = torch.func.jvp(function, point, direction)  # type: ignore[misc]
        return value, tangent


class _Moving(TorchFunctionMode):
    """Looks for what moves among the arguments of each function that has a rule, and applies it."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function in AFFINE and not kwargs:
            moving = [(i, dual) for i, given in enumerate(args) if (dual := _moving(given)) is not None]
            if len(moving) == 1:
                return _apply(function, args, *moving[0])
        elif function in BENT and any(_moving(given) is not None for given in (*args, *kwargs.values())):
            return BENT[function](function, *args, **kwargs)
        elif _may_work_in_place(function) and any(_moving(given) is not None for given in (*args, *kwargs.values())):
            with _OutOfPlace():
                return function(*args, **kwargs)
        return function(*args, **kwargs)


class _OutOfPlace(TorchDispatchMode):
    """Changes nothing, but that torch chooses formulas of derivatives that leave every intermediate result as it was.
    Those of a softmax or of an attention would otherwise overwrite what their gradient needs."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return function(*args, **(kwargs or {}))


def _may_work_in_place(function: Any) -> bool:
    """Whether the derivative may. Tensors' methods do not, but for one, and are too many to be guarded."""
    return isinstance(function, FunctionType | BuiltinFunctionType) or function is Tensor.logcumsumexp


def _moving(given: Any) -> tuple[Tensor, Tensor] | None:
    """The value and the derivative of what moves. A parameter never does, and need not be asked."""
    if not isinstance(given, Tensor) or type(given) is nn.Parameter:
        return None
    value, tangent = unpack_dual(given)
    return None if tangent is None else (value, tangent)


def _apply(function: Any, args: tuple, place: int, moving: tuple[Tensor, Tensor]) -> Tensor:
    """The function's value, and its tangent where only the argument in this `place` moves."""
    before, after = args[:place], args[place + 1 :]
    moved = AFFINE[function](function, before, moving[1], after)
    if moved is None:
        return function(*args)
    value = function(*before, moving[0], *after)
    moved = moved.to(value.dtype).expand(value.shape)
    return make_dual(value, moved.clone() if moved.data_ptr() == moving[1].data_ptr() else moved)


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
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax, functional.log_softmax), log_softmax),
    **dict.fromkeys((torch.logsumexp, Tensor.logsumexp), logsumexp),
    functional.layer_norm: layer_normalised,
    functional.group_norm: group_normalised,
    functional.gelu: gelu,
    functional.silu: silu,
}
