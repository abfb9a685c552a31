r"""Which times a training step looks at.

A law of single times is known by its quantile function, through which uniform numbers pass:

.. math::
    \text{uniform} &: t = u                                     && P(t \le x) = x \\
    \text{logit-normal} &: t = \mathrm{logistic}(\Phi^{-1}(u))  && P(t \le x) = \Phi(\mathrm{logit}\, x) \\
    \text{early} &: t = 1 - \sqrt{1 - u}                        && P(t \le x) = 1 - (1 - x)^2

The second favours the middle, where a flow must decide most; the third the beginning, where posteriors are wide and a
look-ahead is worth most. Inner pairs :math:`(s, r)` mix three laws: the sorted pair of two such times (of uniform ones:
the whole triangle, needed for sampling in several steps); :math:`s = 0` with uniform :math:`r` (all that a one-call
posterior draw and an early-stopped transition ever use); and uniform :math:`s` with :math:`r = 1`. A Lagrangian identity
carries what it knows along the first edge, forwards in :math:`r`; an Eulerian one along the second, backwards in
:math:`s`.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993 (its code: uniform times, sorted pairs)
    | Scaling Rectified Flow Transformers (Esser et al., 2024), https://arxiv.org/abs/2403.03206 (logit-normal times)
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch import Tensor

from diamond.randomness import Generator, uniform
from diamond.validation import check_choice

__all__ = ["LATEST", "QUANTILES", "draw_times", "inner_grid", "inner_pairs", "uniform_times"]

LATEST = 1 - 1e-3  # the inner velocity (D - x) / (1 - s) is a quotient 0 / 0 at 1

QUANTILES: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    "logit-normal": lambda u: torch.special.ndtri(u).sigmoid(),
    "early": lambda u: 1 - (1 - u).sqrt(),
}


def uniform_times(n: int, generator: Generator, device: torch.device, latest: float = 1.0) -> Tensor:
    """`(n,)` times, one uniform in each of `n` equal cells of [0, latest], in random order: less noise in the loss
    than independent ones, and each of them still uniform."""
    offsets = uniform((n,), generator, device=device)
    order = uniform((n,), generator, device=device).argsort()
    return (order + offsets) / n * latest


def draw_times(law: str, n: int, generator: Generator, device: torch.device, latest: float = 1.0) -> Tensor:
    """`(n,)` times in [0, latest] of a law of :data:`QUANTILES`, one from each of `n` cells of equal probability, in
    random order.

    Raises:
        ValueError: no law has that name.
    """
    quantile = QUANTILES[check_choice("times", law, QUANTILES)]
    return quantile(uniform_times(n, generator, device)) * latest


def inner_pairs(
    n: int, from_zero: float, generator: Generator, device: torch.device, *, to_one: float = 0.0, law: str = "uniform"
) -> tuple[Tensor, Tensor]:
    """`n` pairs `0 <= s < r <= 1`, `(n,)` each, at least `1 - LATEST` apart.

    Arguments:
        n: how many.
        from_zero: share of them that has `s = 0`, and `r` uniform on [0, LATEST].
        generator, device: of the numbers drawn.
        to_one: share of them that has `r = 1`, and `s` uniform on [0, LATEST].
        law: of both times of the others, before they are sorted: see :data:`QUANTILES`.
    """
    edge = uniform_times(n, generator, device, LATEST)
    second = uniform((n,), generator, device=device)
    which = uniform((n,), generator, device=device)
    quantile = QUANTILES[check_choice("times", law, QUANTILES)]
    one, other = quantile(edge / LATEST) * LATEST, quantile(second) * LATEST
    begins, ends = which < from_zero, which >= 1 - to_one
    s = torch.where(begins, 0.0, torch.where(ends, edge, torch.minimum(one, other)))
    r = torch.where(begins, edge, torch.where(ends, 1.0, torch.maximum(one, other)))
    return s, torch.maximum(r, s + (1 - LATEST)).clamp_max(1.0)


def inner_grid(n: int, points: int, generator: Generator, device: torch.device) -> Tensor:
    """`n` grids from 0 to 1 of `points` steps, `(n, points + 1)`: closer towards 1, where the flow turns fastest, and
    jittered, so that every inner time is met, but for the first step, which takes at least `1 - LATEST`."""
    jitter = uniform((n, points - 1), generator, device=device)
    inner = (torch.arange(points - 1, device=device) + jitter) / (points - 1)
    ends = torch.zeros(n, 1, device=device), torch.ones(n, 1, device=device)
    between = (1 - (1 - 0.97 * inner) ** 1.5).clamp_min(1 - LATEST)
    return torch.cat([ends[0], between, ends[1]], dim=1)
