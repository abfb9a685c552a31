r"""The derivative of a function along a direction, in forward mode, at the price of what moves.

Of a product in which only one factor moves, :math:`d(a x) = a \, dx`. Torch's rule takes :math:`a \, dx + da \, x` with
:math:`da = 0` where `a` is a weight, a constant or a number. So a layer costs three products forwards in place of two, each
with a gradient of its own; and every sum or product with something that stands still makes a detour of a tenth of a
millisecond, to find that it adds nothing. Here these functions have the rule that they need, and what bends has one
whose own gradient is cheap (:mod:`distill.tangents`); all others keep torch's.

Compiled networks run as they are written, because a compiler does not see what dual tensors carry.

Torch carries derivatives in dual tensors, of one level, or by `torch.func`, whose levels nest and take twice the time for
each operation. The first serves, but where the function takes a derivative by `torch.func` itself, as a path does that knows
its slope by no formula. Inside the latter derivative, inside a transformation around, under a compiler, and for a function
that takes gradients itself, as a velocity does that is an energy's, torch's own rules hold. A function that turns out to need
another way is run anew.

Networks may use attention, norms and functions that write into their argument, in any of torch's forms: no derivative
overwrites what its gradient needs, and normalisations without a rule are written out (:mod:`distill.norms`).

The value, the derivative and their gradients are those of `torch.func.jvp`, but for its gradient through the derivative of
a norm of layers, instances or batches in training, which is wrong there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any

import torch

from torch import Tensor, nn
from torch._C._functorch import maybe_current_level  # of the transformations of `torch.func`
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .duals import dual_of, parts_of
from .norms import WRITTEN_OUT
from .tangents import gelu, group_normalised, layer_normalised, log_softmax, logsumexp, silu, softmax

__all__ = ["pushforward"]

ALONE = RLock()  # levels of derivatives and a compiler's stance are a whole process's


def pushforward(
    function: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The value of `function` at `point`, and its derivative along `direction`; each can be differentiated once more."""
    if torch.compiler.is_compiling() or maybe_current_level() is not None:
        return _by_levels(function, point, direction, _WrittenOut())
    with ALONE, torch.compiler.set_stance("force_eager"):
        try:
            return _by_duals(function, point, direction, _Moving(None))
        except _GradientInside:
            another_way = partial(_by_duals, mode=_WrittenOut())
        except RuntimeError as error:
            if "Nested forward mode" not in str(error):
                raise
            another_way = partial(_by_levels, mode=_Moving(1))
        return another_way(function, point, direction)


def _by_duals(
    function: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...], mode: TorchFunctionMode
) -> tuple[Tensor, Tensor]:
    with dual_level():
        with mode:
            moved = function(*map(make_dual, point, direction))
        value, tangent = unpack_dual(moved)
        return value, torch.zeros_like(value) if tangent is None else tangent


def _by_levels(
    function: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...], mode: TorchFunctionMode
) -> tuple[Tensor, Tensor]:
    with mode:
        value, tangent = torch.func.jvp(function, point, direction)  # type: ignore[misc]
    return value, tangent


class _GradientInside(RuntimeError):
    """The function takes a gradient, whose derivative follows from torch's rules alone."""


class _WrittenOut(TorchFunctionMode):
    """Torch's rules, with normalisations replaced by what they are made of."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        rule = WRITTEN_OUT.get(function)
        return _out_of_place(function, args, kwargs or {}) if rule is None else rule(function, *args, **(kwargs or {}))


class _Moving(_WrittenOut):
    """Looks for what moves among the arguments of each function that has a rule, and applies it. Inside a further
    transformation than the one of this `level`, which moves other things, torch's rules hold."""

    def __init__(self, level: int | None) -> None:
        super().__init__()
        self.level = level

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if maybe_current_level() != self.level:
            if self.level is None:
                raise RuntimeError("Nested forward mode")
            return super().__torch_function__(function, types, args, kwargs)
        way = WAYS.get(function)
        return function(*args, **kwargs) if way is None else way(function, args, kwargs)


def _refused(function: Any, args: tuple, kwargs: dict) -> Any:
    raise _GradientInside("torch.autograd inside a derivative by torch.func: take the gradient by torch.func.grad")


def _affine(function: Any, args: tuple, kwargs: dict) -> Any:
    moving = [] if kwargs else [(i, dual) for i, given in enumerate(args) if (dual := _moving(given)) is not None]
    return _apply(function, args, *moving[0]) if len(moving) == 1 else function(*args, **kwargs)


def _bent(function: Any, args: tuple, kwargs: dict) -> Any:
    if any(_moving(given) is not None for given in (*args, *kwargs.values())):
        return BENT[function](function, *args, **kwargs)
    return _out_of_place(function, args, kwargs)


class _OutOfPlace(TorchDispatchMode):
    """Changes nothing, but that torch chooses formulas of derivatives that leave every intermediate result as it was.
    Those of a softmax or of an attention would otherwise overwrite what their gradient needs."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return function(*args, **(kwargs or {}))


def _out_of_place(function: Any, args: tuple, kwargs: dict) -> Any:
    if function not in IN_PLACE:
        return function(*args, **kwargs)
    with _OutOfPlace():
        return function(*args, **kwargs)


def _moving(given: Any) -> tuple[Tensor, Tensor] | None:
    """The value and the derivative of what moves. A parameter never does, and need not be asked."""
    if not isinstance(given, Tensor) or type(given) is nn.Parameter:
        return None
    value, tangent = parts_of(given)
    return None if tangent is None else (value, tangent)


def _apply(function: Any, args: tuple, place: int, moving: tuple[Tensor, Tensor]) -> Tensor:
    """The function's value, and its tangent where only the argument in this `place` moves."""
    before, after = args[:place], args[place + 1 :]
    moved = AFFINE[function](function, before, moving[1], after)
    if moved is None:
        return function(*args)
    value = function(*before, moving[0], *after)
    moved = moved.to(value.dtype)
    if moved is moving[1] or moved.shape != value.shape:  # what is written into the result may not be shared
        moved = moved.expand(value.shape).clone()
    return dual_of(value, moved)


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
BACKWARD = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})
SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)
LOG_SOFTMAX = (torch.log_softmax, Tensor.log_softmax, functional.log_softmax)
LOGSUMEXP = (torch.logsumexp, Tensor.logsumexp)
BENT: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys(SOFTMAX, softmax),
    **dict.fromkeys(LOG_SOFTMAX, log_softmax),
    **dict.fromkeys(LOGSUMEXP, logsumexp),
    **WRITTEN_OUT,
    **dict.fromkeys((functional.layer_norm, torch.layer_norm), layer_normalised),
    **dict.fromkeys((functional.group_norm, torch.group_norm), group_normalised),
    functional.gelu: gelu,
    functional.silu: silu,
}
IN_PLACE = frozenset({
    *SOFTMAX, *LOG_SOFTMAX, *LOGSUMEXP, torch.special.softmax, torch.special.log_softmax, torch.special.logsumexp,
    torch.logcumsumexp, Tensor.logcumsumexp, functional.softmin, functional.gumbel_softmax, functional.cross_entropy,
    functional.scaled_dot_product_attention, functional.multi_head_attention_forward,
    torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm, functional.normalize,
})  # fmt: skip
WAYS: dict[Any, Callable[[Any, tuple, dict], Any]] = {
    **dict.fromkeys(IN_PLACE, _out_of_place),
    **dict.fromkeys(BENT, _bent),
    **dict.fromkeys(AFFINE, _affine),
    **dict.fromkeys(BACKWARD, _refused),
}
