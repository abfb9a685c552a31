r"""Improved precision and recall: how many samples lie among the data, and how many data among the samples.

A set's manifold is the union of balls about its points, each out to its k-th nearest other point of the set. Precision
is the share of samples inside the data's manifold, recall the share of data inside the samples'.

References:
    | Improved Precision and Recall Metric for Assessing Generative Models (Kynkaanniemi et al., 2019),
      https://arxiv.org/abs/1904.06991
"""

from __future__ import annotations

import torch

from torch import Tensor

from ..validation import check_positive

__all__ = ["precision_recall"]

CHUNK = 512  # rows of distances that are held at once


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall, each in [0, 1], of samples `made` `(M, F)` against data `real` `(N, F)`.

    Arguments:
        real, made: features; the figures compare only at equal N and M.
        k: which neighbour's distance is a ball's radius.

    Raises:
        ValueError: shapes that do not fit, or k neighbours that are not there.
    """
    for name, rows in (("real", real), ("made", made)):
        if rows.ndim != 2 or rows.shape[1] != real.shape[-1] or len(rows) <= check_positive("k", k):
            raise ValueError(f"{name}: got shape {tuple(rows.shape)}, expected (N, F) with N above k = {k}, F equal")
    real, made = real.double(), made.double()
    return _covered(made, real, _radii(real, k)), _covered(real, made, _radii(made, k))


def _radii(points: Tensor, k: int) -> Tensor:
    """The distance of each point to its k-th nearest other one, `(N,)`."""
    nearest = [torch.cdist(part, points).topk(k + 1, largest=False).values[:, -1] for part in points.split(CHUNK)]
    return torch.cat(nearest)  # itself is the 0-th


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of `points` inside any ball."""
    inside = [(torch.cdist(part, centres) <= radii).any(1) for part in points.split(CHUNK)]
    return float(torch.cat(inside).double().mean())
