r"""How good a posterior sampler is, as a sampler of posteriors.

The energy distance between the laws of :math:`X` and :math:`Y`,

.. math:: 2 E|X - Y| - E|X - X'| - E|Y - Y'| \ge 0,

is zero only where they are equal. Its U-statistic is unbiased and so may come out slightly negative. Where draw `i` of
both samples started from the same noise, pairs `(i, i)` are left out of the first mean as of the others, which keeps it
unbiased and makes comparisons of two samplers against the same reference much sharper.

References:
    | Energy statistics (Szekely & Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from torch import Tensor

from .diamond_map import DiamondMap
from .glass import GlassFlow
from .model import Model
from .randomness import Generator, normal

__all__ = ["energy_distance", "equivalent_steps", "glass_distances"]


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased energy distance of draws `x` and `y` `(n, B, *event)`, for each of B laws: `(B,)`.

    Draws `x[i]` and `y[i]` may depend on each other; those of different `i` must not.

    Raises:
        ValueError: the shapes differ, or there are fewer than two draws.
    """
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(
            f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected equal ones with two draws or more"
        )
    x, y = (draws.flatten(2).transpose(0, 1).double() for draws in (x, y))

    def mean_distance(a: Tensor, b: Tensor) -> Tensor:
        distances = torch.cdist(a, b)
        apart = distances.sum((1, 2)) - distances.diagonal(dim1=1, dim2=2).sum(1)
        return apart / (a.shape[1] * (a.shape[1] - 1))

    return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)


@torch.no_grad()
def glass_distances(
    model: DiamondMap,
    teacher: Model,
    z: Tensor,
    times: Sequence[float],
    *,
    draws: int = 256,
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32),
    reference_steps: int = 128,
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
        exact: take the teacher's own `posterior` for the truth (an exact mixture).
        generator: of the noises.

    Returns:
        "map" `(T, B)`, "glass" `(len(steps), T, B)`.
    """
    reference: Any = teacher if exact else GlassFlow(teacher, reference_steps)
    mine, theirs = [], []
    for t in times:
        noise = normal(z.shape, generator, device=z.device, dtype=z.dtype)
        x_t = teacher.interpolant.interpolate(z, noise, torch.full((len(z),), t, device=z.device, dtype=z.dtype))
        start = normal((draws, *z.shape), generator, batch_axis=1, device=z.device, dtype=z.dtype)
        shared = {} if exact else {"noise": start}
        truth = reference.posterior(x_t, t, draws, generator=generator, **shared)
        mine.append(energy_distance(model.posterior(x_t, t, draws, noise=start), truth))
        theirs.append(
            [energy_distance(GlassFlow(teacher, k).posterior(x_t, t, draws, noise=start), truth) for k in steps]
        )
    return {"map": torch.stack(mine), "glass": torch.stack([torch.stack(row) for row in theirs], dim=1)}


def equivalent_steps(distance: float, steps: Sequence[int], distances: Sequence[float]) -> float:
    """The number of GLASS steps at which `distances`, falling in `steps`, would reach `distance`: by interpolation of
    both logarithms, and no further than the first and last of `steps`."""
    logs = np.log(np.maximum(np.asarray(distances, dtype=float), 1e-12))
    order = np.argsort(logs)
    return float(
        np.exp(np.interp(np.log(max(distance, 1e-12)), logs[order], np.log(np.asarray(steps, dtype=float))[order]))
    )
