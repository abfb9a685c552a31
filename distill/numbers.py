"""Numbers that are asked for, refused by the argument that is wrong, whatever came in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["check_number", "check_share"]


def check_number(name: str, value: Any, fits: Callable[[float], bool], expected: str) -> float:
    """`value`, if it is a number that `fits`.

    Raises:
        ValueError: it is not; the message ends in what was `expected`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
    return value


def check_share(name: str, value: Any) -> float:
    """`value`, if it is a share of something; errors as in :func:`check_number`."""
    return check_number(name, value, lambda share: 0 <= share <= 1, "a share in [0, 1]")
