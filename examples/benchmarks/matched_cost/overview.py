"""The short tables of the README: methods on the map, and the best of any method on each model, at equal NFE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["overview"]

Row = dict[str, Any]

TEACHER = "teacher"
TEACHERS = ("GLASS-4", "GLASS-8")  # of the mixtures and of the digits

CHOSEN = {  # by what the README calls them: on which model
    "importance, exact model": ("exact", "importance (best-of-N)"),
    "unsteered": ("map", "none"),
    "importance, best-of-N": ("map", "importance (best-of-N)"),
    "search": ("map", "search"),
    "SMC": ("map", "SMC"),
    "SMC, tempered": ("map", "SMC, tempered"),
    "SMC, look-ahead, tempered": ("map", "SMC, lookahead, tempered"),
    "SMC, gradient, tempered": ("map", "SMC, gradient, tempered"),
    "Feynman-Kac steering": ("map", "FKS (SMC, plug-in value)"),
    "DAS": ("map", "DAS (FKS, tempered, plug-in gradient)"),
    "FMTT": ("map", "FMTT (SMC, flow map value)"),
    "guidance, ODE": ("map", "guidance"),
    "guidance, SDE": ("map", "guidance, SDE"),
    "DPS": ("map", "DPS (plug-in guidance)"),
    "GLASS value guidance, on the teacher": (TEACHER, "GLASS value guidance"),
}
FIGURES: dict[str, tuple[str, Callable[..., float]]] = {  # names, and which of them is best
    "log z, root mean square": ("log Z", min),
    "mean": ("mean", min),
    "agrees": ("judge", max),
    "frechet": ("Frechet", min),
}


def overview(rows: list[Row]) -> str:
    """Both tables, in Markdown. The second leaves out the judge, whom search always pleases."""
    held = _of_largest_budget(rows)
    methods = {name: _chooser(*chosen) for name, chosen in CHOSEN.items()}
    models = {name: _chooser(name) for name in dict.fromkeys(row["model"] for row in held)}
    errors = [key for key in FIGURES if key != "agrees"]
    return f"{_table(held, methods, list(FIGURES))}\n\nThe best of any method:\n\n{_table(held, models, errors)}"


def _table(rows: list[Row], lines: dict[str, Callable[[Row], bool]], keys: list[str]) -> str:
    columns = [
        (problem, key)
        for problem in dict.fromkeys(row["problem"] for row in rows)
        for key in keys
        if any(row["problem"] == problem and key in row["figures"] for row in rows)
    ]
    cells = [
        ["", *(f"{problem.replace(' ', '')}: {FIGURES[key][0]}" for problem, key in columns)],
        ["---", *["---:"] * len(columns)],
    ]
    cells += [[name, *(_best(rows, wanted, *column) for column in columns)] for name, wanted in lines.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _of_largest_budget(rows: list[Row]) -> list[Row]:
    """The rows of each problem's largest number of network evaluations."""
    largest: dict[str, int] = {}
    for row in rows:
        if row["currency"] == "nfe":
            largest[row["problem"]] = max(row["budget"], largest.get(row["problem"], 0))
    return [row for row in rows if row["currency"] == "nfe" and row["budget"] == largest[row["problem"]]]


def _chooser(model: str, method: str | None = None) -> Callable[[Row], bool]:
    """Whether a row is of that model, and of that method or any."""
    models = TEACHERS if model == TEACHER else (model,)
    return lambda row: row["model"] in models and method in (None, row["method"])


def _best(rows: list[Row], wanted: Callable[[Row], bool], problem: str, key: str) -> str:
    found = [
        row["figures"][key]["mean"]
        for row in rows
        if row["problem"] == problem and wanted(row) and key in row["figures"]
    ]
    if not found:
        return ""
    best = FIGURES[key][1](found)
    return f"{best:.2f}" if best < 10 else f"{best:.1f}"
