r"""The Frechet distance of two samples in a space of features, as if both were Gaussian.

.. math:: |m - m'|^2 + \operatorname{tr} \left(C + C' - 2 (C^{1/2} C' C^{1/2})^{1/2}\right) .

The matrix under the second root is symmetric and positive, so both roots are taken by eigenvalues, in float64: there
are no complex numbers, and covariances without full rank do no harm. From few samples the distance is too large, so
figures compare at equal numbers of samples, and against the distance of held-out data.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500
    | The Frechet distance between multivariate normal distributions (Dowson & Landau, 1982),
      https://doi.org/10.1016/0047-259X(82)90077-X
"""

from __future__ import annotations

import torch

from torch import Tensor

__all__ = ["frechet_distance", "gaussian_frechet_distance"]


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Frechet distance, in squared units of the features, of samples `x` `(N, F)` and `y` `(M, F)`.

    Raises:
        ValueError: shapes that do not fit, fewer than two rows, or an entry that is not finite.
    """
    for name, rows in (("x", x), ("y", y)):
        if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != x.shape[-1]:
            raise ValueError(f"{name}: got shape {tuple(rows.shape)}, expected (N, F) with two rows or more, F equal")
        if not bool(rows.isfinite().all()):
            raise ValueError(f"{name}: got an entry that is not finite, expected numbers")
    x, y = x.double(), y.double()
    features = x.shape[1]
    return float(
        gaussian_frechet_distance(
            x.mean(0), x.T.cov().reshape(features, features), y.mean(0), y.T.cov().reshape(features, features)
        )
    )


def gaussian_frechet_distance(mean: Tensor, covariance: Tensor, other: Tensor, other_covariance: Tensor) -> Tensor:
    """The squared Frechet distance of two Gaussians with means `(F,)` and covariances `(F, F)`: a number, at least 0."""
    mean, covariance, other, other_covariance = (
        entry.double() for entry in (mean, covariance, other, other_covariance)
    )
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root @ other_covariance @ root
    shared = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    gap = (mean - other).square().sum()
    return (gap + covariance.trace() + other_covariance.trace() - 2 * shared).clamp_min(0)
