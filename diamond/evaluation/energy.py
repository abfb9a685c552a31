r"""The energy distance between the laws of :math:`X` and :math:`Y`.

.. math:: 2 E|X - Y| - E|X - X'| - E|Y - Y'| \ge 0,

which is zero only where they are equal. Its U-statistic is unbiased and so may come out slightly negative. Where draw
`i` of both samples started from the same noise, pairs `(i, i)` are left out of the first mean as of the others, which
keeps it unbiased and makes comparisons of two samplers against the same reference much sharper.

References:
    | Energy statistics (Szekely & Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018
"""

from __future__ import annotations

import torch

from torch import Tensor

__all__ = ["check_draws", "energy_distance"]


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased energy distance of draws `x` and `y` `(n, B, *event)`, for each of B laws: `(B,)`.

    Draws `x[i]` and `y[i]` may depend on each other; those of different `i` must not.

    Raises:
        ValueError: the shapes differ, or there are fewer than two draws.
    """
    check_draws(x, y)
    x, y = (draws.unsqueeze(-1).flatten(2).transpose(0, 1).double() for draws in (x, y))

    def mean_distance(a: Tensor, b: Tensor) -> Tensor:
        distances = torch.cdist(a, b)
        apart = distances.sum((1, 2)) - distances.diagonal(dim1=1, dim2=2).sum(1)
        return apart / (a.shape[1] * (a.shape[1] - 1))

    return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)


def check_draws(x: Tensor, y: Tensor) -> None:
    """Refuses draws of other shapes than each other, and less than two.

    Raises:
        ValueError: they are such.
    """
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(
            f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected equal ones with two draws or more"
        )
