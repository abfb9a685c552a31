"""Where training samples come from: a tensor, a torch Dataset, or an exact model."""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor
from torch.utils.data import Dataset, default_collate

from diamond.mixture import GaussianMixtureFlow

__all__ = ["Batches"]


class Batches:
    """Random batches, drawn with replacement from finite data, or afresh from an exact model.

    Arguments:
        data: a floating tensor `(N, *event)`; a map-style Dataset whose items are events or pairs (event, label); or a
            :class:`~diamond.GaussianMixtureFlow`, which is sampled.
        labels: class labels `(N,)` to go with a tensor.
        conditional: whether labels are wanted: without, those of a Dataset are left out.

    Raises:
        ValueError: data of another kind, none at all, or not finite; labels that do not fit or are missing.
    """

    def __init__(self, data: Any, labels: Tensor | None = None, conditional: bool = False) -> None:
        self.data, self.labels, self.conditional = data, labels, conditional
        if isinstance(data, GaussianMixtureFlow):
            self.event_shape = data.event_shape
            return
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
            if conditional and labels is None:
                raise ValueError("labels: got None, but the network is conditional and expects them")
        self.event_shape = tuple(self._fetch(torch.zeros(1, dtype=torch.long))[0].shape[1:])

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`n` samples `(n, *event)` and their labels `(n,)`, or None, on the generator's device."""
        if isinstance(self.data, GaussianMixtureFlow):
            return self.data.sample(n, generator=generator).to(generator.device, torch.float32), None
        index = torch.randint(len(self.data), (n,), generator=generator, device=generator.device)
        z, labels = self._fetch(index.to(self.data.device) if isinstance(self.data, Tensor) else index)
        return z.to(generator.device), None if labels is None else labels.to(generator.device)

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.data, Tensor):
            return self.data[index], self.labels[index] if self.labels is not None and self.conditional else None
        items = default_collate([self.data[int(i)] for i in index])
        z, labels = (items[0], items[1]) if isinstance(items, (tuple, list)) else (items, None)
        if self.conditional and labels is None:
            raise ValueError("data: its items hold no label, but the network is conditional and expects one")
        return z, labels if self.conditional else None
