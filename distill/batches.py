"""Where training samples come from: a tensor, a torch Dataset, or an exact model.

Labels may be left out at random, so that one network learns the conditional law and the unconditional one, between
which classifier-free guidance works; images may be mirrored at random.

References:
    | Classifier-Free Diffusion Guidance (Ho & Salimans, 2022), https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor
from torch.utils.data import Dataset, default_collate

from diamond.mixture import GaussianMixtureFlow
from diamond.randomness import uniform

__all__ = ["Batches"]


class Batches:
    """Random batches, drawn with replacement from finite data, or afresh from an exact model.

    Arguments:
        data: a floating tensor `(N, *event)`; a map-style Dataset whose items are events or pairs (event, label); or a
            :class:`~diamond.GaussianMixtureFlow`, which is sampled.
        labels: class labels `(N,)` to go with a tensor.
        classes: number of classes that the network was made for; 0 leaves all labels out.
        label_dropout: probability, in [0, 1), with which a label becomes `classes`, which stands for "no label".
        flip: whether each image is mirrored left to right with probability one half.

    Raises:
        ValueError: data of another kind, none at all, or not finite; labels that do not fit or are missing; options
            that cannot be used.
    """

    def __init__(
        self,
        data: Any,
        labels: Tensor | None = None,
        classes: int = 0,
        *,
        label_dropout: float = 0.0,
        flip: bool = False,
    ) -> None:
        self.data, self.labels, self.classes = data, labels, classes
        self.label_dropout, self.flip = label_dropout, flip
        if not 0 <= label_dropout < 1:
            raise ValueError(f"label_dropout: got {label_dropout}, expected a probability in [0, 1)")
        if label_dropout and not classes:
            raise ValueError(f"label_dropout: got {label_dropout}, but the network was made without classes")
        self.event_shape = self._checked()
        if flip and len(self.event_shape) != 3:
            raise ValueError(f"flip: got True for events of shape {self.event_shape}, expected images (C, H, W)")

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must have in common with one that it resumes, as JSON values."""
        return {"label_dropout": self.label_dropout, "flip": self.flip}

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`n` samples `(n, *event)` and their labels `(n,)`, or None, on the generator's device."""
        if isinstance(self.data, GaussianMixtureFlow):
            z, labels = self.data.sample(n, generator=generator).to(torch.float32), None
        else:
            index = torch.randint(len(self.data), (n,), generator=generator, device=generator.device)
            z, labels = self._fetch(index.to(self.data.device) if isinstance(self.data, Tensor) else index)
        z, labels = z.to(generator.device), None if labels is None else labels.to(generator.device)
        if self.flip:
            mirrored = uniform((n, *[1] * len(self.event_shape)), generator, device=z.device) < 0.5
            z = torch.where(mirrored, z.flip(-1), z)
        if self.label_dropout and labels is not None:
            dropped = uniform((n,), generator, device=labels.device) < self.label_dropout
            labels = labels.masked_fill(dropped, self.classes)
        return z, labels

    def _checked(self) -> tuple[int, ...]:
        """The shape of an event, once the data are known to be fit for training."""
        data, labels = self.data, self.labels
        if isinstance(data, GaussianMixtureFlow):
            if self.classes:
                raise ValueError("data: got a mixture, which has no labels, but the network was made with classes")
            return data.event_shape
        if not isinstance(data, (Tensor, Dataset)) or not hasattr(data, "__len__"):
            raise ValueError(
                f"data: got {type(data).__name__}, expected a tensor (N, *event) or a map-style torch Dataset"
            )
        if not len(data):  # type: ignore[arg-type]
            raise ValueError("data: got no samples, expected at least one")
        if isinstance(data, Tensor):
            if not data.is_floating_point() or data.ndim < 2:
                raise ValueError(f"data: got {data.dtype} {tuple(data.shape)}, expected a floating tensor (N, *event)")
            if not bool(data.isfinite().all()):
                raise ValueError("data: got NaN or infinite entries, expected finite numbers")
            if labels is not None and labels.shape != (len(data),):
                raise ValueError(f"labels: got shape {tuple(labels.shape)}, expected ({len(data)},)")
            if self.classes and labels is None:
                raise ValueError("labels: got None, but the network is conditional and expects them")
            if self.classes and labels is not None:
                check_labels(labels, self.classes)
        return tuple(self._fetch(torch.zeros(1, dtype=torch.long))[0].shape[1:])

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.data, Tensor):
            return self.data[index], self.labels[index] if self.labels is not None and self.classes else None
        items = default_collate([self.data[int(i)] for i in index])
        z, labels = (items[0], items[1]) if isinstance(items, (tuple, list)) else (items, None)
        if self.classes and labels is None:
            raise ValueError("data: its items hold no label, but the network is conditional and expects one")
        return z, labels if self.classes else None


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuses `labels` `(N,)` unless they are whole numbers from 0 to `classes` - 1.

    Raises:
        ValueError: they are not.
    """
    expected = f"expected whole numbers from 0 to {classes - 1}, the network's {classes} classes"
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels: got {labels.dtype}, {expected}")
    low, high = (int(end) for end in torch.aminmax(labels))
    if not 0 <= low <= high < classes:
        raise ValueError(f"labels: got labels from {low} to {high}, {expected}")
