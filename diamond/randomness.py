r"""Where every random number of the toolkit comes from.

A `generator` is one of the following:

* a `torch.Generator` draws the whole tensor at once; it may live on the CPU while the tensor lives elsewhere;
* a sequence of them gives each of its members an equal share of the rows of the batch axis, so that what one population
  draws does not depend on which others stand beside it;
* `None` is a fresh generator seeded by the operating system: the global random state is neither read nor moved;
* a :class:`SlicedNoise` hands out parts of one large draw, so that work done in chunks sees the very numbers that
  it would see when done at once;
* an :class:`AntitheticNoise` makes the second half of the Monte Carlo draws mirror images of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from torch import Tensor

__all__ = [
    "AntitheticNoise",
    "Generator",
    "SlicedNoise",
    "check_generators",
    "fresh_generator",
    "normal",
    "seeded",
    "uniform",
]


class AntitheticNoise:
    """A source of noise for calls with an axis of Monte Carlo draws, an even number of them: the second half are the
    mirror images of the first, `-x` of normal numbers and `1 - x` of uniform ones. Each draw has the law it would have
    alone; what is odd in the noise cancels from a mean over both halves."""

    def __init__(self, generator: torch.Generator | Sequence[torch.Generator]) -> None:
        self.generator = generator


class SlicedNoise:
    """A source of noise for a part of a call whose batch axis has `rows` rows, and whose Monte Carlo axis, where it
    has one, has `draws` draws. The n-th request made through one part and the n-th made through another are slices
    of the same draw."""

    def __init__(
        self,
        generator: torch.Generator | Sequence[torch.Generator] | AntitheticNoise,
        rows: int,
        draws: int = 1,
    ) -> None:
        self.generator = generator
        self.size = (draws, rows)
        self._kept: list[Tensor] = []
        self._part = (slice(0, draws), slice(0, rows))
        self._requests = 0

    def part(self, rows: slice, draws: slice | None = None) -> SlicedNoise:
        """The source for rows `rows` and draws `draws` (slices with both ends given) of the whole call."""
        other = SlicedNoise(self.generator, self.size[1], self.size[0])
        other._kept = self._kept
        other._part = (draws or slice(0, self.size[0]), rows)
        return other

    def take(self, draw: Callable[..., Tensor], shape: tuple[int, ...], batch_axis: int, device, dtype) -> Tensor:
        """The slice of the whole draw that answers a request for `shape`."""
        sliced = range(2 - batch_axis - 1, 2)  # which of (draws, rows) the leading axes of `shape` are
        if self._requests == len(self._kept):
            whole = [self.size[i] for i in sliced] + list(shape[batch_axis + 1 :])
            self._kept.append(draw(tuple(whole), self.generator, batch_axis, device, dtype))
        part = self._kept[self._requests][tuple(self._part[i] for i in sliced)]
        self._requests += 1
        if part.shape != shape:
            raise ValueError(
                f"noise: asked for shape {tuple(shape)}, but this part of the call has {tuple(part.shape)}"
            )
        return part


Generator: TypeAlias = "torch.Generator | Sequence[torch.Generator] | SlicedNoise | AntitheticNoise | None"


def fresh_generator() -> torch.Generator:
    """A CPU generator seeded by the operating system; the global random state stays as it is."""
    generator = torch.Generator()
    generator.seed()
    return generator


def check_generators(generator: Any) -> torch.Generator | Sequence[torch.Generator]:
    """`generator`, if it is a `torch.Generator` or a sequence of them.

    Raises:
        ValueError: it is neither.
    """
    many = generator if isinstance(generator, Sequence) else [generator]
    if not all(isinstance(one, torch.Generator) for one in many):
        raise ValueError(
            f"generator: got {generator!r}, expected a torch.Generator, a sequence of them or None; a seed makes one: "
            "torch.Generator().manual_seed(seed)"
        )
    return generator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Surrounds the making of networks, whose weights torch draws from its global random state: they come from `seed`, and
    the state is put back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def normal(
    shape: Sequence[int],
    generator: Generator = None,
    *,
    batch_axis: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Standard normal numbers of `shape`, whose batch axis is axis 0, or axis 1 behind an axis of Monte Carlo draws.

    Raises:
        ValueError: `generator` is nothing of what is said above, or the batch axis cannot be shared among several equally.
    """
    return _request(torch.randn, shape, generator, batch_axis, device, dtype)


def uniform(
    shape: Sequence[int],
    generator: Generator = None,
    *,
    batch_axis: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Uniform numbers on [0, 1) of `shape`; arguments and errors as in :func:`normal`."""
    return _request(torch.rand, shape, generator, batch_axis, device, dtype)


def _request(function, shape, generator, batch_axis, device, dtype) -> Tensor:
    def draw(shape, generator, batch_axis, device, dtype) -> Tensor:
        if isinstance(generator, torch.Generator):
            return function(shape, generator=generator, device=generator.device, dtype=dtype).to(device)
        if isinstance(generator, AntitheticNoise):
            if batch_axis != 1 or shape[0] % 2:
                raise ValueError(
                    f"generator: got antithetic noise for shape {shape}, expected an even number of draws in front"
                )
            half = draw((shape[0] // 2, *shape[1:]), generator.generator, batch_axis, device, dtype)
            return torch.cat([half, -half if function is torch.randn else 1 - half])
        check_generators(generator)
        share, rest = divmod(shape[batch_axis], max(len(generator), 1))
        if rest or not len(generator):
            raise ValueError(
                f"generator: got {len(generator)} generators for {shape[batch_axis]} rows, "
                "expected a number of generators that divides the rows"
            )
        each = (*shape[:batch_axis], share, *shape[batch_axis + 1 :])
        return torch.cat([draw(each, one, batch_axis, device, dtype) for one in generator], dim=batch_axis)

    if isinstance(generator, SlicedNoise):
        return generator.take(draw, tuple(shape), batch_axis, device, dtype)
    return draw(tuple(shape), fresh_generator() if generator is None else generator, batch_axis, device, dtype)
