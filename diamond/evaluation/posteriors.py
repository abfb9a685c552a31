r"""Posterior draws against those of a reference, from the same states and the same noises.

The reference is the teacher's GLASS flow with many inner steps, or an exact posterior. A sampler's distance to it is
the energy distance, a mean over states: sharp, because draws `i` of both start from the same noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from torch import Tensor

from ..diamond_map import DiamondMap
from ..glass import GlassFlow
from ..model import Model
from ..randomness import Generator, normal
from ..validation import check_positive
from .energy import energy_distance
from .moments import mean_error, spread

__all__ = [
    "Comparison",
    "Reference",
    "compare",
    "distances_to",
    "draw_in_tiles",
    "draw_references",
    "equivalent_steps",
    "glass_distances",
]

ROWS = 2048  # of one network call


@dataclass(frozen=True, eq=False)
class Reference:
    """Posterior draws taken for the truth.

    Attributes:
        t: the outer time.
        x_t: states `(B, *event)` at `t`.
        noise: what the draws started from, `(n, B, *event)`; that of an exact posterior is left to other samplers.
        draws: `(n, B, *event)`.
    """

    t: float
    x_t: Tensor
    noise: Tensor
    draws: Tensor


class Comparison(NamedTuple):
    """What sets a sampler's draws apart from T references, of B states each; each figure is `(T, B)`.

    Attributes:
        distance: energy distances.
        mean_error: squared errors of the posterior mean, as shares of the reference's total variance.
        spread: total variances, as multiples of the reference's.
    """

    distance: Tensor
    mean_error: Tensor
    spread: Tensor


@torch.no_grad()
def draw_in_tiles(
    sampler: Any,
    x_t: Tensor,
    t: float,
    n: int,
    *,
    noise: Tensor | None = None,
    generator: Generator = None,
) -> Tensor:
    """`n` posterior draws `(n, B, *event)` of `sampler` given states `x_t` `(B, *event)`, a few draws of all states at
    a time, so that many states of large images fit into memory. They start from `noise` `(n, B, *event)`, where that is
    given."""
    size = max(1, ROWS // max(1, len(x_t)))
    drawn = []
    for first in range(0, check_positive("n", n), size):
        count = min(size, n - first)
        start = {} if noise is None else {"noise": noise[first : first + count]}
        drawn.append(sampler.posterior(x_t, t, count, generator=generator, **start))
    return torch.cat(drawn)


@torch.no_grad()
def draw_references(
    teacher: Model,
    z: Tensor,
    times: Iterable[float],
    *,
    draws: int = 256,
    reference_steps: int = 128,
    exact: bool = False,
    generator: Generator = None,
) -> list[Reference]:
    """References at each of `times`.

    Arguments:
        teacher: the flow.
        z: data `(B, *event)`, noised to each of `times`.
        times: outer times.
        draws: posterior draws a state.
        reference_steps: inner steps of the GLASS flow taken for the truth.
        exact: take the teacher's own `posterior` for the truth (an exact mixture).
        generator: of the noises.
    """
    sampler: Any = teacher if exact else GlassFlow(teacher, reference_steps)
    check_positive("draws", draws)
    references = []
    for t in times:
        noise = normal(z.shape, generator, device=z.device, dtype=z.dtype)
        x_t = teacher.interpolant.interpolate(z, noise, torch.full((len(z),), t, device=z.device, dtype=z.dtype))
        start = normal((draws, *z.shape), generator, batch_axis=1, device=z.device, dtype=z.dtype)
        truth = draw_in_tiles(sampler, x_t, t, draws, noise=None if exact else start, generator=generator)
        references.append(Reference(t, x_t, start, truth))
    return references


@torch.no_grad()
def compare(references: Sequence[Reference], sampler: Any) -> Comparison:
    """`sampler` held against T references, its draws made from their noises."""
    found = []
    for r in references:
        draws = draw_in_tiles(sampler, r.x_t, r.t, len(r.noise), noise=r.noise)
        found.append((energy_distance(draws, r.draws), mean_error(draws, r.draws), spread(draws, r.draws)))
    return Comparison(*(torch.stack(figures) for figures in zip(*found, strict=True)))


def distances_to(references: Sequence[Reference], sampler: Any) -> Tensor:
    """Energy distances `(T, B)` of `sampler` to T references, its draws made from their noises."""
    return compare(references, sampler).distance


def glass_distances(
    model: DiamondMap,
    teacher: Model,
    z: Tensor,
    times: Iterable[float],
    *,
    draws: int = 256,
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32),
    reference_steps: int = 128,
    grid: str = "uniform",
    exact: bool = False,
    generator: Generator = None,
) -> dict[str, Tensor]:
    """Energy distances to the true posterior, of one-call draws of `model` and of the teacher's GLASS flow.

    Arguments:
        model: the map.
        teacher: the flow that it was distilled from.
        z: data `(B, *event)`, noised to each of `times`.
        times: outer times.
        draws: posterior draws a state; all samplers start from the same noises.
        steps: numbers of inner steps to try.
        reference_steps: inner steps of the GLASS flow taken for the truth.
        grid: of the others: "uniform" for GLASS as published; "posterior" is the better one at late times.
        exact: take the teacher's own `posterior` for the truth (an exact mixture).
        generator: of the noises.

    Returns:
        "map" `(T, B)`, "glass" `(len(steps), T, B)`.
    """
    references = draw_references(
        teacher, z, times, draws=draws, reference_steps=reference_steps, exact=exact, generator=generator
    )
    glass = [distances_to(references, GlassFlow(teacher, k, grid=grid)) for k in steps]
    return {"map": distances_to(references, model), "glass": torch.stack(glass)}


def equivalent_steps(distance: float, steps: Sequence[int], distances: Sequence[float]) -> float:
    """The number of GLASS steps at which `distances`, falling in `steps`, would reach `distance`: by interpolation of
    both logarithms, and no further than the first and last of `steps`."""
    logs = np.log(np.maximum(np.asarray(distances, dtype=float), 1e-12))
    order = np.argsort(logs)
    return float(
        np.exp(np.interp(np.log(max(distance, 1e-12)), logs[order], np.log(np.asarray(steps, dtype=float))[order]))
    )
