"""Where training samples come from: a tensor, a torch Dataset, a stream, or an exact model.

Labels may be left out at random, so that one network learns the conditional law and the unconditional one, between
which classifier-free guidance works; images may be mirrored at random.

References:
    | Classifier-Free Diffusion Guidance (Ho & Salimans, 2022), https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from diamond.mixture import GaussianMixtureFlow
from diamond.randomness import uniform
from diamond.validation import check_number, check_positive

from ..fingerprints import fingerprint
from .fitness import check_events, check_labels, classes_in, collated, warn_of_scale
from .streams import fetch_ahead, fetch_stream

__all__ = ["Batches"]

ALL = slice(None)


class Batches:
    """Random batches, drawn with replacement from finite data, or afresh from an exact model; or a stream's in its order.

    Arguments:
        data: a floating tensor `(N, *event)`, on any device, where its batches are drawn; a torch Dataset, map-style or
            iterable, whose items are events or pairs (event, label); or a :class:`~diamond.GaussianMixtureFlow`, which is
            sampled.
        labels: class labels `(N,)` to go with a tensor.
        classes: number of classes that the network was made for; 0 leaves the labels of a Dataset out.
        no_label: the label that stands for none, `classes` by default.
        label_dropout: probability, in [0, 1), with which a label becomes that one.
        flip: whether each image is mirrored left to right with probability one half.
        workers: processes that fetch a Dataset's items ahead. The order of batches does not depend on them, but for a
            stream, whose own business it is to share itself out among several.

    Warns of a tensor, or of a Dataset whose first item is, far from the scale of the noise, as pixels from 0 to 255 are.

    Raises:
        ValueError: data of another kind, less than two samples, or not finite; labels that do not fit, are missing, or
            that the network does not take; options that cannot be used.
    """

    def __init__(
        self,
        data: Any,
        labels: Tensor | None = None,
        classes: int = 0,
        *,
        no_label: int | None = None,
        label_dropout: float = 0.0,
        flip: bool = False,
        workers: int = 0,
    ) -> None:
        self.data, self.labels, self.classes = data, labels, classes
        self.no_label = classes if no_label is None else no_label
        fits = lambda share: 0 <= share < 1  # noqa: E731
        self.label_dropout = check_number("label_dropout", label_dropout, "a probability in [0, 1)", fits)
        self.flip = flip
        self.workers = check_positive("workers", workers, least=0)
        self.streamed = isinstance(data, IterableDataset)
        if label_dropout and not classes:
            raise ValueError(f"label_dropout: got {label_dropout}, but the network was made without classes")
        if workers and isinstance(data, (Tensor, GaussianMixtureFlow)):
            raise ValueError(f"workers: got {workers} for data that are in memory, expected 0")
        self.event_shape: Any = None  # before the first event is seen
        self.event_shape = self._checked()
        if flip and len(self.event_shape) != 3:
            raise ValueError(f"flip: got True for events of shape {self.event_shape}, expected images (C, H, W)")

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must have in common with one that it resumes, as JSON values."""
        sized = isinstance(self.data, (Tensor, Dataset)) and not self.streamed
        known = [tensor for tensor in (self.data, self.labels) if isinstance(tensor, Tensor)]
        if isinstance(self.data, GaussianMixtureFlow):
            known = list(self.data.state_dict().values())
        return {
            "fingerprint": fingerprint(known) if known else None,
            "samples": len(self.data) if sized else None, "event_shape": list(self.event_shape),
            "label_dropout": self.label_dropout, "no_label": self.no_label, "flip": self.flip,
        }  # fmt: skip

    def draw(self, n: int, generator: torch.Generator, rows: slice = ALL) -> tuple[Tensor, Tensor | None]:
        """Rows `rows` of a batch of `n` samples `(n, *event)` and their labels `(n,)`, or None, on the device of the data.
        Of a stream, the first samples."""
        if isinstance(self.data, GaussianMixtureFlow):
            z = self.data.sample(n, generator=generator).to(torch.float32)
            return self._finished(z[rows], None, n, generator, rows)
        if self.streamed:
            items = [*islice(self.data, n)]  # fewer, where the stream is shorter
            return self._finished(*self._parted(collated(items)), len(items), generator, rows)
        index = self._index(n, generator)[rows]
        return self._finished(*self._fetch(index), n, generator, rows)

    def sequence(
        self, n: int, rows: slice, seed_of: Callable[[int], int], blocks: range
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Rows `rows` of the batch of each block, drawn from `seed_of(block)` alone, by a generator on the CPU."""
        generator = torch.Generator()
        if not self.workers and not self.streamed:
            for block in blocks:
                yield self.draw(n, generator.manual_seed(seed_of(block)), rows)
            return
        if self.streamed:
            for block, items in zip(blocks, fetch_stream(self.data, n, blocks.start, self.workers), strict=False):
                z, labels = self._parted([tensor[rows] for tensor in items])
                yield self._finished(z, labels, n, generator.manual_seed(seed_of(block)), rows)
            return

        def index_of(block: int) -> Tensor:
            return self._index(n, torch.Generator().manual_seed(seed_of(block)))[rows]

        for block, items in zip(blocks, fetch_ahead(self.data, index_of, blocks, self.workers), strict=True):
            # what is drawn next is then what it would be without workers
            self._index(n, generator.manual_seed(seed_of(block)))
            yield self._finished(*self._parted(items), n, generator, rows)

    def _index(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.data), (n,), generator=generator, device=generator.device)

    def _finished(
        self, z: Tensor, labels: Tensor | None, n: int, generator: torch.Generator, rows: slice
    ) -> tuple[Tensor, Tensor | None]:
        """Rows of a batch of `n` as the network shall see them."""
        z = z.detach()  # data may hang on what made them, as codes do on an encoder
        labels = None if labels is None else labels.to(z.device)
        if self.flip:
            mirrored = uniform((n,), generator, device=z.device)[rows] < 0.5
            z = torch.where(mirrored.view(-1, 1, 1, 1), z.flip(-1), z)
        if self.label_dropout and labels is not None:
            dropped = uniform((n,), generator, device=labels.device)[rows] < self.label_dropout
            labels = labels.long().masked_fill(dropped, self.no_label)  # which a narrower type may not hold
        return z, labels

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.data, Tensor):
            labels = None if self.labels is None else self.labels[index.to(self.labels.device)]
            return self.data[index.to(self.data.device)], labels
        return self._parted(collated([self.data[int(i)] for i in index]))

    def _parted(self, items: Any) -> tuple[Tensor, Tensor | None]:
        """Events and labels of collated items of a Dataset, once they are known to be fit for training."""
        several = isinstance(items, (tuple, list))
        z, labels = (items[0], items[1] if len(items) > 1 else None) if several else (items, None)
        check_events(z)
        if self.event_shape is not None and z.shape[1:] != self.event_shape:
            raise ValueError(
                f"data: got events of shape {tuple(z.shape[1:])}, expected the first one's, {self.event_shape}"
            )
        if not self.classes:
            return z, None
        if labels is None:
            raise ValueError("data: its items hold no label, but the network is conditional and expects one")
        check_labels(labels, self.classes)
        return z, labels

    def _checked(self) -> tuple[int, ...]:
        """The shape of an event, once the data are known to be fit for training."""
        data, labels = self.data, self.labels
        if labels is not None and not isinstance(data, Tensor):
            raise ValueError(
                f"labels: got some beside a {type(data).__name__}, expected None: they go with a tensor, and the items of a "
                "Dataset hold their own"
            )
        if isinstance(data, GaussianMixtureFlow):
            if self.classes:
                raise ValueError("data: got a mixture, which has no labels, but the network was made with classes")
            return data.event_shape
        if self.streamed:
            first = [*islice(data, 1)]
            if not first:
                raise ValueError("data: got a stream without samples, expected at least one")
            return tuple(self._parted(collated(first))[0].shape[1:])
        if not isinstance(data, (Tensor, Dataset)) or not hasattr(data, "__len__"):
            raise ValueError(f"data: got {type(data).__name__}, expected a tensor (N, *event) or a torch Dataset")
        if len(data) < 2:  # type: ignore[arg-type]
            count = "one sample" if len(data) else "no samples"  # type: ignore[arg-type]
            raise ValueError(f"data: got {count}, expected at least two")
        if isinstance(data, Tensor):
            check_events(data)
            self._check_labels_of(data)
        event = self._fetch(torch.zeros(1, dtype=torch.long))[0]
        warn_of_scale(data if isinstance(data, Tensor) else event)
        return tuple(event.shape[1:])

    def _check_labels_of(self, data: Tensor) -> None:
        labels = self.labels
        if labels is None:
            if self.classes:
                raise ValueError("labels: got None, but the network is conditional and expects them")
            return
        if isinstance(labels, Tensor) and labels.shape != (len(data),):
            raise ValueError(f"labels: got shape {tuple(labels.shape)}, expected ({len(data)},)")
        if not self.classes:
            raise ValueError(
                "labels: got some beside a network made without classes; make it with "
                f"classes={classes_in(labels)}, which a network of your own has as an attribute, or leave labels out"
            )
        check_labels(labels, self.classes)
