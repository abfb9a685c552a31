"""The figures of `diamond eval` as tables on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

__all__ = ["print_tables"]

COLUMNS = {
    "count": ("n", "{:d}"), "frechet": ("Frechet", "{:.3f}"), "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"), "diversity": ("diversity", "{:.3f}"), "accuracy": ("class", "{:.1%}"),
}  # fmt: skip


def print_tables(figures: Mapping[str, Any]) -> None:
    """Prints all of them."""
    console, times = Console(), figures["times"]
    posterior, reference = figures["posterior"], f"GLASS-{figures['reference_steps']}"
    rows = {
        **posterior["energy_distance"],
        "worth GLASS steps": posterior["equivalent_steps"],
        "worth even steps": posterior["equivalent_steps_published"],
    }
    console.print(_by_time(f"posteriors: energy distance to {reference}", times, rows, "{:.4f}"))
    for figure, title in (
        ("mean_error", "posteriors: squared error of the mean, as a share of the variance"),
        ("spread", f"posteriors: variance, as a multiple of that of {reference}"),
    ):
        console.print(_by_time(title, times, posterior[figure], "{:.4f}" if figure == "mean_error" else "{:.3f}"))
    for view, by in figures["two_sample"].items():
        rows = {name: found["auc"] for name, found in by.items()}
        error = by["map"]["auc_error"][0]
        title = f"posteriors: two-sample test against {reference}, {view} (AUC, 0.5 is best, +- {error:.3f})"
        console.print(_by_time(title, times, rows, "{:.3f}"))
    value = figures["value"]
    for figure, shown in (("rmse", "RMSE"), ("bias", "bias")):
        for name, found in value[figure].items():
            title = f"value error, {name} ({shown}, {value['mc']} draws)"
            console.print(_by_time(title, times, found, "{:.3f}" if figure == "rmse" else "{:+.3f}"))
    calibration = figures["calibration"]
    rows = {name: found["p_value"] for name, found in calibration["by"].items()}
    title = f"calibration: p-value of uniform ranks ({calibration['states']} states, {calibration['draws']} draws)"
    console.print(_by_time(title, times, rows, "{:.2g}"))
    transition = figures["transition"]
    rows = {name: found["energy_distance"][1::2] for name, found in transition.items() if isinstance(found, dict)}
    console.print(_by_time("transitions: energy distance to noised data", transition["times"][1::2], rows, "{:.4f}"))
    if figures["samples"] is None:
        console.print("no judge of these data ships with the package: samples were not judged (--judge FILE)")
    else:
        console.print(_samples(figures["samples"]))


def _by_time(title: str, times: Sequence[float], rows: Mapping[str, Sequence[float]], shown: str) -> Group:
    cells = {name: [("{:.1f}" if "steps" in name else shown).format(v) for v in row] for name, row in rows.items()}
    return _table(title, ["t", *(f"{t:g}" for t in times)], cells)


def _samples(samples: Mapping[str, Any]) -> Group:
    found = samples["by"]
    keys = [key for key in COLUMNS if any(key in row for row in found.values())]
    cells = {
        name: [COLUMNS[key][1].format(row[key]) if key in row else "" for key in keys] for name, row in found.items()
    }
    title = f"samples: {samples['judge']}, against {samples['data']} training images"
    return _table(title, ["", *(COLUMNS[key][0] for key in keys)], cells)


def _table(title: str, headings: Sequence[str], cells: Mapping[str, Sequence[str]]) -> Group:
    """A table under its title, which may be wider."""
    table = Table()
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for name, row in cells.items():
        table.add_row(name, *row)
    return Group(Text(title, style="italic"), table)
