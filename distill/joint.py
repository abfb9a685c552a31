r"""One call for both parts of a batch.

A step asks the same of a network at pairs :math:`s < r` and on the diagonal: of a teacher its velocity, and of a map that is
regressed its mean velocity :math:`U_{s,r}(x) = (X_{s,r}(x) - x) / (r - s)`, whose limit on the diagonal is the slope. One
call for all rows costs less than two for the halves. The points on the diagonal are known before any loss is worked out;
those of the pairs may turn up within it, as the Lagrangian one's do, which lie where the map leads.

References:
    | Mean Flows (Geng et al., 2025), https://arxiv.org/abs/2505.13447 (one network for mean velocities and slopes)
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch import Tensor

from diamond.interpolant import per_sample

from .problems import Problem

__all__ = ["Jointly", "joint_map"]


class Jointly:
    """A function of rows, asked at once for the first rows of a batch and for the last.

    Arguments:
        function: gives `(B, *event)` for points of all rows.
        alone: the same of the last rows, should nobody ask for the first.
        last: points of the last rows, each `(B_last, ...)`.
    """

    def __init__(self, function: Callable[..., Tensor], alone: Callable[..., Tensor], *last: Tensor) -> None:
        self.function, self.alone, self.last = function, alone, last
        self.found: Tensor | None = None

    def __call__(self, *first: Tensor) -> Tensor:
        """At points of the first rows."""
        answers = self.function(*(torch.cat(both) for both in zip(first, self.last, strict=True)))
        found, self.found = answers.split([len(first[0]), len(self.last[0])])
        return found

    def rest(self) -> Tensor:
        """At those of the last rows, as the first rows' call found it."""
        return self.alone(*self.last) if self.found is None else self.found


def joint_map(
    problem: Problem, off: int, x: Tensor, s: Tensor
) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """The map :math:`X_{s,r}(x)` of the first `off` rows, which is to be asked once, and then the slope at points `x`, `s`
    of the others: in one call of the network, where the map tells its mean velocities, and in two where not."""
    first, last = problem.rows(slice(0, off)), problem.rows(slice(off, off + len(x)))
    if not problem.tells_mean_velocity:
        return first.displace, last.slope
    average = Jointly(problem.mean_velocity, last.mean_velocity, x, s, s)
    return lambda x, s, r: torch.addcmul(x, per_sample(r - s, x), average(x, s, r)), lambda x, s: average.rest()
