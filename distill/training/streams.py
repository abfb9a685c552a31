"""Batches of a Dataset that workers fetch ahead, or of a stream, in an order that only the seeds tell."""

from __future__ import annotations

import signal

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import torch

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .fitness import collated

__all__ = ["fetch_ahead", "fetch_stream"]


def fetch_ahead(data: Dataset, index_of: Callable[[int], Tensor], blocks: range, workers: int) -> Iterator[Any]:
    """Collated items of a map-style Dataset, those of `index_of(block)` for each block."""
    yield from _loaded(data, workers, 0, batch_sampler=(index_of(block).tolist() for block in blocks))


def fetch_stream(data: IterableDataset, n: int, first: int, workers: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches of `n` items of an endless repetition of the stream, from batch `first` on.

    The stream is read from its beginning, so that a resumed run meets what the uninterrupted one would have met.

    Raises:
        ValueError: the stream is empty.
    """

    def parts() -> Iterator[tuple[Tensor, ...]]:
        for epoch in count():
            met = False
            for items in _loaded(data, workers, epoch, batch_size=n):
                met = True
                yield tuple(items) if isinstance(items, (tuple, list)) else (items,)
            if not met:
                raise ValueError("data: got a stream without samples, expected at least one")

    def regrouped() -> Iterator[tuple[Tensor, ...]]:
        held: tuple[Tensor, ...] | None = None
        for items in parts():
            held = items if held is None else tuple(map(torch.cat, zip(held, items, strict=True)))
            while len(held[0]) >= n:
                yield tuple(tensor[:n] for tensor in held)
                held = tuple(tensor[n:] for tensor in held)

    return islice(regrouped(), first, None)


def _loaded(data: Dataset, workers: int, seed: int, **how: Any) -> Iterator[Any]:
    """Collated items.

    Raises:
        ValueError: what an item said was wrong with it, without the way that it came from a worker.
    """
    generator = torch.Generator().manual_seed(seed)  # seeds the workers, in place of the global random state
    how |= {"worker_init_fn": _leave_signals, "generator": generator, "collate_fn": collated}
    try:
        yield from DataLoader(data, num_workers=workers, **how)
    except ValueError as error:
        told = str(error).rstrip().rpartition("\nValueError: ")[2]
        raise ValueError(told) from error


def _leave_signals(worker: int) -> None:
    """Ctrl-C is for the main process, which ends its workers when it has ended its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
