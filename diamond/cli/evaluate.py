"""`diamond eval`: how good a Diamond Map's posteriors are, and the values estimated from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .models import classes_of, data_name, device_named, load_model
from .options import DataName, Device, Quiet, Root, Seed
from .outputs import check_file, say_wrote, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from diamond.model import Model

__all__ = ["evaluate", "posterior_quality"]

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
GLASS_STEPS = (1, 2, 4, 8, 16, 32)
DEVIATION = 1.0  # of the rewards over the data: a value is then off by about one where nothing is known of z


def evaluate(
    model: Annotated[Path, typer.Option(help="File of the Diamond Map.")],
    teacher: Annotated[
        Path | None,
        typer.Option(help="File of the flow it was distilled from.", show_default="what the map's file names"),
    ] = None,
    data: DataName = None,
    out: Annotated[Path, typer.Option(help="File for the figures.")] = Path("eval.json"),
    draws: Annotated[int, typer.Option(help="Posterior draws per state; twice that for the true values.")] = 256,
    states: Annotated[int, typer.Option(help="Held-out samples, each noised to each time.")] = 16,
    root: Root = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Compare a map's posteriors and values with those of its teacher's GLASS flow, at many inner steps."""
    import torch

    from tqdm.auto import tqdm

    from align.rewards import Brightness, Symmetry
    from diamond.data import load_data
    from diamond.validation import check_positive

    from .distill import TEACHERS
    from .labelled import Labelled
    from .value_error import standardised, value_errors

    check_file(out, "out", model)
    check_positive("draws", draws, least=2), check_positive("states", states)
    place = device_named(device)
    student = load_model(model, "model", ("DiamondMap",), place)
    teacher = _teacher_of(student, teacher)
    source = load_model(teacher, "teacher", TEACHERS, place)
    source = getattr(source, "flow", source)
    _check_pair(student, source)
    part = load_data(data_name(data, student, "the noisy states"), split="held-out", root=root)
    if tuple(part.images.shape[1:]) != student.event_shape:
        raise ValueError(
            f"data: {part.name} has images of shape {tuple(part.images.shape[1:])}, expected {student.event_shape}"
        )
    rows = torch.randperm(len(part.images), generator=torch.Generator().manual_seed(seed))[:states]
    z = part.images[rows].to(place)
    if classes_of(student):
        labels = _labels_of(part.labels, rows, part.name).to(place)
        student, source = Labelled(student, labels), Labelled(source, labels)
    quality = posterior_quality(student, source, z, draws, seed, progress=not quiet)
    rewards = {"brightness": Brightness(), "symmetry": Symmetry()}
    scaled = {name: standardised(reward, part.images.to(place), DEVIATION) for name, reward in rewards.items()}
    times = tqdm(TIMES, desc="values", unit="time", disable=quiet, dynamic_ncols=True)
    errors = value_errors(student, source, scaled, z, times, draws=2 * draws, seed=seed)
    figures = {
        "model": str(model), "teacher": str(teacher), "data": part.name, "draws": draws, "states": len(z), "seed": seed,
        "times": TIMES, "posterior": quality, "value": {"mc": 16, "reward_deviation": DEVIATION, "rmse": errors},
    }  # fmt: skip
    write_json(out, figures)
    _print_tables(quality, errors)
    say_wrote(out)


def posterior_quality(model: Any, teacher: Model, z: Tensor, draws: int, seed: int, progress: bool) -> dict[str, Any]:
    """Energy distances to GLASS-128, one for each of `TIMES`, their mean over the data `z` `(B, *event)`; and the
    number of GLASS steps that would come as close as the map's one call."""
    import torch

    from tqdm.auto import tqdm

    from diamond.evaluation import equivalent_steps, glass_distances

    times: Any = tqdm(TIMES, desc="posteriors", unit="time", disable=not progress, dynamic_ncols=True)
    found = glass_distances(
        model, teacher, z, times, draws=draws, steps=GLASS_STEPS, generator=torch.Generator().manual_seed(seed)
    )
    mine, theirs = found["map"].mean(1).tolist(), found["glass"].mean(2)
    return {
        "energy_distance": {"map": mine, **{f"GLASS-{k}": theirs[i].tolist() for i, k in enumerate(GLASS_STEPS)}},
        "equivalent_steps": [
            equivalent_steps(distance, GLASS_STEPS, theirs[:, i].tolist()) for i, distance in enumerate(mine)
        ],
    }


def _teacher_of(student: Model, given: Path | None) -> Path:
    if given is not None:
        return given
    named = student.metadata.get("teacher")
    if isinstance(named, str) and Path(named).is_file():
        return Path(named)
    where = f"the map's file names {named!r}, which is not here" if named else "the map's file names none"
    raise ValueError(f"teacher: got None and {where}, expected the file of the flow it was distilled from")


def _check_pair(student: Model, teacher: Model) -> None:
    mine, theirs = ((m.interpolant.name, m.event_shape, classes_of(m)) for m in (student, teacher))
    if mine != theirs:
        raise ValueError(f"teacher: its path, event shape and classes are {theirs}, expected the map's, {mine}")


def _labels_of(labels: Tensor | None, rows: Tensor, name: str) -> Tensor:
    if labels is None:
        raise ValueError(f"data: {name} holds no labels, but the model is conditional and expects them")
    return labels[rows]


def _print_tables(quality: dict[str, Any], errors: dict[str, dict[str, list[float]]]) -> None:
    from rich.console import Console

    rows = {**quality["energy_distance"], "map: GLASS steps": quality["equivalent_steps"]}
    Console().print(_table("energy distance to GLASS-128", rows, "{:.4f}"))
    for name, found in errors.items():
        Console().print(_table(f"value error, {name} (RMSE, 16 draws)", found, "{:.3f}"))


def _table(title: str, rows: Mapping[str, Sequence[float]], shown: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in ("", *(f"t={t:g}" for t in TIMES)):
        table.add_column(heading, justify="right" if heading else "left")
    for name, values in rows.items():
        table.add_row(name, *(("{:.1f}" if "steps" in name else shown).format(value) for value in values))
    return table
