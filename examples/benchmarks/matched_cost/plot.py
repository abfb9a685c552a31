"""The plot: errors against network evaluations on the mixtures, and what was made of the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["draw"]

DRAWN = {
    "importance (best-of-N)": "#888888",
    "SMC": "#9ecae1",
    "SMC, tempered": "#3182bd",
    "SMC, lookahead, tempered": "#08306b",
    "FKS (SMC, plug-in value)": "#e6550d",
    "FMTT (SMC, flow map value)": "#fdae6b",
    "guidance": "#31a354",
    "guidance, SDE": "#a1d99b",
    "DPS (plug-in guidance)": "#756bb1",
    "search": "#d62728",
}
ERRORS = {"mean": "error of the mean", "log z, root mean square": "error of log Z"}
MODELS = {"map": "o", "GLASS-8": "s", "plug-in": "v", "flow map": "^", "weighted": "D"}  # on the digits

EDGE = 1.5  # of the diversity shown


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes the plot to `path`, a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    problems = [name for name in dict.fromkeys(row["problem"] for row in rows) if name.startswith("d = ")]
    digits = [row for row in rows if row["problem"] == "digits" and row["currency"] == "nfe"]
    figure, axes = pyplot.subplots(
        2, len(problems) + bool(digits), figsize=(3.1 * (len(problems) + bool(digits)), 6.2), squeeze=False
    )
    for column, problem in enumerate(problems):
        for axis, (key, label) in zip(axes[:, column], ERRORS.items(), strict=True):
            _curves(axis, [row for row in rows if row["problem"] == problem], key)
            axis.set_title(f"{problem}, on the map" if key == "mean" else "", fontsize=10)
            axis.set_ylabel(label if column == 0 else "", fontsize=9)
            axis.set_xlabel("" if key == "mean" else "network evaluations a population", fontsize=8)
    if digits:
        _scatter(axes[0, -1], digits, "diversity", "agrees", "judge agrees")
        _scatter(axes[1, -1], digits, "diversity", "frechet", "Frechet distance")
        axes[0, -1].set_title("digits, equal NFE", fontsize=10)
        axes[1, -1].set_yscale("log")
        axes[1, -1].set_xlabel(f"diversity, at most {EDGE:g}", fontsize=8)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    marks = [pyplot.Line2D([], [], color=color, marker="o", ms=4) for color in DRAWN.values()]
    marks += [pyplot.Line2D([], [], color="black", marker=mark, ms=4, lw=0) for mark in MODELS.values()]
    figure.legend(marks, [*DRAWN, *MODELS], loc="lower center", ncols=5, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _curves(axis: Any, rows: list[dict[str, Any]], key: str) -> None:
    from matplotlib.ticker import LogLocator

    for method, color in DRAWN.items():
        found = [
            row
            for row in rows
            if (row["model"], row["method"], row["currency"]) == ("map", method, "nfe") and key in row["figures"]
        ]
        found.sort(key=lambda row: row["budget"])
        axis.errorbar(
            [row["budget"] for row in found],
            [row["figures"][key]["mean"] for row in found],
            [row["figures"][key]["error"] for row in found],
            color=color, marker="o", ms=3, lw=1.2,
        )  # fmt: skip
    budgets = sorted({row["budget"] for row in rows if row["currency"] == "nfe"})
    axis.set(xscale="log", yscale="log", xticks=budgets, xticklabels=budgets)
    axis.minorticks_off()
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter("{x:g}")


def _scatter(axis: Any, rows: list[dict[str, Any]], across: str, up: str, label: str) -> None:
    for row in rows:
        if row["method"] in DRAWN:
            x, y = row["figures"][across], row["figures"][up]
            axis.errorbar(
                min(x["mean"], EDGE), y["mean"], y["error"], x["error"], color=DRAWN[row["method"]], lw=0.8,
                marker=MODELS.get(row["model"], "o"), ms=4,
            )  # fmt: skip
    axis.set_ylabel(label, fontsize=9)
