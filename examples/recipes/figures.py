"""What a card tells of a map and its teacher: samples before a judge, and posteriors against the teacher's.

All of it on held-out data, from fixed seeds. A judge knows class and quality; it was trained on the same training split
and does not tell memorised data from new.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torch import Tensor

import diamond

from diamond.cli.labelled import Labelled
from diamond.data import Data
from diamond.evaluation import JudgedData, equivalent_steps, glass_distances, sample_quality

__all__ = ["measure", "save_grid"]

MAP_STEPS = (1, 2, 4, 8)
TEACHER_STEPS = 64
TIMES = (0.2, 0.4, 0.6, 0.8)
INNER_STEPS = (1, 2, 4, 8, 16, 32)
CHUNK = 500


def measure(
    model: diamond.DiamondMap, teacher: diamond.Flow, held_out: Data, judge: Any, *, states: int = 32, draws: int = 128
) -> dict[str, Any]:
    """Figures of a map and its teacher on held-out data; `judge` may be None, and then samples go without.

    Returns:
        "samples": by sampler, what :func:`diamond.evaluation.sample_quality` gives, as many samples as there are
        held-out images, of the same classes. "posterior": by time, the number of GLASS steps that the map's one call is
        worth, by the mean energy distance to GLASS with 128.
    """
    assert held_out.labels is not None
    figures: dict[str, Any] = {}
    if judge is not None:
        figures["judge"] = judge.title
        figures["samples"] = _judged(_samplers(model, teacher), held_out, judge, model.device)
    rows = torch.randperm(len(held_out.images), generator=torch.Generator().manual_seed(0))[:states]
    z, labels = held_out.images[rows].to(model.device), held_out.labels[rows].to(model.device)
    found = glass_distances(
        Labelled(model, labels), Labelled(teacher, labels), z, TIMES, draws=draws, steps=INNER_STEPS,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    mine, theirs = found["map"].mean(1).tolist(), found["glass"].mean(2)
    figures["posterior"] = {
        str(t): equivalent_steps(mine[i], INNER_STEPS, theirs[:, i].tolist()) for i, t in enumerate(TIMES)
    }
    return figures


Sampler = Callable[..., Tensor]  # labels `(n,)` or None, n, generator


def _samplers(model: diamond.DiamondMap, teacher: diamond.Flow) -> dict[str, tuple[Any, int, bool]]:
    """Models, steps, and whether classes are asked for, by name."""
    maps = {f"map, {k} step{'s' if k > 1 else ''}": (model, k, True) for k in MAP_STEPS}
    free = {"map, 1 step, no class": (model, 1, False)}
    return {f"teacher, {TEACHER_STEPS} steps": (teacher, TEACHER_STEPS, True), **maps, **free}


@torch.no_grad()
def _judged(samplers: dict[str, tuple[Any, int, bool]], data: Data, judge: Any, device: torch.device) -> dict[str, Any]:
    judge = judge.to(device)
    labels = data.labels
    assert labels is not None
    parts = [JudgedData.of(judge, rows.to(device)) for rows in data.images.split(CHUNK)]
    known = JudgedData(torch.cat([part.features for part in parts]), labels.to(device))
    figures = {}
    for name, (model, steps, classes) in samplers.items():
        generator, samples = torch.Generator().manual_seed(0), []
        for rows in labels.to(device).split(CHUNK):
            cond = rows if classes else None
            samples.append(model.sample(len(rows), steps, cond=cond, generator=generator).clamp(-1, 1))
        figures[name] = sample_quality(
            judge, known, torch.cat(samples), labels.to(device) if classes else None, rows=2000
        )
    return figures


@torch.no_grad()
def save_grid(model: Any, classes: int, steps: int, path: Path, *, rows: int = 10, seed: int = 0) -> None:
    """A picture of samples, a column for each of the first classes and a last one without a class."""
    from diamond.cli.pictures import picture

    columns = min(classes, 10)
    labels = torch.arange(columns + 1, device=model.device).repeat(rows)
    labels = torch.where(labels == columns, classes, labels)  # the label `classes` stands for none
    samples = model.sample(len(labels), steps, cond=labels, generator=torch.Generator().manual_seed(seed))
    picture(samples.reshape(rows, columns + 1, *samples.shape[1:])).save(path)
