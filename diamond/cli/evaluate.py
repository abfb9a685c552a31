"""`diamond eval`: how good a Diamond Map is, as a sampler of posteriors, of transitions, and of data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .models import classes_of, data_name, device_named, guided, load_model
from .options import DataName, Device, ModelFile, Quiet, Root, Seed, model_file
from .outputs import check_file, say_wrote, write_json

if TYPE_CHECKING:
    import torch

    from diamond.data import Data
    from diamond.judges import Classifier
    from diamond.model import Model

__all__ = ["evaluate"]

LEAST = 16  # samples of each kind, and training images, that figures can be made of


def evaluate(
    model: ModelFile,
    teacher: Annotated[
        Path | None,
        typer.Option(
            parser=model_file,
            metavar="FILE",
            help="File of the flow it was distilled from.",
            show_default="what the map's file names",
        ),
    ] = None,
    data: DataName = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Who judges samples: a name, a judge's file, or one of published weights of CIFAR's ResNets.",
            show_default="the one that ships for the data",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File for the figures; plots go beside it.")] = Path("eval.json"),
    draws: Annotated[int | None, typer.Option(help="Posterior draws per state.", show_default="256; quick: 64")] = None,
    states: Annotated[
        int | None, typer.Option(help="Held-out samples, each noised to each time.", show_default="16; quick: 8")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples of each kind.", show_default="2000; quick: 400")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer of everything: rough, but soon done.")] = False,
    root: Root = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Measure a map: posteriors and values against its teacher's GLASS flow, calibration, transitions, samples."""
    from diamond.validation import check_positive

    from .evaluation import FULL, QUICK, draw_plots, evaluate_all, print_tables

    check_file(out, "out", model)
    usual = QUICK if quick else FULL
    sizes = replace(
        usual,
        draws=check_positive("draws", usual.draws if draws is None else draws, least=2),
        states=check_positive("states", usual.states if states is None else states),
        samples=check_positive("samples", usual.samples if samples is None else samples, least=LEAST),
    )
    subject, source = _subject(model, teacher, data, judge, root, seed, device_named(device))
    figures = {
        "model": str(model), "teacher": str(source), "data": subject.train.name, "seed": seed, "draws": sizes.draws,
        "states": min(sizes.states, len(subject.held_out.images)), "times": list(sizes.times),
        "reference_steps": sizes.reference_steps, **evaluate_all(subject, sizes, progress=not quiet),
    }  # fmt: skip
    write_json(out, figures)
    plots = draw_plots(figures, out)
    print_tables(figures)
    say_wrote(out, *plots)


def _subject(
    model: Path,
    teacher: Path | None,
    data: str | None,
    judge: str | None,
    root: Path | None,
    seed: int,
    place: torch.device,
) -> tuple[Any, Path]:
    """What is evaluated, and the teacher's file."""
    from diamond.data import load_data

    from .distill import TEACHERS
    from .evaluation import Subject

    student = load_model(model, "model", ("DiamondMap",), place)
    file = _teacher_of(student, teacher)
    source = load_model(file, "teacher", TEACHERS, place)
    source = guided(source, student.metadata.get("guidance"))
    source = getattr(source, "flow", source)  # GLASS looks at a flow
    _check_pair(student, source)
    name, size = data_name(data, student, "the noisy states"), student.metadata.get("size")
    train, held_out = (
        _moved(load_data(name, split=part, root=root, size=size), place) for part in ("train", "held-out")
    )
    if tuple(train.images.shape[1:]) != student.event_shape:
        raise ValueError(
            f"data: {train.name} has images of shape {tuple(train.images.shape[1:])}, expected {student.event_shape}"
        )
    if len(train.images) < LEAST:
        raise ValueError(f"data: {train.name} has {len(train.images)} training images, expected {LEAST} or more")
    if classes_of(student) and train.labels is None:
        raise ValueError(f"data: {train.name} holds no labels, but the model is conditional and expects them")
    jury = _judge_of(judge, train, place)
    return Subject(student, source, train, held_out, jury, bool(classes_of(student)), seed), file


def _teacher_of(student: Model, given: Path | None) -> Path:
    from diamond.weights import locate

    if given is not None:
        return given
    named = student.metadata.get("teacher")
    if isinstance(named, str) and locate(named).is_file():
        return Path(named)
    where = f"the map's file names {named!r}, which is not here" if named else "the map's file names none"
    raise ValueError(f"teacher: got None and {where}, expected the file of the flow it was distilled from")


def _check_pair(student: Model, teacher: Model) -> None:
    mine, theirs = ((m.interpolant.name, m.event_shape, classes_of(m)) for m in (student, teacher))
    if mine != theirs:
        raise ValueError(f"teacher: its path, event shape and classes are {theirs}, expected the map's, {mine}")


def _judge_of(given: str | None, data: Data, place: torch.device) -> Classifier | None:
    """The judge that the user named, or the one that ships for the data, if there is one."""
    from diamond import judges

    name = given or (data.name if data.name in judges.names() else None)
    if name is None:
        return None
    judge = judges.load(name, place)
    if judge.event_shape != tuple(data.images.shape[1:]) or judge.classes < data.classes:
        raise ValueError(
            f"judge: {name} judges images {judge.event_shape} of {judge.classes} classes, "
            f"expected {tuple(data.images.shape[1:])} and {data.classes}, those of {data.name}"
        )
    return judge


def _moved(data: Data, place: torch.device) -> Data:
    from dataclasses import replace

    return replace(data, images=data.images.to(place), labels=None if data.labels is None else data.labels.to(place))
