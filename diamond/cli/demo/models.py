"""The cast of the demo: the digits, the two models trained on them, a classifier that steers and a judge that scores.

The judge is a support vector machine, of another kind than the steering network on purpose: what fools the one need not
fool the other. It never takes part in an alignment.
"""

from __future__ import annotations

import zlib

from dataclasses import dataclass
from pathlib import Path

import torch

from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from torch import Tensor, nn

import distill

from diamond.data import Data, load_data
from diamond.diamond_map import DiamondMap
from diamond.flow import Flow

from ..classifier import train_classifier
from .settings import Settings

__all__ = ["Cast", "Judge", "assemble", "distil_map", "seeded_generator", "train_teacher"]


def seeded_generator(seed: int, *names: object) -> torch.Generator:
    """A generator for one purpose, which `names` name: whatever else is drawn, it draws the same."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, (seed, *names))).encode()))


class Judge:
    """Scores pictures `(N, 1, 8, 8)`; it has seen the training digits and nothing else.

    Arguments:
        data: the training digits.
        seed: of the folds on which its probabilities are calibrated.
    """

    def __init__(self, data: Data, seed: int = 0) -> None:
        self.known = data.images.flatten(1)
        machine = SVC(C=10, gamma=0.02, random_state=seed)
        self.machine = CalibratedClassifierCV(machine, ensemble=False, cv=3)
        self.machine.fit(self.known.numpy(), data.labels.numpy())  # type: ignore[union-attr]

    def probabilities(self, z: Tensor) -> Tensor:
        """Class probabilities `(N, 10)`."""
        return torch.from_numpy(self.machine.predict_proba(z.flatten(1).numpy())).float()

    def labels(self, z: Tensor) -> Tensor:
        """The digit that each picture shows, `(N,)`."""
        return self.probabilities(z).argmax(1)

    def confidence(self, z: Tensor) -> Tensor:
        """The probability of that digit, `(N,)`."""
        return self.probabilities(z).amax(1)

    def distance(self, z: Tensor) -> Tensor:
        """Euclidean distance to the nearest training digit, `(N,)`."""
        return torch.cdist(z.flatten(1), self.known).amin(1)


@dataclass(frozen=True)
class Cast:
    """Everyone who takes part."""

    train: Data
    held_out: Data
    teacher: Flow
    map: DiamondMap
    classifier: nn.Module
    judge: Judge
    seed: int

    @property
    def held_out_labels(self) -> Tensor:
        """The classes of the held-out digits, `(N,)`."""
        assert self.held_out.labels is not None
        return self.held_out.labels

    def generator(self, *names: object) -> torch.Generator:
        """A generator for one purpose of this run."""
        return seeded_generator(self.seed, *names)


def train_teacher(settings: Settings, out: Path, seed: int) -> Flow:
    """The flow model of the digits, kept in `out/glass.ckpt`."""
    images = load_data("digits").images
    return distill.train_flow(
        images, steps=settings.teacher_steps, seed=seed, out=out / "glass.ckpt", metadata={"data": "digits"}
    )


def distil_map(teacher: Flow, settings: Settings, out: Path, seed: int) -> DiamondMap:
    """The Diamond Map of the teacher's GLASS flow, kept in `out/diamond.ckpt`."""
    images = load_data("digits").images
    return distill.distill(
        teacher, images, loss="trajectory", times="uniform", steps=settings.map_steps, seed=seed,
        out=out / "diamond.ckpt", metadata={"teacher": str(out / "glass.ckpt")},
    )  # fmt: skip


def assemble(teacher: Flow, diamond_map: DiamondMap, seed: int) -> Cast:
    """The whole cast; trains the classifier and the judge."""
    train = load_data("digits")
    return Cast(
        train=train,
        held_out=load_data("digits", split="held-out"),
        teacher=teacher.eval(),
        map=diamond_map.eval(),
        classifier=train_classifier(train, seed=seed),
        judge=Judge(train, seed),
        seed=seed,
    )
