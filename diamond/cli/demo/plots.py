"""The plots of numbers. Each function makes one matplotlib figure from figures of the report."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from .alignments import BASE, METHODS

__all__ = ["distance_plot", "ess_plot", "reward_plot", "value_plot"]

INK, MAP, PLUGIN = "#22303c", "#c2410c", "#6d28d9"
BLUES = ("#bfdbfe", "#93c5fd", "#60a5fa", "#3b82f6", "#1d4ed8", "#1e3a8a")
COLOURS = dict(zip(METHODS, ("#6b7280", "#0f766e", "#1d4ed8", "#c2410c", "#6d28d9"), strict=True))
MARKERS = dict(zip(METHODS, "xosD^", strict=True))


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=INK)


def _plain(axes: Axes, ticks: list[int], logarithmic: str = "x") -> None:
    """Whole numbers, not powers, on a logarithmic axis."""
    axis = axes.xaxis if logarithmic == "x" else axes.yaxis
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(lambda value, place: "")
    axis.set_ticks(ticks)


def distance_plot(figures: dict[str, Any]) -> Figure:
    """Energy distance to the reference against GLASS's inner steps, with the map's level, one panel a time."""
    times, steps = figures["times"], figures["steps"]
    figure = Figure(figsize=(9, 3.1), layout="constrained")
    panels = figure.subplots(1, len(times), sharey=True, squeeze=False)[0]
    for i, (axes, t) in enumerate(zip(panels, times, strict=True)):
        _tidy(axes)
        axes.loglog(steps, [max(d, 1e-6) for d in figures["glass"][i]], "o-", color=BLUES[3], label="GLASS, k calls")
        better = [max(d, 1e-6) for d in figures["glass, fitted"][i]]
        axes.loglog(steps, better, "--", color=BLUES[1], label="the same, fitted steps", zorder=1)
        axes.axhline(max(figures["map"][i], 1e-6), color=MAP, linewidth=2, label="map, 1 call")
        equal = figures["equivalent steps"][i]
        axes.plot([equal], [max(figures["map"][i], 1e-6)], "D", color=MAP, markersize=7)
        # where neither line runs: below to the left, or above to the right where there is no room
        place, side = ((-7, -15), "right") if equal >= 4 else ((7, 7), "left")
        axes.annotate(
            f"{equal:.1f} steps", (equal, max(figures["map"][i], 1e-6)), xytext=place, textcoords="offset points",
            ha=side, color=MAP, fontsize=9.5, fontweight="bold",
        )  # fmt: skip
        _plain(axes, steps)
        axes.set_title(f"t = {t:g}", fontsize=10.5)
        axes.set_xlabel("inner steps k", fontsize=9.5)
    panels[0].set_ylabel("energy distance", fontsize=9.5)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8.5
    )
    return figure


def value_plot(figures: dict[str, Any], titles: dict[str, str]) -> Figure:
    """Errors of value estimates against network calls, a row for each reward and a column for each time."""
    curves, times = figures["curves"], figures["times"]
    figure = Figure(figsize=(9, 2.9 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), len(times), squeeze=False)
    for row, (reward, by_time) in zip(panels, curves.items(), strict=True):
        for axes, t in zip(row, times, strict=True):
            _tidy(axes)
            glass = [name for name in by_time[str(t)] if name.startswith("GLASS")]
            for name, colour in zip(glass, BLUES[-len(glass) :], strict=True):
                curve = by_time[str(t)][name]
                axes.loglog(curve["nfe"], curve["rmse"], ".-", color=colour, linewidth=1.2, label=name)
            mine, plugin = by_time[str(t)]["map"], by_time[str(t)]["plug-in"]
            axes.loglog(mine["nfe"], mine["rmse"], "D-", color=MAP, linewidth=2.2, markersize=5, label="Diamond Map")
            axes.loglog(plugin["nfe"], plugin["rmse"], "*", color=PLUGIN, markersize=13, label="plug-in r(D(x))")
            floor = figures["reference error"][reward][str(t)]
            axes.axhline(floor, color="#9ca3af", linestyle=":", label="reference's own")
            axes.set_title(f"{titles[reward]}, t = {t:g}", fontsize=10.5)
            axes.yaxis.set_minor_formatter(lambda value, place: "")
        row[0].set_ylabel("RMSE of the value", fontsize=9.5)
    for axes in panels[-1]:
        axes.set_xlabel("network calls an estimate", fontsize=9.5)
    handles, names = panels[0, -1].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8.5, ncols=len(names), loc="outside lower center")
    return figure


def reward_plot(tasks: dict[str, Any], titles: dict[str, str], judged: dict[str, tuple[str, str]]) -> Figure:
    """Above, reward against NFE a population; below, what the judge says of the same pictures.

    Arguments:
        tasks: by task and budget, the figures by method.
        titles: of the tasks.
        judged: for each task, the measure that is drawn below and its name.
    """
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    panels = figure.subplots(2, len(tasks), sharex=True, squeeze=False)
    for (above, below), (task, budgets) in zip(panels.T, tasks.items(), strict=True):
        measure, label = judged[task]
        for method in METHODS:
            rows = [figures[method] for figures in budgets.values()]
            points = [row["nfe"] for row in rows]
            for axes, values in ((above, [r["reward"] for r in rows]), (below, [r["measures"][measure] for r in rows])):
                if method == BASE:
                    level = sum(v["mean"] for v in values) / len(values)
                    axes.axhline(level, color=COLOURS[method], linestyle="--", linewidth=1.3, label=method)
                    continue
                axes.errorbar(
                    points, [v["mean"] for v in values], [v["error"] for v in values], label=method, capsize=2,
                    color=COLOURS[method], marker=MARKERS[method], markersize=5.5, linewidth=1.5,
                )  # fmt: skip
        for axes in (above, below):
            _tidy(axes)
            axes.set_xscale("log", base=2)
            _plain(axes, list(map(int, budgets)))
        above.set_title(titles[task], fontsize=10.5)
        above.set_ylabel("reward of the picture", fontsize=9.5)
        below.set_ylabel(label, fontsize=9.5)
        below.set_xlabel("NFE a population", fontsize=9.5)
        if above.get_ylim()[0] < -100:  # steep: as a logarithm of what is lost
            above.set_yscale("symlog", linthresh=10)
            _plain(above, [-400, -200, -100, -50, -20, -10, -5], "y")
    panels[0, 0].legend(frameon=False, fontsize=8.5, loc="center right")
    return figure


def ess_plot(figures: dict[str, Any], titles: dict[str, str]) -> Figure:
    """Effective sample size over the steps of SMC, one panel a task, one line a look-ahead."""
    colours = ("#fdba74", MAP, PLUGIN, "#6b7280")
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    panels = figure.subplots(1, len(figures), sharey=True, squeeze=False)[0]
    for axes, (task, runs) in zip(panels, figures.items(), strict=True):
        _tidy(axes)
        for (name, run), colour in zip(runs.items(), colours, strict=True):
            steps = range(1, len(run["share"]) + 1)
            ends = list(zip(run["share"], run["error"], strict=True))
            low, high = ([share + sign * 2 * error for share, error in ends] for sign in (-1, 1))
            axes.plot(steps, run["share"], "o-", color=colour, label=name, markersize=4)
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(0.5, color="#9ca3af", linestyle=":")
        axes.set(ylim=(0, 1.05), xticks=list(steps))
        axes.set_title(titles[task], fontsize=10.5)
        axes.set_xlabel("step", fontsize=9.5)
    panels[0].set_ylabel("effective share of particles", fontsize=9.5)
    panels[-1].legend(frameon=False, fontsize=8.5, title="look-ahead", title_fontsize=8.5)
    return figure
