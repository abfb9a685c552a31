"""Numbers as a reader likes them, and comparisons that claim no more than their errors allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .alignments import METHODS

__all__ = [
    "CHOOSING",
    "LABELS",
    "amount",
    "chosen",
    "count",
    "joined",
    "leaders",
    "number",
    "percent",
    "ranked",
    "scale",
]

CHOOSING = METHODS[1:]
LABELS = {"class": "a digit class", "symmetry": "symmetry", "inpainting": "inpainting"}


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign and no minus before zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\u2212")


def scale(value: float) -> str:
    """A number of any size: in words of its power of ten where it is huge."""
    if abs(value) < 1e5:
        return number(value, 1)
    mantissa, power = f"{value:.0e}".split("e")
    return f"{mantissa.replace('-', chr(0x2212))} \u00d7 10<sup>{int(power)}</sup>"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.0f}\u202f%"


def amount(figure: dict[str, float], digits: int = 2) -> str:
    """A mean with its standard error, for a table."""
    return f"{number(figure['mean'], digits)} <small>\u00b1 {number(figure['error'], digits)}</small>"


def count(value: float) -> str:
    """A whole number, grouped by thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def chosen(rows: dict[str, Any], measure: str | None = None) -> dict[str, dict[str, float]]:
    """The rewards of the methods that choose, or a measure of theirs, by name."""
    return {name: rows[name]["measures"][measure] if measure else rows[name]["reward"] for name in CHOOSING}


def joined(words: Iterable[str]) -> str:
    """`a, b and c`."""
    listed = list(words)
    return listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]


def ranked(figures: dict[str, dict[str, float]], best: str = "high", digits: int = 2) -> str:
    """Names with their means, the best first."""
    order = sorted(figures, key=lambda name: figures[name]["mean"], reverse=best == "high")
    return ", ".join(f"{name} ({number(figures[name]['mean'], digits)})" for name in order)


def leaders(figures: dict[str, dict[str, Any]], best: str = "high") -> list[str]:
    """The best, and all that two standard errors of the difference do not tell from it, the best first."""
    sign = 1 if best == "high" else -1
    order = sorted(figures, key=lambda name: -sign * figures[name]["mean"])
    top = figures[order[0]]

    def close(name: str) -> bool:
        gap = abs(top["mean"] - figures[name]["mean"])
        return gap <= 2 * (top["error"] ** 2 + figures[name]["error"] ** 2) ** 0.5

    return [name for name in order if name == order[0] or close(name)]
