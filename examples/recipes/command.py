"""The command line that all recipes share."""

from __future__ import annotations

import argparse
import json

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import diamond

from diamond import judges, weights
from diamond.cli.models import guided
from diamond.data import Data, load_data

from .card import ship
from .figures import TEACHER_STEPS, measure, save_grid
from .stage import Run
from .stages import Recipe, distil_map, refine_map, refined_name, train_teacher

__all__ = ["main"]

STAGES = ("teacher", "map", "refine", "card")
QUICK: dict[str, Any] = {"seconds": 6.0, "images": 64, "width": 16, "steps": 4}


def main(recipe: Recipe, description: str, minutes: float, arguments: Sequence[str] | None = None) -> None:
    """Runs the stages that the command line asks for, each from what the ones before left in the folder `--out`."""
    given = _parser(recipe, description, minutes).parse_args(arguments)
    recipe = _changed(recipe, given)
    if given.stage == "refine" and not recipe.refine:
        raise SystemExit(
            f"--stage: got refine, but the recipe of {recipe.data} has no refined map, expected another stage"
        )
    if len(given.refine_steps) > len(recipe.refine):
        raise SystemExit(
            f"--refine-steps: got {len(given.refine_steps)} numbers, expected at most one for each of "
            f"{len(recipe.refine)} rounds"
        )
    torch.set_float32_matmul_precision("high")
    out = given.out or Path("runs") / recipe.data
    out.mkdir(parents=True, exist_ok=True)
    seconds = QUICK["seconds"] if given.quick else 60 * given.minutes
    run = Run(out, seconds, (given.teacher_steps, given.map_steps, *given.refine_steps), given.seed, not given.quiet)
    stages = STAGES if given.stage == "all" else (given.stage,)
    if stages != ("card",):
        data = _data(recipe, "train", given)
        teacher = train_teacher(recipe, data, run, settled=given.stage in ("map", "refine"))
        if "map" in stages or "refine" in stages:
            model = distil_map(recipe, data, teacher, run)
            if "refine" in stages and recipe.refine:
                refine_map(recipe, data, teacher, model, run)
    if "card" in stages:
        _write_cards(recipe, out, given)


def _write_cards(recipe: Recipe, out: Path, given: argparse.Namespace) -> None:
    """Stores the models in half precision, measures what is stored, and writes cards, figures and pictures."""
    folder = Path(weights.__file__).parent if given.ship else out / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    names = {"map": recipe.data, "teacher": f"{recipe.data}-teacher"}
    rounds = [name for name in map(refined_name, range(len(recipe.refine))) if (out / f"{name}.ckpt").is_file()]
    files = {"map": rounds[-1] if rounds else "map", "teacher": "teacher"}
    trained = {stage: diamond.load(out / f"{files[stage]}.ckpt") for stage in names}
    stored = {}
    for stage, name in names.items():
        draft = out / f"{name}.half"
        diamond.checkpoint.save(trained[stage], draft, torch.float16)
        stored[stage] = diamond.load(draft, "cuda" if torch.cuda.is_available() else "cpu")
        draft.unlink()
    judge = judges.load(given.judge or recipe.data) if given.judge or recipe.data in judges.names() else None
    held_out = _data(recipe, "held-out", given)
    source = guided(stored["teacher"], stored["map"].metadata.get("guidance"))
    figures = measure(stored["map"], source, held_out, judge, states=recipe.states, quick=given.quick)
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for stage, model, steps in (("map", stored["map"], 1), ("teacher", source, TEACHER_STEPS)):
        steps, rows = (1, 2) if given.quick else (steps, 10)
        save_grid(model, held_out.classes, steps, out / f"{stage}.png", rows=rows)
        print(f"wrote {ship(trained[stage], names[stage], recipe, figures, folder)}")


def _data(recipe: Recipe, split: str, given: argparse.Namespace) -> Data:
    part = load_data(recipe.data, split=split, root=given.root)
    if not given.quick:
        return part
    rows = slice(0, QUICK["images"])
    return replace(part, images=part.images[rows], labels=None if part.labels is None else part.labels[rows])


def _changed(recipe: Recipe, given: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says."""
    width = given.width or (QUICK["width"] if given.quick else recipe.width)
    teacher, map_, shared = dict(recipe.teacher), dict(recipe.map), dict(recipe.shared)
    if given.quick:
        shared["compiled"] = False  # which takes a minute or more
    if given.batch:
        shared["batch"] = given.batch
    if given.precision:
        shared["precision"] = given.precision
    if given.loss:
        map_["loss"] = given.loss
    share = recipe.teacher_share if given.teacher_share is None else given.teacher_share
    most = 1 - recipe.refine_share * len(recipe.refine)
    if not 0 < share < most:
        raise SystemExit(f"--teacher-share: got {share:g}, expected above 0 and below {most:g}")
    features = {**recipe.features, "steps": QUICK["steps"]} if given.quick else recipe.features
    return replace(
        recipe, width=width, teacher=teacher, map=map_, shared=shared, features=features, teacher_share=share,
        guidance=recipe.guidance if given.guidance is None else given.guidance,
    )  # fmt: skip


def _parser(recipe: Recipe, description: str, minutes: float) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--minutes", type=float, default=minutes, help=f"time of training, by which steps are chosen; {minutes:g}")
    add(
        "--stage",
        choices=(*STAGES, "all"),
        default="all",
        help="teacher; map, from the teacher in --out; refine, from the map there; card; or all",
    )
    add("--out", type=Path, help=f"folder of the run, which goes on if it was interrupted; runs/{recipe.data}")
    add("--root", type=Path, help="folder of the data")
    add("--seed", type=int, default=0)
    add("--width", type=int, help=f"of the network; {recipe.width}")
    add("--batch", type=int, help="samples a step")
    add("--loss", help="of the map")
    add("--guidance", type=float, help="scale of the guidance by class that the map's teacher has")
    add("--teacher-share", type=float, help=f"of the time; {recipe.teacher_share:g}")
    add("--teacher-steps", type=int, help="instead of as many as fit into the time")
    add("--map-steps", type=int, help="likewise")
    add("--refine-steps", type=int, nargs="+", default=[], help="likewise, of each round")
    add("--precision", choices=("fp32", "bf16"), help="of the networks while they train")
    add("--judge", type=Path, help="file of a judge, where none ships for these data")
    add("--ship", action="store_true", help="write weights and cards into the package, not into --out")
    add("--quick", action="store_true", help="a few seconds on a few images: whether it runs")
    add("--quiet", action="store_true", help="no progress bar")
    return parser
