"""The figures of `diamond eval` as pictures: posteriors and values by time, calibration, samples by steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

__all__ = ["draw_plots"]

INK, MAP, PLUGIN = "#22303c", "#c2410c", "#6d28d9"
BLUES = ("#bfdbfe", "#93c5fd", "#60a5fa", "#3b82f6", "#1d4ed8", "#1e3a8a")
FLOOR = 1e-6  # what a logarithmic axis shows of an estimate that came out negative


def draw_plots(figures: Mapping[str, Any], out: Path) -> list[Path]:
    """Writes one picture a subject beside `out`, and returns their places."""
    plots = {"posteriors": _posteriors(figures), "calibration": _calibration(figures)}
    if figures["samples"] is not None:
        plots["samples"] = _samples(figures)
    places = []
    for name, figure in plots.items():
        places.append(out.with_name(f"{out.stem}.{name}.png"))
        figure.savefig(places[-1], dpi=120)
    return places


def _posteriors(figures: Mapping[str, Any]) -> Figure:
    """Energy distances, errors of the mean, two-sample tests and value errors against time."""
    figure = Figure(figsize=(16, 3.4), layout="constrained")
    times, errors, posterior = figures["times"], figures["value"]["rmse"], figures["posterior"]
    distance, mean_error = (
        {name: [max(value, FLOOR) for value in row] for name, row in posterior[kind].items()}
        for kind in ("energy_distance", "mean_error")
    )
    first, second, third, *others = figure.subplots(1, 3 + len(errors))
    _curves(first, times, distance, f"energy distance to GLASS-{figures['reference_steps']}", "log")
    _curves(second, times, mean_error, "squared error of the mean / variance", "log")
    view, tested = next(iter(figures["two_sample"].items()))
    _curves(third, times, {name: row["auc"] for name, row in tested.items()}, f"two-sample AUC, {view}")
    error = tested["map"]["auc_error"][0]
    third.axhspan(0.5 - 2 * error, 0.5 + 2 * error, color="#9ca3af", alpha=0.4, linewidth=0)
    for axes, (name, found) in zip(others, errors.items(), strict=True):
        _curves(axes, times, found, f"value RMSE, {name}", "log")
    others[-1].legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _curves(axes: Axes, times: list[float], rows: Mapping[str, list[float]], title: str, scale: str = "linear") -> None:
    _tidy(axes, title, "t")
    for name, values in rows.items():
        colour = {"map": MAP, "plug-in": PLUGIN, "reference": "#9ca3af"}.get(name)
        if colour is None:  # GLASS-k: darker for more steps, the same in every panel
            colour = BLUES[min(int(name.split("-")[1]).bit_length(), len(BLUES)) - 1]
        wide = {"map": 2.2, "reference": 1.0}.get(name, 1.4)
        style = {"reference": "--", "plug-in": "o:"}.get(name, "o-")
        axes.plot(times, values, style, color=colour, lw=wide, ms=4, label=name, zorder=3 if name == "plug-in" else 2)
    axes.set_yscale(scale)


def _calibration(figures: Mapping[str, Any]) -> Figure:
    """Histograms of the truth's rank, all numbers together, a row a sampler and a column a time."""
    by, times = figures["calibration"]["by"], figures["times"]
    figure = Figure(figsize=(2.3 * len(times), 2.1 * len(by)), layout="constrained")
    panels = figure.subplots(len(by), len(times), sharex=True, sharey=True, squeeze=False)
    for row, (name, found) in zip(panels, by.items(), strict=True):
        for axes, t, heights, p_value in zip(row, times, found["histogram"], found["p_value"], strict=True):
            _tidy(axes, f"{name}, t = {t:g}\np = {p_value:.2g}", "")
            places = [(i + 0.5) / len(heights) for i in range(len(heights))]
            axes.bar(places, heights, 1 / len(heights), color=MAP if name == "map" else BLUES[3], edgecolor="white")
            axes.axhline(1, color=INK, linewidth=1)
    figure.supxlabel("rank of the truth among posterior draws", fontsize=9.5)
    return figure


def _samples(figures: Mapping[str, Any]) -> Figure:
    """What the judge says of samples against the map's steps, and the chain's distance to the marginals."""
    samples, transition = figures["samples"], figures["transition"]
    by = samples["by"]
    steps = {int(name.split()[1]): row for name, row in by.items() if name.startswith("map")}
    (teacher,) = (row for name, row in by.items() if name.startswith("teacher"))
    keys = ["frechet", "precision", "recall", "diversity", *(["accuracy"] if "accuracy" in teacher else [])]
    figure = Figure(figsize=(2.6 * (len(keys) + 1), 3.2), layout="constrained")
    panels = figure.subplots(1, len(keys) + 1)
    for axes, key in zip(panels, keys, strict=False):
        _tidy(axes, "Frechet distance" if key == "frechet" else key, "steps of the map")
        axes.plot(list(steps), [row[key] for row in steps.values()], "o-", color=MAP, lw=2.2, label="map")
        axes.axhline(teacher[key], color=BLUES[4], label="teacher")
        if key in by.get("held-out data", {}):
            axes.axhline(by["held-out data"][key], color="#9ca3af", linestyle="--", label="held-out data")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xticks(list(steps), minor=False)
        axes.set_xticks([], minor=True)
    panels[0].legend(frameon=False, fontsize=8)
    rows = {name: found for name, found in transition.items() if isinstance(found, dict)}
    _tidy(panels[-1], "chain: energy distance", "t")
    for (name, found), colour in zip(rows.items(), (MAP, BLUES[4]), strict=True):
        error = found["error"] or [0.0] * len(transition["times"])
        panels[-1].errorbar(transition["times"], found["energy_distance"], error, color=colour, label=name)
    panels[-1].legend(frameon=False, fontsize=8)
    figure.suptitle(samples["judge"], fontsize=9.5)
    return figure


def _tidy(axes: Axes, title: str, label: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=8.5, colors=INK)
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel(label, fontsize=9)
