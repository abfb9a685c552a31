r"""The pairs of points that a step looks at off the diagonal: states at times :math:`s`, to be carried to :math:`r > s`."""

from __future__ import annotations

import math

from typing import NamedTuple

import torch

from torch import Tensor

from diamond.randomness import Generator, uniform

__all__ = ["Pairs", "pairs_along"]


class Pairs(NamedTuple):
    """States `x` `(B, *event)` at times `s`, to be carried to `r`, `(B,)` each; what is known of them before any loss,
    `(B, *event)`: where they should be carried, or else the velocity of the path from noise to data that they lie on; and
    the rows `ends` that go all the way."""

    x: Tensor
    s: Tensor
    r: Tensor
    known: Tensor
    ends: Tensor | None = None


def pairs_along(states: Tensor, grid: Tensor, from_zero: float, generator: Generator) -> Pairs:
    """Two points on each trajectory, the later of them known.

    Arguments:
        states: trajectories `(K + 1, B, *event)`.
        grid: their times `(B, K + 1)`.
        from_zero: the share of pairs that begin at the first point, half of which, rounded up, end at the last and are
            `ends`; the others lead from any point to any later one. Always as many, so that a GPU meets the same shapes
            at each step, and need not wait for their number.
        generator: of the numbers drawn.
    """
    n, last = len(grid), grid.shape[1] - 1
    row = torch.arange(n, device=grid.device)
    draws = uniform((3, n), generator, device=grid.device, batch_axis=1)
    one, other = (draws[:2] * last).long()
    rank = draws[2].argsort()
    first, ends = rank[: math.ceil(n * from_zero)], rank[: math.ceil(n * from_zero / 2)]
    i = torch.minimum(one, other).index_fill(0, first, 0)
    j = (torch.maximum(one, other) + 1).index_fill(0, ends, last)
    return Pairs(states[i, row], grid[row, i], grid[row, j], states[j, row], ends)
