r"""Calibration of a posterior sampler: where the truth ranks among its draws.

Of data :math:`z`, noised to :math:`x_t`, and n draws of the posterior given :math:`x_t`, the truth is one of n + 1
exchangeable points if the sampler is exact for the data's law. So the rank of any number :math:`f(z)` among
:math:`f(z^1), \dots, f(z^n)` is uniform on 0, ..., n; with ties broken at random and the rank spread over its cell,

.. math:: u = \frac{\#\{f(z^i) < f(z)\} + v (1 + \#\{f(z^i) = f(z)\})}{n + 1}, \qquad v \sim U(0, 1),

it is uniform on [0, 1]. Draws that are too narrow put truths at both ends, draws that are too wide in the middle, and a
bias at one end. Against data the teacher's own errors count too: its GLASS flow is what a map can hope for.

References:
    | Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al., 2018),
      https://arxiv.org/abs/1804.06788
"""

from __future__ import annotations

import torch

from torch import Tensor

from ..randomness import Generator, normal, uniform

__all__ = ["random_projections", "truth_ranks", "uniformity"]


def truth_ranks(truth: Tensor, draws: Tensor, *, generator: Generator = None) -> Tensor:
    """The ranks `u` of numbers of the truth `(B, P)` among those of draws `(n, B, P)`: `(B, P)` in [0, 1].

    Raises:
        ValueError: shapes that do not fit, or no draws.
    """
    if truth.ndim != 2 or draws.ndim != 3 or draws.shape[1:] != truth.shape or not len(draws):
        raise ValueError(
            f"draws: got shape {tuple(draws.shape)} for a truth {tuple(truth.shape)}, expected (n, B, P) for (B, P)"
        )
    below, tied = (draws < truth).sum(0), (draws == truth).sum(0)
    place = uniform(truth.shape, generator, device=truth.device, dtype=torch.float64)
    return (below + place * (tied + 1)) / (len(draws) + 1)


def uniformity(ranks: Tensor) -> tuple[Tensor, Tensor]:
    """The Kolmogorov-Smirnov statistic of ranks `(B, P)` of B independent states against the uniform law, and its
    p-value, for each of P numbers: `(P,)` each."""
    from scipy.stats import kstest

    found = [kstest(column, "uniform") for column in ranks.double().cpu().T.numpy()]
    return (
        torch.tensor([result.statistic for result in found], dtype=torch.float64),
        torch.tensor([result.pvalue for result in found], dtype=torch.float64),
    )


def random_projections(z: Tensor, count: int, *, generator: Generator = None) -> Tensor:
    """`count` directions of unit length, uniform on the sphere, for events like those of `z` `(B, *event)`:
    `(count, *event)`."""
    directions = normal((count, *z.shape[1:]), generator, device=z.device, dtype=z.dtype).unsqueeze(-1).flatten(1)
    return (directions / directions.norm(dim=1, keepdim=True)).reshape(count, *z.shape[1:])
