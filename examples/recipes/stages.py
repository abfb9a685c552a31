"""The stages of every recipe: a class-conditional teacher; the Diamond Map of its GLASS flow; and, where a recipe says so,
a refined map, whose deeper network goes on from where the first one ended, in one round of training or several.

Labels are left out at random in both, so that the models sample with classes and without. A stage that was killed goes on
where it was; one whose time is up saves the moving average of the weights as they are, and goes on from there when it is
started again.
"""

from __future__ import annotations

import json
import time

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from torch import Tensor

import diamond
import distill

from diamond.checkpoint import read_tensors
from diamond.data import Data
from diamond.nets import Network, deepen, grow
from diamond.randomness import seeded

from .budget import Deadline, planned_steps
from .features import features_of

__all__ = ["Recipe", "Run", "Stage", "distil_map", "machine", "refine_map", "refined_name", "train_teacher"]


@dataclass(frozen=True)
class Recipe:
    """How the models of one data set are made.

    Attributes:
        data: the data set, and the name of the map; the teacher's is `DATA-teacher`.
        source: the data's origin and licence, for the card.
        network: makes the teacher's network from images `(N, C, H, W)`, the number of classes, and a width.
        width: of the network.
        teacher, map: arguments of `distill.train_flow` and `distill.distill`; of the latter, "perceptual" and "law" are the
            weights of :class:`distill.Perceptual`.
        blocks: of the refined map's network; None for no refined map.
        refine: arguments of `distill.distill` for each round of it, beside those of `map`.
        features: arguments of :func:`examples.recipes.features.features_of`, for the perceptual distance.
        teacher_share, refine_share: shares of the time that go to the teacher, and to each round.
        shared: arguments of both.
        states: noisy images at which posteriors are compared for the card.
        save_every: steps between two states of a run.
    """

    data: str
    source: str
    network: Callable[[Tensor, int, int], Network]
    width: int
    teacher: dict[str, Any] = field(default_factory=dict)
    map: dict[str, Any] = field(default_factory=dict)
    blocks: int | tuple[int, ...] | None = None
    refine: tuple[dict[str, Any], ...] = ()
    features: dict[str, Any] = field(default_factory=dict)
    teacher_share: float = 0.3
    refine_share: float = 0.0
    shared: dict[str, Any] = field(default_factory=lambda: {"label_dropout": 0.1})
    states: int = 8
    save_every: int = 250


@dataclass(frozen=True)
class Run:
    """Where and how long a recipe runs.

    Attributes:
        out: the folder of the models, their plans, states and metrics.
        seconds: for all stages together.
        steps: of the teacher, of the map and of the rounds that refine it; None, and for rounds left out, as many as fit.
        seed: of everything random.
        progress: whether to show bars.
    """

    out: Path
    seconds: float
    steps: tuple[int | None, ...] = (None, None)
    seed: int = 0
    progress: bool = True


def train_teacher(recipe: Recipe, data: Data, run: Run, settled: bool = False) -> diamond.Flow:
    """The flow model, kept in `teacher.ckpt`; one that is there is taken as it is once `settled`, or a map was begun."""

    def network() -> Network:
        with seeded(run.seed):
            return recipe.network(data.images, data.classes, recipe.width)

    images = data.images.cuda() if torch.cuda.is_available() else data.images  # a GPU would wait for batches

    def train(**given: Any) -> diamond.Flow:
        settings = {"save_every": recipe.save_every, **recipe.shared, **recipe.teacher, **given}
        return distill.train_flow(images, network(), labels=data.labels, seed=run.seed, **settings)

    stage = Stage("teacher", train, lambda: diamond.Flow(network()), {"data": recipe.data})
    settled = settled or any(run.out.glob("map.ckpt*"))
    return stage.model(run, recipe.teacher_share * run.seconds, run.steps[0], settled)


def distil_map(recipe: Recipe, data: Data, teacher: diamond.Flow, run: Run) -> diamond.DiamondMap:
    """The Diamond Map of the teacher, kept in `map.ckpt`."""

    def train(**given: Any) -> diamond.DiamondMap:
        settings = _with_features(
            {"save_every": recipe.save_every, **recipe.shared, **recipe.map, **given}, recipe, data, run
        )
        return distill.distill(teacher, data.images, labels=data.labels, seed=run.seed, **settings)

    def empty() -> diamond.DiamondMap:
        return diamond.DiamondMap(grow(teacher.net, states=1, times=3), teacher.interpolant, teacher.event_shape)

    stage = Stage("map", train, empty, {"data": recipe.data, "teacher": f"{recipe.data}-teacher"})
    settled = any(run.out.glob("refined.ckpt*"))
    share = 1 - recipe.teacher_share - recipe.refine_share * len(recipe.refine)
    return stage.model(run, share * run.seconds, run.steps[1], settled)


def refine_map(
    recipe: Recipe, data: Data, teacher: diamond.Flow, first: diamond.DiamondMap, run: Run
) -> diamond.DiamondMap:
    """The map of the teacher by a deeper network, which begins as the `first` map's; kept in `refined.ckpt`, and what
    further rounds make of it in `refined-2.ckpt` and so on."""
    for index in range(len(recipe.refine)):
        first = _refined_once(recipe, data, teacher, first, run, index)
    return first


def _refined_once(
    recipe: Recipe, data: Data, teacher: diamond.Flow, first: diamond.DiamondMap, run: Run, index: int
) -> diamond.DiamondMap:
    def network() -> Network:
        with seeded(run.seed):
            return deepen(first.net, recipe.blocks or 1)

    def train(**given: Any) -> diamond.DiamondMap:
        settings = {"save_every": recipe.save_every, **recipe.shared, **recipe.map, **recipe.refine[index], **given}
        settings = _with_features(settings, recipe, data, run)
        seed = run.seed + index  # each further round meets other batches
        return distill.distill(teacher, data.images, network(), labels=data.labels, seed=seed, **settings)

    def empty() -> diamond.DiamondMap:
        return diamond.DiamondMap(network(), teacher.interpolant, teacher.event_shape)

    before = [*first.metadata.get("before", []), {name: first.metadata[name] for name in ("steps", "seed", "minutes")}]
    known = {"data": recipe.data, "teacher": f"{recipe.data}-teacher", "before": before}
    planned = [*run.steps[2:], *[None] * len(recipe.refine)][index]
    stage = Stage(refined_name(index), train, empty, known)
    settled = any(run.out.glob(f"{refined_name(index + 1)}.ckpt*"))
    return stage.model(run, recipe.refine_share * run.seconds, planned, settled)


def _with_features(settings: dict[str, Any], recipe: Recipe, data: Data, run: Run) -> dict[str, Any]:
    """The settings of a map, with what its perceptual distance looks with, where it has one."""
    if "perceptual" not in settings:
        return settings
    features = features_of(data, run.out / "features.safetensors", run.seed, **recipe.features)
    seen = distill.Perceptual(features, settings["perceptual"], settings.get("law", 0.0))
    return {**{name: value for name, value in settings.items() if name != "law"}, "perceptual": seen}


def refined_name(index: int) -> str:
    """Of the file after round `index`, counted from 0."""
    return f"refined-{index + 1}" if index else "refined"


@dataclass(frozen=True)
class Stage:
    """One training, and what it leaves in `NAME.ckpt`.

    Attributes:
        name: of the file.
        train: trains a model, given `steps`, `metadata`, `out` and `progress`.
        empty: makes such a model with any weights.
        metadata: what the file notes.
    """

    name: str
    train: Callable[..., Any]
    empty: Callable[[], Any]
    metadata: dict[str, Any]

    def model(self, run: Run, seconds: float, steps: int | None, settled: bool = False) -> Any:
        """The model, trained in `steps` steps, or in as many as fit into the time; or read, if it is there and `settled`,
        or trained to the end."""
        out, began = run.out / f"{self.name}.ckpt", time.perf_counter()
        state = Path(f"{out}.state")
        if out.is_file() and (settled or not state.is_file()):
            return self._timed(diamond.load(out), out)
        limit: Any = nullcontext()
        if steps is None:
            steps = planned_steps(out.with_suffix(".plan.json"), seconds, self._tried)
            limit = Deadline(max(1.0, seconds - (time.perf_counter() - began)))
        try:
            with limit:
                model = self.train(steps=steps, out=out, metadata=self.metadata, progress=run.progress)
        except KeyboardInterrupt:
            if not getattr(limit, "passed", False):
                raise
            if not state.is_file() and not out.is_file():
                raise SystemExit(f"{self.name}: time is up before its first step; give more --minutes") from None
            model = self._salvaged(state) if state.is_file() else diamond.load(out)
        return self._timed(model, out)

    def _tried(self, steps: int, timed: int) -> float:
        """Trains a model for some steps, and gives the seconds that the last of them took."""
        with TemporaryDirectory() as folder:
            out = Path(folder) / f"{self.name}.ckpt"
            self.train(steps=steps, out=out, progress=False, log_every=steps - timed)
            return _seconds_of(out) - _seconds_of(out, 0)

    def _timed(self, model: Any, out: Path) -> Any:
        """The model in `out`, which notes how long it took and where, even if a kill came before that was written."""
        if "minutes" not in model.metadata:
            model.metadata |= {"minutes": round(_seconds_of(out) / 60, 1), "machine": machine()}
            model.save(out)
        return diamond.load(out)

    def _salvaged(self, state: Path) -> Any:
        """A model with the first moving average in the state of a run whose time is up."""
        tensors, header = read_tensors(state)
        weights: dict[str, Tensor] = {}
        for start in ("model.", "average.0."):
            weights |= {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        model, settings = self.empty(), header["settings"]
        model.load_state_dict(weights)
        done = {"steps": header["step"], "planned_steps": settings["steps"], "seed": settings["seed"]}
        model.metadata = {**self.metadata, **done}
        print(f"{self.name}: time is up after {header['step']} of {settings['steps']} steps", flush=True)
        return model


def _seconds_of(out: Path, line: int = -1) -> float:
    """How long a model was trained, over all starts, as a line of its metrics tells; 0 where time was up before the first."""
    rows = Path(f"{out}.metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(rows[line])["seconds"] if rows else 0.0


def machine() -> str:
    """What kind of machine this is, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}"
