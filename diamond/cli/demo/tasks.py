"""The three tasks: what is rewarded, how guidance is set for it, and how others than the reward score the outcome.

* `class`: a given digit, by a classifier's log-probability; a judge of another kind says what it sees.
* `symmetry`: left-right symmetry, computed in numpy: a black box without a derivative. What it does to the digits is
  seen by the judge's confidence and the distance to the nearest real digit.
* `inpainting`: the upper half of a held-out digit, measured with noise; the lower half, which no method sees, scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from torch import Tensor

from align.rewards import ClassifierLogProbability, Inpainting
from diamond.randomness import normal

from .models import Cast
from .quality import DrawnReward
from .settings import GUIDE_COST, Settings

__all__ = ["Answers", "Task", "make_tasks", "mirror_symmetry", "real_digits", "value_rewards"]

SYMMETRY_WEIGHT = 20.0
INPAINTING_NOISE = 0.2
INPAINTING_SCALE = 0.2
VALUE_DEVIATION = 1.0


@dataclass(frozen=True)
class Answers:
    """What one method made of one target.

    Attributes:
        picks: the picture that each population hands over, `(batch, *event)`.
        samples, weights: all that it holds, `(batch, particles, *event)`, and how much of each, `(batch, particles)`.
        drawn: a few of these by weight, `(batch, n, *event)`.
    """

    picks: Tensor
    samples: Tensor
    weights: Tensor
    drawn: Tensor

    def mean_drawn(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of `measure` over those drawn, `(batch,)`."""
        return measure(self.drawn.flatten(0, 1)).reshape(self.drawn.shape[:2]).mean(1)


Measure = Callable[[Answers, int], Tensor]  # answers and the target's number -> one figure a population, (batch,)


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: its key.
        targets: what each column of its picture is called.
        rewards: one for each target.
        populations: independent populations a target.
        guidance: arguments of :func:`align.guide` besides the number of particles.
        plugin: likewise for the plug-in gradient, where the reward has one.
        measures: figures besides the reward, by name.
        shown: pictures above the methods' own, by name: one for each target.
    """

    name: str
    targets: list[str]
    rewards: list[Callable[[Tensor], Tensor]]
    populations: int
    guidance: dict[str, Any]
    plugin: dict[str, Any] | None
    measures: dict[str, Measure]
    shown: dict[str, Tensor] = field(default_factory=dict)


def make_tasks(cast: Cast, settings: Settings) -> list[Task]:
    """The three tasks."""
    return [_class_task(cast, settings), _symmetry_task(cast, settings), _inpainting_task(cast, settings)]


def real_digits(cast: Cast, inpainting: Task) -> dict[str, float]:
    """What the scores are of real digits, and of two naive answers to inpainting: yardsticks for all that follows."""
    images, labels = cast.held_out.images, cast.held_out_labels
    truth, known = inpainting.shown["the digit"], cast.train.images
    upper, lower = slice(0, truth.shape[-2] // 2), slice(truth.shape[-2] // 2, None)
    measured = inpainting.shown["what is seen"][..., upper, :].flatten(1)
    nearest = known[torch.cdist(measured, known[..., upper, :].flatten(1)).argmin(1)]
    rewards = [float(reward(z[None])) for reward, z in zip(inpainting.rewards, truth, strict=True)]
    return {
        "classifier accuracy": float((cast.classifier(images).argmax(1) == labels).float().mean()),
        "judge accuracy": float((cast.judge.labels(images) == labels).float().mean()),
        "judge confidence": float(cast.judge.confidence(images).mean()),
        "nearest": float(cast.judge.distance(images).mean()),
        "symmetry": float(mirror_symmetry(images).mean()),
        "inpainting reward": sum(rewards) / len(rewards),
        "error of the mean digit": float((known.mean(0) - truth)[..., lower, :].square().mean()),
        "error of the nearest digit": float((nearest - truth)[..., lower, :].square().mean()),
    }


def mirror_symmetry(z: Tensor) -> Tensor:
    """Minus the weighted mean square difference between each picture and its left-right mirror, by numpy: `(N,)`."""
    pixels = z.numpy()
    gaps = np.square(pixels - pixels[..., ::-1]).mean(axis=(1, 2, 3))
    return torch.from_numpy(-SYMMETRY_WEIGHT * gaps)


def value_rewards(cast: Cast) -> dict[str, Callable[[Tensor], DrawnReward]]:
    """The rewards whose values are measured: that a noisy digit becomes what it was, and symmetry.

    Both are scaled to a standard deviation of 1 over the training digits. At the strength that steers, no small number
    of draws tells a value well, whatever draws them, and no sampler could be told from another.
    """
    by_class = cast.classifier(cast.train.images).log_softmax(-1)
    symmetry = mirror_symmetry(cast.train.images)

    def own_class(rows: Tensor) -> DrawnReward:
        reward = float(VALUE_DEVIATION / by_class.std(0).mean()) * ClassifierLogProbability(cast.classifier)
        labels = cast.held_out_labels[rows]
        return lambda z: reward(z.flatten(0, 1), labels.repeat(len(z))).unflatten(0, z.shape[:2])

    def mirrored(rows: Tensor) -> DrawnReward:
        factor = float(VALUE_DEVIATION / symmetry.std())
        return lambda z: factor * mirror_symmetry(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    return {"class": own_class, "symmetry": mirrored}


def _class_task(cast: Cast, settings: Settings) -> Task:
    def agrees(z: Tensor, label: int) -> Tensor:
        return (cast.judge.labels(z) == label).float()

    return Task(
        name="class",
        targets=[str(label) for label in range(settings.targets)],
        rewards=[ClassifierLogProbability(cast.classifier, label) for label in range(settings.targets)],
        populations=settings.populations,
        guidance={"steps": 16, "mc": GUIDE_COST // 16 - 1},
        plugin={"steps": 16, "estimator": "plugin"},
        measures={
            "agrees": lambda answers, label: agrees(answers.picks, label),
            "agrees, by weight": lambda answers, label: answers.mean_drawn(lambda z: agrees(z, label)),
            "nearest": lambda answers, label: cast.judge.distance(answers.picks),
        },
    )


def _symmetry_task(cast: Cast, settings: Settings) -> Task:
    return Task(
        name="symmetry",
        targets=[""] * settings.targets,
        rewards=[mirror_symmetry] * settings.targets,
        populations=settings.populations,
        guidance={"steps": 4, "mc": GUIDE_COST // 4 - 1, "estimator": "score"},
        plugin=None,
        measures={
            "confidence": lambda answers, _: cast.judge.confidence(answers.picks),
            "nearest": lambda answers, _: cast.judge.distance(answers.picks),
            "reward, by weight": lambda answers, _: answers.mean_drawn(mirror_symmetry),
        },
    )


def _inpainting_task(cast: Cast, settings: Settings) -> Task:
    """One held-out digit of each class, the last ones: the first are used up by other figures."""
    labels = cast.held_out_labels.tolist()
    rows = [len(labels) - 1 - labels[::-1].index(label) for label in range(settings.targets)]
    truth = cast.held_out.images[rows]
    seen = torch.zeros(truth.shape[1:])
    seen[..., : seen.shape[-2] // 2, :] = 1
    hidden = seen == 0
    measured = truth + INPAINTING_NOISE * normal(truth.shape, cast.generator("measured"))

    def error(z: Tensor, target: int) -> Tensor:
        return (z - truth[target])[..., hidden].square().mean(-1)

    def mean(answers: Answers) -> Tensor:
        return (answers.weights[..., None, None, None] * answers.samples).sum(1)

    def spread(answers: Answers, _: int) -> Tensor:
        gaps = (answers.samples - mean(answers)[:, None])[..., hidden].square().mean(-1)
        return (answers.weights * gaps).sum(1).sqrt()

    return Task(
        name="inpainting",
        targets=[str(label) for label in range(settings.targets)],
        rewards=[Inpainting(y, seen, INPAINTING_NOISE) for y in measured],
        populations=settings.populations,
        guidance={"steps": 8, "mc": GUIDE_COST // 8 - 1, "scale": INPAINTING_SCALE},
        plugin={"steps": 16, "estimator": "plugin", "scale": INPAINTING_SCALE},
        measures={
            "error": lambda answers, target: error(answers.picks, target),
            "error of the mean": lambda answers, target: error(mean(answers), target),
            "spread": spread,
        },
        shown={"the digit": truth, "what is seen": torch.where(hidden, -1.0, measured)},
    )
