"""Who is evaluated, on which data, by whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from torch import Tensor

from diamond.data import Data
from diamond.evaluation import chain_states
from diamond.judges import Classifier
from diamond.labelled import Labelled

__all__ = ["Subject"]

TILE = 500  # samples drawn at once


@dataclass(frozen=True, eq=False)
class Subject:
    """A map and its teacher, both unconditional or both with class labels.

    Attributes:
        map, teacher: the models.
        train, held_out: the parts of their data, on their device.
        judge: whose features samples are compared in, or None.
        conditional: whether the models take labels.
        seed: of everything random.
    """

    map: Any
    teacher: Any
    train: Data
    held_out: Data
    judge: Classifier | None
    conditional: bool
    seed: int

    def generator(self, part: int) -> torch.Generator:
        """The source of noise of one part of the evaluation, whatever other parts draw."""
        seeds = torch.randint(2**62, (part + 1,), generator=torch.Generator().manual_seed(self.seed))
        return torch.Generator().manual_seed(int(seeds[-1]))

    def states(self, count: int, generator: torch.Generator) -> tuple[Tensor, Any, Any]:
        """At most `count` held-out samples `(B, *event)`, and the map and the teacher with their labels filled in."""
        rows = torch.randperm(len(self.held_out.images), generator=generator)[:count]
        z = self.held_out.images[rows]
        if not self.conditional:
            return z, self.map, self.teacher
        labels = _labels(self.held_out)[rows]
        return z, Labelled(self.map, labels), Labelled(self.teacher, labels)

    def sample(self, model: Any, count: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`count` samples of `model` in `steps` steps, of classes as often as in the data: samples and labels."""
        labels = self._labels(count, generator)
        drawn = [model.sample(size, steps, cond=cond, generator=generator) for size, cond in _tiles(count, labels)]
        return torch.cat(drawn), labels

    def chain(self, count: int, steps: int, generator: torch.Generator) -> list[Tensor]:
        """The states `(count, *event)` of the map's chains of `steps` transitions, of classes as often as in the data."""
        tiles = [
            chain_states(self.map, size, steps, cond=cond, generator=generator)
            for size, cond in _tiles(count, self._labels(count, generator))
        ]
        return [torch.cat(states) for states in zip(*tiles, strict=True)]

    def _labels(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Labels `(count,)` drawn from the training data's, for conditional models."""
        if not self.conditional:
            return None
        known = _labels(self.train)
        return known[torch.randint(len(known), (count,), generator=generator).to(known.device)]


def _tiles(count: int, labels: Tensor | None) -> Iterator[tuple[int, Tensor | None]]:
    """Sizes and labels of parts of at most `TILE`."""
    for first in range(0, count, TILE):
        size = min(TILE, count - first)
        yield size, None if labels is None else labels[first : first + size]


def _labels(data: Data) -> Tensor:
    if data.labels is None:
        raise ValueError(f"data: {data.name} holds no labels, but the model is conditional and expects them")
    return data.labels
