r"""How far weighted samples are from the tilted law.

Of each population: the error of :math:`\log \hat Z`; the mean square error of the mean, each coordinate in units of
its tilted standard deviation; the error of the covariance in Frobenius norm relative to the truth's; and the share of
effective particles. Standard errors are over populations, the root of a mean square by the delta method.
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

from align.resampling import ess

from .tilts import Tilt

__all__ = ["law_figures", "mean_and_error", "root_mean_square"]


def law_figures(samples: Tensor, log_weights: Tensor, log_z: Tensor | None, tilt: Tilt) -> dict[str, Any]:
    """The figures of samples `(batch, particles, D)` with log-weights `(batch, particles)`, each a number or `{"mean",
    "error"}`; those of log Z only where it is estimated, `(batch,)`."""
    weights, samples = log_weights.double().softmax(1), samples.double()
    truth_mean, truth_covariance = tilt.law.mean(), tilt.law.covariance()
    mean = torch.einsum("bn,bnd->bd", weights, samples)
    centred = samples - mean[:, None]
    covariance = torch.einsum("bn,bnd,bne->bde", weights, centred, centred)
    off = (mean - truth_mean) / truth_covariance.diagonal().sqrt()
    gap = (covariance - truth_covariance).flatten(1).norm(dim=1) / truth_covariance.norm()
    figures: dict[str, Any] = {
        "mean": root_mean_square(off.square().mean(1)),
        "covariance": mean_and_error(gap),
        "covariance, median": float(gap.median()),
        "ess": mean_and_error(ess(log_weights) / log_weights.shape[1]),
    }
    if log_z is not None:
        wrong = log_z.double() - tilt.log_z
        figures |= {
            "log z": mean_and_error(wrong),
            "log z, median": float(wrong.median()),
            "log z, root mean square": root_mean_square(wrong.square()),
        }
    return figures


def mean_and_error(values: Tensor) -> dict[str, float]:
    """The mean of values `(N,)` and its standard error."""
    error = values.double().std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(0.0)
    return {"mean": float(values.double().mean()), "error": float(error)}


def root_mean_square(squares: Tensor) -> dict[str, float]:
    """The root of the mean of squares `(N,)`, and its standard error."""
    square = mean_and_error(squares)
    root = square["mean"] ** 0.5
    return {"mean": root, "error": square["error"] / (2 * root) if root else 0.0}
