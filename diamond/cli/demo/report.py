"""From figures to files: the PNGs, `report.json` and `report.html`."""

from __future__ import annotations

import io
import json

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from . import alignments_story as aligned
from . import models_story as made
from . import pictures, plots
from .page import page
from .tasks import Task
from .tasks_story import task_story
from .wording import LABELS

__all__ = ["Shown", "draw_pictures", "write_report"]

DOTS = 140  # an inch
JUDGED = {
    "class": ("agrees", "judge agrees"),
    "symmetry": ("nearest", "distance to nearest digit"),
    "inpainting": ("error", "error on the hidden half"),
}
Shown = dict[str, Any]  # what pictures need besides figures: "samples", "posteriors", and by task its rows of pictures


def draw_pictures(figures: dict[str, Any], shown: Shown, tasks: list[Task]) -> dict[str, bytes]:
    """All pictures as PNG files, by name, in the order of the report."""
    calls = figures["samples"]["calls a sample"]["teacher"]
    titles = {"data": "real digits", "teacher": f"teacher, {calls} calls", "map, 1 step": "Diamond Map, 1 call"}
    drawn = {
        "samples": pictures.sample_grids(shown["samples"], titles),
        "posteriors": pictures.posterior_draws(shown["posteriors"], figures["posteriors"]["calls"]),
        "distances": plots.distance_plot(figures["distances"]),
        "values": plots.value_plot(figures["values"], LABELS),
    }
    for task in tasks:
        rows: dict[str, Tensor] = {**task.shown, **shown[task.name]}
        drawn[f"task-{task.name}"] = pictures.alignment_rows(rows, task.targets, above=len(task.shown))
    drawn["rewards"] = plots.reward_plot(figures["tasks"], LABELS, JUDGED)
    drawn["ess"] = plots.ess_plot(figures["ess"], LABELS)
    return {name: _png(figure) for name, figure in drawn.items()}


def write_report(report: dict[str, Any], drawn: dict[str, bytes], out: Path) -> Path:
    """Writes the pictures, `report.json` and `report.html` to `out`, and returns the last one's path."""
    figures = report["figures"]
    for name, png in drawn.items():
        (out / f"{name}.png").write_bytes(png)
    html = page(
        "Diamond Maps on handwritten digits",
        made.introduction(report),
        made.samples_story(figures["samples"], drawn["samples"]),
        made.posteriors_story(figures["posteriors"], drawn["posteriors"]),
        made.distances_story(figures["distances"], drawn["distances"]),
        made.values_story(figures["values"], drawn["values"]),
        aligned.matched_cost(report),
        *(task_story(report, task, drawn[f"task-{task}"]) for task in figures["tasks"]),
        aligned.rewards_story(report, drawn["rewards"]),
        aligned.ess_story(report, drawn["ess"]),
        aligned.takeaways(report),
    )
    (out / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    path = out / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    # tight: labels beside pictures of equal sides are left out of the layout's account
    figure.savefig(file, format="png", dpi=DOTS, facecolor="white", bbox_inches="tight", pad_inches=0.06)
    return file.getvalue()
