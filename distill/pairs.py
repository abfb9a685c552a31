r"""The pairs of points that a step looks at off the diagonal: states at times :math:`s`, to be carried to :math:`r > s`."""

from __future__ import annotations

from typing import NamedTuple

import torch

from torch import Tensor

from diamond.randomness import Generator, uniform

__all__ = ["Pairs", "pairs_along"]


class Pairs(NamedTuple):
    """States `x` `(B, *event)` at times `s`, to be carried to `r`, `(B,)` each; and what is known of them before any loss,
    `(B, *event)`: where they should be carried, or else the velocity of the path from noise to data that they lie on."""

    x: Tensor
    s: Tensor
    r: Tensor
    known: Tensor


def pairs_along(states: Tensor, grid: Tensor, from_zero: float, generator: Generator) -> Pairs:
    """Two points on each trajectory, the later of them known.

    Arguments:
        states: trajectories `(K + 1, B, *event)`.
        grid: their times `(B, K + 1)`.
        from_zero: the share of pairs that begin at the first point, half of which end at the last; the others lead from
            any point to any later one.
        generator: of the numbers drawn.
    """
    n, last = len(grid), grid.shape[1] - 1
    row = torch.arange(n, device=grid.device)
    draws = uniform((3, n), generator, device=grid.device, batch_axis=1)
    one, other = (draws[:2] * last).long()
    i, j = torch.minimum(one, other), torch.maximum(one, other) + 1
    i = torch.where(draws[2] < from_zero, 0, i)
    j = torch.where(draws[2] < from_zero / 2, last, j)
    return Pairs(states[i, row], grid[row, i], grid[row, j], states[j, row])
