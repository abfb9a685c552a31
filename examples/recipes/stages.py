"""The stages of every recipe: a class-conditional teacher; the Diamond Map of its GLASS flow; and, where a recipe says so,
a refined map, whose deeper network goes on from where the first one ended, in one round of training or several.

Labels are left out at random in both, so that the models sample with classes and without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from torch import Tensor

import diamond
import distill

from diamond.cli.models import guided
from diamond.data import Data
from diamond.nets import Network, deepen, grow
from diamond.randomness import seeded

from .features import features_of
from .stage import Run, Stage

__all__ = ["Recipe", "distil_map", "refine_map", "refined_name", "train_teacher"]


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
        guidance: the scale at which the map's teacher is guided; None for the teacher as it is.
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
    guidance: float | None = None
    teacher_share: float = 0.3
    refine_share: float = 0.0
    shared: dict[str, Any] = field(default_factory=lambda: {"label_dropout": 0.1})
    states: int = 8
    save_every: int = 250


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
        return distill.distill(
            guided(teacher, recipe.guidance), data.images, labels=data.labels, seed=run.seed, **settings
        )

    def empty() -> diamond.DiamondMap:
        return diamond.DiamondMap(grow(teacher.net, states=1, times=3), teacher.interpolant, teacher.event_shape)

    stage = Stage("map", train, empty, _origin(recipe))
    settled = any(run.out.glob("refined.ckpt*"))
    share = 1 - recipe.teacher_share - recipe.refine_share * len(recipe.refine)
    model = stage.model(run, share * run.seconds, run.steps[1], settled)
    if model.metadata.get("guidance") != recipe.guidance:
        raise SystemExit(
            f"--guidance: got {recipe.guidance}, but the map in {run.out} was made with {model.metadata.get('guidance')}, "
            "expected the same, or another --out"
        )
    return model


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
        source = guided(teacher, recipe.guidance)
        return distill.distill(source, data.images, network(), labels=data.labels, seed=seed, **settings)

    def empty() -> diamond.DiamondMap:
        return diamond.DiamondMap(network(), teacher.interpolant, teacher.event_shape)

    before = [*first.metadata.get("before", []), {name: first.metadata[name] for name in ("steps", "seed", "minutes")}]
    known = {**_origin(recipe), "before": before}
    planned = [*run.steps[2:], *[None] * len(recipe.refine)][index]
    stage = Stage(refined_name(index), train, empty, known)
    settled = any(run.out.glob(f"{refined_name(index + 1)}.ckpt*"))
    return stage.model(run, recipe.refine_share * run.seconds, planned, settled)


def _origin(recipe: Recipe) -> dict[str, Any]:
    """What the file of a map says of what it was made from."""
    origin = {"data": recipe.data, "teacher": f"{recipe.data}-teacher"}
    return origin if recipe.guidance is None else {**origin, "guidance": recipe.guidance}


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
