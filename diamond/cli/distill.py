"""`diamond distill`: a Diamond Map from a flow model, or from data alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .interruption import resumable
from .models import classes_of, data_name, guided, load_model
from .options import Batch, DataName, LearningRate, Quiet, Resume, Root, Seed, model_file
from .outputs import check_file
from .training import (
    Accumulate,
    Ema,
    Flip,
    LabelDropout,
    LogWith,
    Optimizer,
    Precision,
    SampleEvery,
    SaveEvery,
    training_options,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TEACHERS", "distill"]

TEACHERS = ("Flow", "ClassifierFree", "GlassFlow", "GaussianMixtureFlow")


def distill(
    teacher: Annotated[
        Path | None,
        typer.Option(
            parser=model_file,
            metavar="FILE",
            help="File of the flow model, as diamond train writes it; or the name of one that ships.",
            show_default="needed, unless --supervision is data",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to save the map in.")] = Path("diamond.ckpt"),
    data: DataName = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Scale of the teacher's guidance by class labels, which one call of the map then has.",
            show_default="none",
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            help="What jumps between two times are asked for: trajectory (to end where the teacher's flow does), lsd "
            "(the Lagrangian identity), esd (Eulerian), psd (semigroup) or meanflow (that of the mean velocity).",
            show_default="trajectory; lsd by data alone",
        ),
    ] = "",
    supervision: Annotated[
        str,
        typer.Option(
            help="What tells the velocity: teacher; or data, where a teacher only gives the network to start from."
        ),
    ] = "teacher",
    weighting: Annotated[
        str | None,
        typer.Option(
            help="How samples count: adaptive (by their loss) or learned (by their times).", show_default="alike"
        ),
    ] = None,
    times: Annotated[str, typer.Option(help="Law of the times: uniform, logit-normal or early.")] = "early",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4000,
    batch: Batch = 256,
    learning_rate: LearningRate = 2e-3,
    off_diagonal: Annotated[
        float | None, typer.Option(help="Share of a batch that goes to such jumps.", show_default="the recipe's")
    ] = None,
    from_zero: Annotated[
        float | None, typer.Option(help="Share of the jumps that start from noise.", show_default="the recipe's")
    ] = None,
    to_one: Annotated[
        float | None, typer.Option(help="Share of the jumps that end in data.", show_default="the recipe's")
    ] = None,
    label_dropout: LabelDropout = 0.0,
    flip: Flip = False,
    accumulate: Accumulate = 1,
    ema: Ema = None,
    precision: Precision = None,
    optimizer: Optimizer = "adamw",
    save_every: SaveEvery = 1000,
    sample_every: SampleEvery = None,
    log_with: LogWith = None,
    seed: Seed = 0,
    root: Root = None,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Distil the GLASS flow of a teacher into a Diamond Map: posterior draws in one network call."""
    import distill as recipes

    from distill.objectives import MapObjective
    from distill.training.trainer import Schedule

    if guidance is not None and supervision == "data":
        raise ValueError(
            f"guidance: got {guidance:g} with supervision='data', where no teacher is asked; leave one out"
        )
    if teacher is None and supervision != "data":
        raise typer.BadParameter("got None, expected a file, or --supervision data", param_hint="--teacher")
    schedule: dict[str, Any] = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    schedule |= training_options(ema, precision, accumulate, optimizer)
    Schedule(**schedule)  # refuses bad settings before anything is read
    source = None if teacher is None else guided(load_model(teacher, "teacher", TEACHERS), guidance)
    options: dict[str, Any] = {
        "loss": loss, "off_diagonal": off_diagonal, "from_zero": from_zero, "to_one": to_one, "supervision": supervision,
        "weighting": weighting, "times": times,
    }  # fmt: skip
    MapObjective(source, **options)  # likewise
    check_file(out, "out", *_inputs(teacher, data, source))
    name, images, labels = _samples(data, source, root)
    origin: dict[str, Any] = {"data": name} if teacher is None else {"data": name, "teacher": str(teacher)}
    origin |= {} if guidance is None else {"guidance": guidance}
    with resumable(out, resume):
        recipes.distill(
            source, images, labels=labels, out=out, metadata=origin, label_dropout=label_dropout, flip=flip,
            save_every=save_every, sample_every=sample_every, log_with=log_with, progress=not quiet, resume=resume,
            **options, **schedule,
        )  # fmt: skip


def _inputs(teacher: Path | None, data: str | None, source: Any) -> list[Path]:
    """The files that are read: the teacher's, and that of data which are no data set by name."""
    from diamond.data import DATA_SETS

    name = data or getattr(source, "metadata", {}).get("data")
    files = [] if teacher is None else [teacher]
    return files if not isinstance(name, str) or name in DATA_SETS else [*files, Path(name)]


def _samples(data: str | None, teacher: Any, root: Path | None) -> tuple[str | None, Tensor | None, Tensor | None]:
    """The name, images and labels to noise; a mixture is sampled, unless data are named."""
    from diamond.data import load_data
    from diamond.mixture import GaussianMixtureFlow

    if teacher is None:
        if data is None:
            raise ValueError("data: got None and no teacher, whose file could name them, expected a data set")
        part = load_data(data, root=root)
        return part.name, part.images, None
    if data is None and isinstance(teacher, GaussianMixtureFlow):
        return None, None, None
    name = data_name(data, teacher, "the noisy states")
    part = load_data(name, root=root, size=teacher.metadata.get("size"))
    return part.name, part.images, part.labels if classes_of(teacher) else None
