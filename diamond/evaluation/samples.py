r"""Samples in a judge's eyes: how near to the data, how true, how complete, how various, of which class.

**Diversity** is the mean distance between two samples of a class, relative to that between two data of the class, both
in the judge's features, a mean over classes: 1 is the data's, 0 is one sample over and over.

References:
    | Improved Precision and Recall Metric for Assessing Generative Models (Kynkaanniemi et al., 2019),
      https://arxiv.org/abs/1904.06991
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torch import Tensor

from .frechet import frechet_distance
from .manifolds import precision_recall

__all__ = ["JudgedData", "diversity", "sample_quality"]

NEIGHBOURS = 3
SPREAD_ROWS = 500  # samples of a class whose pairwise distances are taken


@dataclass(frozen=True, eq=False)
class JudgedData:
    """Data as a judge sees them: features `(N, F)`, and labels `(N,)`, their own or else the judge's."""

    features: Tensor
    labels: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, judge: Any, images: Tensor, labels: Tensor | None = None) -> JudgedData:
        """Images `(N, C, H, W)` in [-1, 1] before a :class:`diamond.judges.Judge`.

        Raises:
            ValueError: not one label an image.
        """
        if labels is not None and labels.shape != images.shape[:1]:
            raise ValueError(f"labels: got shape {tuple(labels.shape)}, expected one an image, ({len(images)},)")
        return cls(judge.features(images), judge.labels(images) if labels is None else labels.to(images.device))


@torch.no_grad()
def sample_quality(
    judge: Any, data: JudgedData, samples: Tensor, labels: Tensor | None = None, *, rows: int | None = None
) -> dict[str, float]:
    """Figures of samples `(N, C, H, W)`, and which way is up.

    Arguments:
        judge: a :class:`diamond.judges.Judge`.
        data: what the samples should be like.
        samples: in [-1, 1], or near.
        labels: the classes asked for, `(N,)`, of conditional samples.
        rows: first so many of samples and of data enter precision and recall; as many as both have by default.

    Returns:
        "frechet" (0 is best), "precision", "recall", "diversity" (1 is best), and with `labels` "accuracy".

    Raises:
        ValueError: images of another shape than the judge's, or too few of them, or not one label an image.
    """
    judged = JudgedData.of(judge, samples, labels)
    rows = min(len(judged.features), len(data.features)) if rows is None else rows
    precision, recall = precision_recall(data.features[:rows], judged.features[:rows], NEIGHBOURS)
    figures = {
        "frechet": frechet_distance(judged.features, data.features),
        "precision": precision,
        "recall": recall,
        "diversity": diversity(judged, data),
    }
    if labels is not None:
        figures["accuracy"] = float((judge.labels(samples) == judged.labels).double().mean())
    return figures


def diversity(made: JudgedData, data: JudgedData) -> float:
    """The spread within classes of `made` relative to that of `data`, over classes of which both have two or more; no
    number (NaN) where there is no such class."""
    ratios = []
    for label in data.labels.unique():
        mine, theirs = (judged.features[judged.labels == label][:SPREAD_ROWS] for judged in (made, data))
        if min(len(mine), len(theirs)) > 1:
            ratios.append(_spread(mine) / _spread(theirs))
    return float(torch.stack(ratios).mean()) if ratios else float("nan")


def _spread(points: Tensor) -> Tensor:
    """The mean distance between two different points of `(N, F)`."""
    points = points.double()
    return torch.cdist(points, points).sum() / (len(points) * (len(points) - 1))
