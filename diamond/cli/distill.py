"""`diamond distill`: a Diamond Map from a flow model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .interruption import resumable
from .models import classes_of, data_name, load_model
from .options import Batch, DataName, LearningRate, Quiet, Resume, Root, Seed
from .outputs import check_file

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TEACHERS", "distill"]

TEACHERS = ("Flow", "GlassFlow", "GaussianMixtureFlow")


def distill(
    teacher: Annotated[Path, typer.Option(help="File of the flow model, as diamond train writes it.")],
    out: Annotated[Path, typer.Option(help="File to save the map in.")] = Path("diamond.ckpt"),
    data: DataName = None,
    loss: Annotated[
        str, typer.Option(help="What holds off the diagonal: lsd (Lagrangian identity) or trajectory.")
    ] = "lsd",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4000,
    batch: Batch = 256,
    learning_rate: LearningRate = 2e-3,
    off_diagonal: Annotated[
        float | None, typer.Option(help="Share of a batch that goes to it.", show_default="the recipe's")
    ] = None,
    from_zero: Annotated[
        float | None, typer.Option(help="Share of that which starts from noise.", show_default="the recipe's")
    ] = None,
    seed: Seed = 0,
    root: Root = None,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Distil the GLASS flow of a teacher into a Diamond Map: posterior draws in one network call."""
    import distill as recipes

    from distill.trainer import Schedule

    schedule: dict[str, Any] = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    Schedule(**schedule)  # refuses bad settings before anything is read
    source = load_model(teacher, "teacher", TEACHERS)
    check_file(out, "out", teacher)
    name, images, labels = _samples(data, source, root)
    shares = {"off_diagonal": off_diagonal, "from_zero": from_zero}
    schedule |= {name: share for name, share in shares.items() if share is not None}
    with resumable(out, resume):
        recipes.distill(
            source, images, loss=loss, labels=labels, out=out, metadata={"data": name, "teacher": str(teacher)},
            progress=not quiet, resume=resume, **schedule,
        )  # fmt: skip


def _samples(data: str | None, teacher: Any, root: Path | None) -> tuple[str | None, Tensor | None, Tensor | None]:
    """The name, images and labels to noise; a mixture is sampled, unless data are named."""
    from diamond.data import load_data
    from diamond.mixture import GaussianMixtureFlow

    if data is None and isinstance(teacher, GaussianMixtureFlow):
        return None, None, None
    part = load_data(data_name(data, teacher, "the noisy states"), root=root)
    return part.name, part.images, part.labels if classes_of(teacher) else None
