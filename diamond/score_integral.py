r"""Differences of a log-density, from its score alone.

.. math:: \log p(y) - \log p(x) = \int_0^1 \nabla \log p(x + u (y - x)) \cdot (y - x) \, du,

by a Gauss-Lobatto rule, whose nodes include both ends. With :math:`k` nodes it is exact where the score along the line
is a polynomial of degree :math:`2k - 3`: two nodes, the trapezoid rule, for a Gaussian; three, Simpson's, for a cubic.

The derivative needs no derivative of the score: it is :math:`\nabla \log p` at the two ends, which are nodes.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, section 5 (the trapezoid rule)
    | Methods of Numerical Integration (Davis and Rabinowitz, 1984), section 2.7 (Gauss-Lobatto rules)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from torch import Tensor

__all__ = ["lobatto", "log_density_change", "over_event"]


@lru_cache(maxsize=32)
def lobatto(nodes: int) -> tuple[Tensor, Tensor]:
    """The `nodes` >= 2 positions on [0, 1], both ends among them, and the weights of the rule, which add up to 1;
    `(nodes,)` each, float64."""
    # between the ends stand the zeros of P'_{nodes-1}, the eigenvalues of the Jacobi matrix for the weight 1 - x^2
    order = torch.arange(1, max(nodes - 2, 1), dtype=torch.float64)
    coupling = (order * (order + 2) / ((2 * order + 1) * (2 * order + 3))).sqrt()
    inner = torch.linalg.eigvalsh(torch.diag(coupling, 1) + torch.diag(coupling, -1))[: nodes - 2]
    x = torch.cat([inner.new_full((1,), -1.0), inner, inner.new_ones(1)])
    before, legendre = torch.ones_like(x), x
    for degree in range(1, nodes - 1):
        before, legendre = legendre, ((2 * degree + 1) * x * legendre - degree * before) / (degree + 1)
    return (x + 1) / 2, 1 / (nodes * (nodes - 1) * legendre.square())


def log_density_change(score: Callable[[Tensor, int], Tensor], x: Tensor, y: Tensor, nodes: int = 2) -> Tensor:
    """`log p(y) - log p(x)`, `(n, B)`, in float32 or better; its derivatives in `x` and `y`, of first order, are the
    scores at these ends.

    Arguments:
        score: `score(points, copies)` gives `grad log p` `(copies * B, *event)` at points of that shape, the B rows
            over and over; called once, with `copies = 1 + (nodes - 1) n`, and never differentiated.
        x: starts `(B, *event)`.
        y: ends `(n, B, *event)`.
        nodes: nodes of the rule, at least 2. That at `x` is shared by all `n` lines.
    """
    positions, weights = lobatto(nodes)
    n, precise = len(y), torch.promote_types(y.dtype, torch.float32)
    with torch.no_grad():
        inner = [torch.lerp(x, y, float(u)) for u in positions[1:-1]]
        points = torch.cat([x[None], *inner, y])
        scores = score(points.flatten(0, 1), len(points)).reshape(points.shape).to(precise)
        start, along = scores[0], scores[1:].unflatten(0, (nodes - 1, n))
        mean = float(weights[0]) * start + torch.tensordot(weights[1:].to(along), along, dims=1)
        change = over_event(mean * (y - x).to(precise))
    if not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
        return change
    # zeros that carry the known derivative
    return change + over_event(along[-1] * (y - y.detach()) - start * (x - x.detach()))


def over_event(x: Tensor) -> Tensor:
    """The sum of `(n, B, *event)` over the event, `(n, B)`."""
    return x.unsqueeze(-1).flatten(2).sum(-1)
