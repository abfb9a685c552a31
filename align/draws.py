"""Posterior draws in blocks: as many at once as `chunk` and memory allow, with the same noise however they are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from torch import Tensor

from diamond.labels import check_labels
from diamond.model import PosteriorSampler, map_cond, slice_cond
from diamond.randomness import AntitheticNoise, Generator, SlicedNoise, check_generators, fresh_generator
from diamond.validation import check_positive

__all__ = [
    "Block",
    "block_slices",
    "check_cond",
    "check_draws",
    "check_sampler",
    "flat_events",
    "leaf_of",
    "posterior_blocks",
    "row_slices",
    "source_of",
]

TILE = 16  # Monte Carlo draws whose noise is held at once: memory does not grow with their number


class Block(NamedTuple):
    """Some posterior draws of some states."""

    rows: slice  # which of the states
    draws: slice  # which of the draws
    x: Tensor  # the states (b, *event); a leaf of its own where gradients are enabled
    z: Tensor  # (n, b, *event)
    log_weights: Tensor | None  # (n, b), for a model whose draws are weighted


def row_slices(rows: int, chunk: int | None) -> Iterator[slice]:
    """Slices of at most `chunk` rows that cover `rows` of them."""
    step = chunk or max(rows, 1)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def block_slices(rows: int, draws: int, chunk: int | None) -> Iterator[tuple[slice, slice]]:
    """Slices of `rows` states and of `draws` draws of each that cover them all, at most `chunk` pairs at once."""
    for part in row_slices(rows, chunk):
        for some in row_slices(draws, None if chunk is None else max(1, chunk // rows)):
            yield part, some


def flat_events(x: Tensor, leading: int = 1) -> Tensor:
    """`x` with its events, behind `leading` axes, as vectors `(..., D)`: of one entry where an event is a number."""
    return x.unsqueeze(-1).flatten(leading)


def leaf_of(x: Tensor, wanted: bool = True) -> Tensor:
    """`x` as a leaf of autograd's graph, whose gradient is `wanted` or not, even if it was made in inference mode."""
    return (x.clone() if wanted and x.is_inference() else x).detach().requires_grad_(wanted)


def check_draws(mc: int, antithetic: bool) -> None:
    """Refuses a number of draws below 1, and an odd one of antithetic draws.

    Raises:
        ValueError: it is one of these.
    """
    check_positive("mc", mc)
    if antithetic and mc % 2:
        raise ValueError(f"mc: got {mc}, expected an even number of antithetic draws")


def check_sampler(model: Any) -> None:
    """Refuses a model that draws from no posterior.

    Raises:
        ValueError: it does not.
    """
    if not hasattr(model, "event_shape") or not (hasattr(model, "posterior") or hasattr(model, "weighted_posterior")):
        raise ValueError(
            f"model: got {type(model).__name__}, expected a posterior sampler; wrap a flow as diamond.GlassFlow(flow)"
        )


def check_cond(model: Any, cond: Any, rows: int, expected: str) -> None:
    """Refuses conditioning whose leading dimension is not `rows`, which is what was `expected`, and labels that are no
    class of `model`.

    Raises:
        ValueError: it is one of these.
    """

    def check(tensor: Tensor) -> Tensor:
        if tensor.ndim < 1 or len(tensor) != rows:
            raise ValueError(f"cond: got shape {tuple(tensor.shape)}, expected leading dimension {expected}")
        return tensor

    map_cond(check, cond)
    check_labels(model, cond)


def source_of(generator: Any) -> torch.Generator | Sequence[torch.Generator]:
    """`generator`, one or several, or a fresh one for None.

    Raises:
        ValueError: it is none of these.
    """
    return fresh_generator() if generator is None else check_generators(generator)


def posterior_blocks(
    model: PosteriorSampler,
    x_t: Tensor,
    t: Tensor | float,
    mc: int,
    cond: Any,
    generator: Generator,
    chunk: int | None,
    antithetic: bool = False,
) -> Iterator[Block]:
    """Blocks with `n * b <= chunk` until each of the `(B, *event)` rows, at times `(B,)` or one, has had `mc` draws. The
    noise is the same for every `chunk`. A model that has `weighted_posterior` is asked for that, and gets fewer rows if
    its network needs `rows_per_draw` of them for a draw.

    Raises:
        ValueError: `antithetic` draws of an odd number.
    """
    check_draws(mc, antithetic)
    source: Any = AntitheticNoise(generator) if antithetic else generator  # type: ignore[arg-type]
    rows = len(x_t)
    chunk = None if chunk is None else max(1, chunk // getattr(model, "rows_per_draw", 1))
    for first in range(0, mc, TILE):
        tile = min(TILE, mc - first)
        if chunk is None:
            x = leaf_of(x_t, torch.is_grad_enabled())
            yield Block(slice(0, rows), slice(first, first + tile), x, *_draw(model, x, t, tile, cond, source))
            continue
        whole = SlicedNoise(source, rows, tile)
        for part, draws in block_slices(rows, tile, chunk):
            noise, n = whole.part(part, draws), draws.stop - draws.start
            x = leaf_of(x_t[part], torch.is_grad_enabled())
            place = slice(first + draws.start, first + draws.stop)
            times = t[part] if isinstance(t, Tensor) else t
            yield Block(part, place, x, *_draw(model, x, times, n, slice_cond(cond, part), noise))


def _draw(model: Any, x: Tensor, t: Tensor | float, n: int, cond: Any, generator: Any) -> tuple[Tensor, Tensor | None]:
    if hasattr(model, "weighted_posterior"):
        return model.weighted_posterior(x, t, n, cond=cond, generator=generator)
    return model.posterior(x, t, n, cond=cond, generator=generator), None
