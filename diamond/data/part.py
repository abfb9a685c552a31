"""One part of a data set, and the rule by which those without an official split are divided."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch import Tensor

__all__ = ["SPLITS", "Data", "divide", "rows_of"]

SPLITS = ("train", "held-out")


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """One part of a data set.

    Attributes:
        images: `(N, C, H, W)`, float32 in [-1, 1].
        labels: `(N,)`, int64 from 0, or None.
        name: what :func:`diamond.data.load_data` was asked for.
        class_names: of all classes, whether or not this part has any of each; without labels, none.

    Raises:
        ValueError: as many labels as images are wanted, and a class for each.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        if self.labels.shape != (len(self.images),):
            raise ValueError(
                f"labels: {self.name} has {tuple(self.labels.shape)} of them, expected ({len(self.images)},)"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        count = len(self.class_names) or high + 1
        if low < 0 or high >= count:
            raise ValueError(
                f"labels: {self.name} has labels from {low} to {high}, expected classes from 0 to {count - 1}"
            )

    def __repr__(self) -> str:
        labelled = f"{self.classes} classes" if self.classes else "no labels"
        return f"Data({self.name}, {len(self.images)} images of shape {tuple(self.images.shape[1:])}, {labelled})"

    @property
    def classes(self) -> int:
        """The number of classes: of their names, or one more than the largest label; 0 without labels."""
        if self.labels is None:
            return 0
        return len(self.class_names) or int(self.labels.max()) + 1


def rows_of(count: int, split: str, held_out: int | None = None) -> Tensor:
    """Which of `count` samples belong to a part, rising: the first of a fixed permutation are for training, the last
    `held_out` (a tenth, and one at least) are not."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    first = count - (max(1, count // 10) if held_out is None else held_out)
    return (order[:first] if split == "train" else order[first:]).sort().values


def divide(
    images: Tensor,
    labels: Tensor | None,
    split: str,
    name: str,
    class_names: tuple[str, ...] = (),
    held_out: int | None = None,
) -> Data:
    """The part `split` of a whole data set, by :func:`rows_of`; without names, its classes are named by their
    numbers."""
    whole = Data(images, labels, name, class_names)
    rows = rows_of(len(images), split, held_out)
    names = class_names or tuple(map(str, range(whole.classes)))
    return Data(images[rows], None if labels is None else labels[rows], name, names)
