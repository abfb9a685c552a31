r"""Which times a training step looks at.

Outer times are uniform on [0, 1]. Inner pairs :math:`(s, r)` mix two laws: the sorted pair of uniforms (the whole
triangle, needed for sampling in several steps), and :math:`s = 0` with uniform :math:`r` (all that a one-call
posterior draw and an early-stopped transition ever use).

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993 (its code: uniform times, sorted pairs)
"""

from __future__ import annotations

import torch

from torch import Tensor

from diamond.randomness import Generator, uniform

__all__ = ["LATEST", "inner_grid", "inner_pairs", "uniform_times"]

LATEST = 1 - 1e-3  # the inner velocity (D - x) / (1 - s) is a quotient 0 / 0 at 1


def uniform_times(n: int, generator: Generator, device: torch.device, latest: float = 1.0) -> Tensor:
    """`(n,)` times, one uniform in each of `n` equal cells of [0, latest], in random order: less noise in the loss
    than independent ones, and each of them still uniform."""
    offsets = uniform((n,), generator, device=device)
    order = uniform((n,), generator, device=device).argsort()
    return (order + offsets) / n * latest


def inner_pairs(n: int, from_zero: float, generator: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """`n` pairs `0 <= s <= r <= LATEST`, `(n,)` each; a share `from_zero` of them has `s = 0`."""
    first = uniform_times(n, generator, device, LATEST)
    second = uniform((n,), generator, device=device) * LATEST
    start = uniform((n,), generator, device=device) < from_zero
    s = torch.where(start, 0.0, torch.minimum(first, second))
    return s, torch.where(start, first, torch.maximum(first, second))


def inner_grid(n: int, points: int, generator: Generator, device: torch.device) -> Tensor:
    """`n` grids from 0 to 1 of `points` steps, `(n, points + 1)`: closer towards 1, where the flow turns fastest, and
    jittered, so that every inner time is met."""
    jitter = uniform((n, points - 1), generator, device=device)
    inner = (torch.arange(points - 1, device=device) + jitter) / (points - 1)
    ends = torch.zeros(n, 1, device=device), torch.ones(n, 1, device=device)
    return torch.cat([ends[0], 1 - (1 - 0.97 * inner) ** 1.5, ends[1]], dim=1)
