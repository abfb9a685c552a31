"""What a card tells of a map and its teacher: samples before a judge, and posteriors against the teacher's.

All of it on held-out data, from fixed seeds. A judge knows class and quality; it was trained on the same training split
and does not tell memorised data from new.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import diamond

from diamond.data import Data
from diamond.evaluation import JudgedData, distances_to, draw_references, equivalent_steps, sample_quality
from diamond.glass import GlassFlow
from diamond.labelled import Labelled

__all__ = ["measure", "save_grid"]

MAP_STEPS = (1, 2, 4, 8)
TEACHER_STEPS = 64
TIMES = (0.2, 0.4, 0.6, 0.8)
INNER_STEPS = (1, 2, 4, 8, 16, 32)
REFERENCE_STEPS = 128
SAMPLES = 2000
CHUNK = 500


def measure(
    model: diamond.DiamondMap,
    teacher: diamond.Flow,
    held_out: Data,
    judge: Any,
    *,
    states: int = 32,
    quick: bool = False,
) -> dict[str, Any]:
    """Figures of a map and its teacher on held-out data.

    Arguments:
        model, teacher: the two.
        held_out: the data, with labels.
        judge: of the samples; None for no figures of these.
        states: held-out images that are noised to ask for their posteriors.
        quick: figures that say no more than that they can be had.

    Returns:
        "samples": by sampler, what :func:`diamond.evaluation.sample_quality` gives, as many samples as there are
        held-out images, and 2000 at most, of the same classes. "posterior": by time, the number of steps of GLASS as
        published that the map's one call is worth, by the mean energy distance to GLASS with 128; and "posterior, fitted",
        of GLASS on the grid fitted to the posterior. And "guidance", the teacher's scale, if it is guided.
    """
    assert held_out.labels is not None
    figures: dict[str, Any] = {}
    if isinstance(teacher, diamond.ClassifierFree):
        figures["guidance"] = teacher.scale
    if judge is not None:
        figures["judge"] = judge.title
        figures["samples"] = _judged(_samplers(model, teacher), held_out, judge, model.device)
    rows = torch.randperm(len(held_out.images), generator=torch.Generator().manual_seed(0))[: 2 if quick else states]
    z, labels = held_out.images[rows].to(model.device), held_out.labels[rows].to(model.device)
    inner, flow = INNER_STEPS[: 2 if quick else None], Labelled(teacher, labels)
    references = draw_references(
        flow, z, TIMES, draws=4 if quick else 64, reference_steps=4 if quick else REFERENCE_STEPS,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    mine = distances_to(references, Labelled(model, labels)).mean(1).tolist()
    for name, grid in (("posterior", "uniform"), ("posterior, fitted", "posterior")):
        theirs = torch.stack([distances_to(references, GlassFlow(flow, k, grid=grid)).mean(1) for k in inner])
        figures[name] = {str(t): equivalent_steps(mine[i], inner, theirs[:, i].tolist()) for i, t in enumerate(TIMES)}
    return figures


def _samplers(model: diamond.DiamondMap, teacher: diamond.Flow) -> dict[str, tuple[Any, int, bool]]:
    """Models, steps, and whether classes are asked for, by name."""
    maps = {f"map, {k} step{'s' if k > 1 else ''}": (model, k, True) for k in MAP_STEPS}
    best = f"teacher, {TEACHER_STEPS} steps"
    free = {"map, 1 step, no class": (model, 1, False), f"{best}, no class": (teacher, TEACHER_STEPS, False)}
    return {best: (teacher, TEACHER_STEPS, True), **maps, **free}


@torch.no_grad()
def _judged(samplers: dict[str, tuple[Any, int, bool]], data: Data, judge: Any, device: torch.device) -> dict[str, Any]:
    judge = judge.to(device)
    labels = data.labels
    assert labels is not None
    parts = [JudgedData.of(judge, rows.to(device)) for rows in data.images.split(CHUNK)]
    known = JudgedData(torch.cat([part.features for part in parts]), labels.to(device))
    asked = labels[:SAMPLES].to(device)
    figures = {}
    for name, (model, steps, classes) in samplers.items():
        generator, samples = torch.Generator().manual_seed(0), []
        for rows in asked.split(CHUNK):
            cond = rows if classes else None
            samples.append(model.sample(len(rows), steps, cond=cond, generator=generator).clamp(-1, 1))
        figures[name] = sample_quality(judge, known, torch.cat(samples), asked if classes else None)
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
