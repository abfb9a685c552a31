"""One clear sentence for bad input: which argument, what came, what was expected."""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable
from typing import Any

import torch

from torch import Tensor

__all__ = [
    "as_times",
    "check_choice",
    "check_later",
    "check_noise",
    "check_number",
    "check_positive",
    "check_share",
    "check_state",
    "check_time",
    "shared",
]


def check_state(x: Tensor, event_shape: tuple[int, ...], name: str = "x_t") -> None:
    """Refuses `x` unless it is a floating tensor `(B, *event_shape)`.

    Raises:
        ValueError: it is not.
    """
    expected = f"expected a floating tensor of shape (B, {', '.join(map(str, event_shape))})"
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: got {type(x).__name__}, {expected}")
    if x.ndim != 1 + len(event_shape) or tuple(x.shape[1:]) != tuple(event_shape):
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, {expected}")
    if not x.is_floating_point():
        raise ValueError(f"{name}: got dtype {x.dtype}, {expected}")


def check_noise(noise: Tensor, shape: tuple[int, ...]) -> None:
    """Refuses `noise` unless it is a floating tensor of shape `shape`.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(noise, Tensor) or tuple(noise.shape) != tuple(shape) or not noise.is_floating_point():
        came = f"{noise.dtype} of shape {tuple(noise.shape)}" if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"noise: got {came}, expected a floating tensor of shape {tuple(shape)}")


def as_times(t: Tensor | float, x: Tensor, name: str = "t") -> Tensor:
    """Times `(B,)` for the batch `x` `(B, *event)`, from one number or one a sample, in float32 or better.

    Raises:
        ValueError: the shape is neither () nor (B,), or a time lies outside [0, 1] or is no number.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if isinstance(t, (int, float)):
        return torch.full((), check_time(t, name), dtype=dtype, device=x.device).expand(len(x))
    if not isinstance(t, Tensor):
        try:
            t = torch.tensor(t, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name}: got {t!r}, expected one time or ({len(x)},) of them") from error
    times = t if t.dtype == dtype and t.device == x.device else t.to(x.device, dtype)
    if times.ndim > 1 or (times.ndim == 1 and len(times) != len(x)):
        raise ValueError(f"{name}: got shape {tuple(times.shape)}, expected one time or ({len(x)},) of them")
    low, high = torch.stack(torch.aminmax(times)).tolist() if times.numel() else (0.0, 1.0)  # a GPU waits once
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{name}: got times from {low:g} to {high:g}, expected times in [0, 1]")
    return times if times.ndim else times.expand(len(x))


def shared(t: Tensor) -> bool:
    """Whether times `(B,)` are one number expanded over the batch, so that what follows from them need be computed once.

    Not where a derivative by row may be asked for, nor where a trace would take this for granted with other times."""
    if t.requires_grad or torch.jit.is_tracing() or torch.compiler.is_exporting():
        return False
    return t.ndim == 1 and len(t) > 1 and t.stride(0) == 0


def check_time(t: float, name: str = "t") -> float:
    """`t`, if it is in [0, 1].

    Raises:
        ValueError: it is not.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"{name}: got times from {t:g} to {t:g}, expected times in [0, 1]")
    return t


def check_later(t: Tensor | float, t_next: Tensor | float, names: tuple[str, str] = ("t", "t_next")) -> None:
    """Refuses times `t_next` `(B,)`, or one number, unless they are later than `t` throughout.

    Raises:
        ValueError: some entry is not.
    """
    early = t_next <= t
    if bool(early.any() if isinstance(early, Tensor) else early):
        late, soon, where = torch.broadcast_tensors(*map(torch.as_tensor, (t, t_next, early)))
        i = int(where.flatten().nonzero()[0])
        raise ValueError(
            f"{names[1]}: got {float(soon.flatten()[i]):g} where {names[0]} is {float(late.flatten()[i]):g}, "
            "expected a later time"
        )


def check_positive(name: str, value: Any, least: int = 1) -> int:
    """`value`, if it is a whole number of at least `least`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected a whole number of at least {least}")
    return value


def check_number(name: str, value: Any, expected: str, fits: Callable[[float], bool] = math.isfinite) -> float:
    """`value` as one of Python's numbers, if it is a number that `fits`, which NaN does not.

    Raises:
        ValueError: it is not; the message says what was `expected`.
    """
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not fits(number):
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
    return number


def check_share(name: str, value: Any) -> float:
    """`value`, if it is a share of something; errors as in :func:`check_number`."""
    return check_number(name, value, "a share in [0, 1]", lambda share: 0 <= share <= 1)


def check_choice(name: str, value: str, known: Iterable[str]) -> str:
    """`value`, if it is one of the names `known`.

    Raises:
        ValueError: it is not; the message lists those that are.
    """
    known = list(known)
    if value not in known:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(known)}")
    return value
