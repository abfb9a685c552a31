"""`diamond demo`: the whole of Diamond Maps on real handwritten digits, told in a report.

A teacher is trained and distilled into a Diamond Map (`models`), both are measured (`quality`), three rewards steer the
map (`tasks`, `alignments`), and what came out is drawn (`pictures`, `plots`) and told (`models_story`,
`tasks_story`, `alignments_story`, `report`).
"""

from __future__ import annotations

import os
import platform
import time

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["run"]


def run(out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Runs the demo, writes models, pictures, `report.json` and `report.html` to the folder `out`, and returns what the
    JSON file holds.

    Arguments:
        out: the folder, made where it is missing.
        seed: of everything random.
        quick: with hardly any training and few draws, to see that all works.
    """
    from . import alignments, models, quality, report, tasks
    from .settings import FULL, QUICK

    settings = QUICK if quick else FULL
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    with clock("teacher", "a flow model learns the digits"):
        teacher = models.train_teacher(settings, out, seed)
    with clock("map", "a Diamond Map learns from its GLASS flow"):
        diamond_map = models.distil_map(teacher, settings, out, seed)
    with clock("judge", "a classifier to steer, and a judge to score"):
        cast = models.assemble(teacher, diamond_map, seed)
    figures: dict[str, Any] = {}
    shown: report.Shown = {}
    with clock("quality", "samples, posterior draws and values"):
        figures["samples"], shown["samples"] = quality.compare_samples(cast, settings)
        figures["posteriors"], shown["posteriors"] = quality.show_posteriors(cast, settings)
        figures["distances"] = quality.measure_distances(cast, settings)
        figures["values"] = quality.measure_values(cast, settings, tasks.value_rewards(cast))
    with clock("alignment", "three rewards, by every method"):
        three = tasks.make_tasks(cast, settings)
        figures["real digits"] = tasks.real_digits(cast, three[-1])
        figures["tasks"], figures["ess"] = {}, {}
        for task in three:
            figures["tasks"][task.name], shown[task.name] = alignments.run_task(cast, task, settings, progress=True)
            figures["ess"][task.name] = alignments.follow_ess(cast, task, settings)
        figures["full strength"] = alignments.full_strength(cast, three[-1], settings)
    with clock("pictures", "the pictures"):
        drawn = report.draw_pictures(figures, shown, three)
    content = {
        "seed": seed,
        "quick": quick,
        "machine": _machine(),
        "seconds": {**clock.seconds, "total": sum(clock.seconds.values())},
        "settings": asdict(settings),
        "data": {"name": "digits", "train": len(cast.train.images), "held out": len(cast.held_out.images)},
        "figures": figures,
        "pictures": [f"{name}.png" for name in drawn],
    }
    path = report.write_report(content, drawn, out)
    distances = figures["distances"]
    equal = ", ".join(f"{steps:.1f}" for steps in distances["equivalent steps"])
    fitted = ", ".join(f"{steps:.1f}" for steps in distances["equivalent steps, fitted"])
    at = ", ".join(f"{t:g}" for t in distances["times"])
    clock.console.print(
        f"One call of the map is worth {equal} steps of GLASS as published, at t = {at}, and {fitted} fitted ones.",
        highlight=False,
    )
    clock.console.print(f"The report is in {path}", highlight=False, soft_wrap=True)
    return content


class _Clock:
    """Says which part begins, and how long it took."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=False)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, title: str) -> Iterator[None]:
        self.console.print(f"[bold]{name}[/bold]: {title}", highlight=False)
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began
        self.console.print(f"[dim]{self.seconds[name]:.1f} s[/dim]", highlight=False)


def _machine() -> dict[str, Any]:
    import torch

    return {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
