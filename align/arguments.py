"""Arguments that every algorithm takes, each refused in one sentence where it does not fit."""

from __future__ import annotations

from typing import Any

from diamond.validation import check_number

__all__ = ["check_callback", "check_correlation"]


def check_correlation(rho: Any) -> float | None:
    """`rho`, if it is a correlation of transitions, or None for DDPM's.

    Raises:
        ValueError: it is neither.
    """
    if rho is None:
        return None
    return check_number("rho", rho, "a correlation in [-1, 1], or None for DDPM's", lambda r: -1 <= r <= 1)


def check_callback(callback: Any) -> None:
    """Refuses what cannot be called, before the first step and not after it.

    Raises:
        ValueError: it cannot.
    """
    if callback is not None and not callable(callback):
        raise ValueError(f"callback: got {type(callback).__name__}, expected a callable callback(step), or None")
