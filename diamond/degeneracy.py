r"""How many of a set of weighted draws are effective, and a warning where they are too few.

Weights :math:`w_1 \dots w_n` are worth

.. math:: \mathrm{ESS} = \Big(\sum_i w_i\Big)^2 \Big/ \sum_i w_i^2

equal ones: n where all are equal, 1 where one outweighs the rest.

Of 8 draws or more, less than a fifth in the median state are too few. Of 4 to 7 a fifth may be less than 1, and so few say
little of each state: they are too few where one outweighs the rest, ESS < 1.1, in every state. Log-normal weights of which
a fifth are effective, the border of the other rule, look so in one state of 200 at 4 draws.

References:
    | Monte Carlo Strategies in Scientific Computing (Liu, 2001), section 2.5
"""

from __future__ import annotations

import warnings

import torch

from torch import Tensor

__all__ = ["DegenerateWeights", "effective_size", "warn_of_degeneracy"]

LEAST_DRAWS, LEAST_SHARE = 8, 0.2
FEWEST_DRAWS, ALONE = 4, 1.1


class DegenerateWeights(UserWarning):
    """Of 8 weighted draws or more, less than a fifth are effective in the median state, or of 4 to 7 one alone in every
    state: a few decide the estimate."""


def effective_size(log_weights: Tensor, dim: int = 0) -> Tensor:
    """The effective sample size along `dim` of n log-weights: from 1 to n, and 0 where all of them are -inf."""
    return log_weights.softmax(dim).square().sum(dim).reciprocal().nan_to_num(nan=0.0)


def warn_of_degeneracy(log_weights: Tensor, factor: str, t: Tensor, stacklevel: int = 3) -> None:
    """Warns, once, where the median effective size of log-weights `(n, ...)` is less than a fifth of 8 or more, or the
    largest less than 1.1 of 4 to 7; the `factor` they come from and the times `t` are what the message tells."""
    n = len(log_weights)
    if n < FEWEST_DRAWS or not log_weights.numel():
        return
    sizes, many = effective_size(log_weights.detach()), n >= LEAST_DRAWS
    size = float(sizes.median() if many else sizes.max())
    if size < (LEAST_SHARE * n if many else ALONE):
        low, high = (float(end) for end in torch.aminmax(t.detach()))
        which = "median" if many else "largest"
        when = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
        warnings.warn(
            f"weights: the {which} effective sample size is {size:.2g} of {n} draws at {factor} and t={when}; "
            "diamond.choose_snr finds the best factor for given states, and data_std= one for each time",
            DegenerateWeights,
            stacklevel=stacklevel,
        )
