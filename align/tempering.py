r"""Tempering: the reward taken in by and by.

Before the end a particle is weighted by the value of the reward :math:`\beta r`,

.. math:: \hat V^\beta_t(x) = \log \tfrac1K \textstyle\sum_k \exp(\beta \, r(z^k)), \qquad 0 \le \beta \le 1,

and :math:`\beta = 1` comes with the reward itself at t = 1. A reward much narrower than the posterior is met by few
draws early on, and its estimated value is noise that kills good particles; a tempered one is not. As every value
estimate, :math:`\hat V^\beta` is kept with its particle and cancels from the product of the weights, so that
:math:`\beta` may be chosen at every step from the particles as they stand: the evidence stays unbiased.

References:
    | Inference for Levy-Driven Stochastic Volatility Models via Adaptive Sequential Monte Carlo (Jasra et al., 2011),
    | https://doi.org/10.1111/j.1467-9469.2010.00723.x (the ESS rule)
    | Test-time Alignment of Diffusion Models without Reward Over-optimization (DAS; Kim et al., 2025),
    | https://arxiv.org/abs/2501.05803
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch import Tensor

from .resampling import ess

__all__ = ["Tempering", "check_tempering", "inverse_temperature", "tempered"]

Tempering = Callable[[float], float] | float | None  # beta(t), a share of effective particles, or no tempering

HALVINGS = 24


def tempered(r: Tensor, beta: Tensor) -> Tensor:
    """`beta r`, with -inf as it is: "never this one" holds at every temperature."""
    return torch.where(r == -torch.inf, r, beta * r)


def check_tempering(tempering: Tempering) -> None:
    """Refuses what is neither None, nor a callable, nor a share in (0, 1).

    Raises:
        ValueError: it is none of these.
    """
    if tempering is None or callable(tempering):
        return
    if isinstance(tempering, bool) or not isinstance(tempering, (int, float)) or not 0 < tempering < 1:
        raise ValueError(
            f"tempering: got {tempering!r}, expected a callable beta(t), or the share of effective particles, in (0, 1), "
            "to choose beta by"
        )


def inverse_temperature(
    tempering: Tempering, t: float, weights_at: Callable[[Tensor], Tensor], before: Tensor
) -> Tensor:
    """`beta` at time `t` for each population, `(batch, 1)`.

    A schedule gives it. A share `s` is met by a `beta` between `before` and 1 at which the effective sample size is `s`
    times the particles, up to a bisection's accuracy of 1e-7; by 1 where it is larger there, and by `before` where it is
    smaller: to take back what the particles were chosen by would cost them again.

    Arguments:
        tempering: the schedule `beta(t)`, or the share.
        weights_at: the log-weights `(batch, particles)` that a `beta` `(batch, 1)` would give.
        before: the last `beta`, `(batch, 1)`, 0 at first.

    Raises:
        ValueError: the schedule gives a number outside [0, 1].
    """
    one = torch.ones_like(before)
    if callable(tempering):
        beta = float(tempering(t))
        if not 0 <= beta <= 1:
            raise ValueError(f"tempering: it returned {beta} at t = {t:g}, expected a number in [0, 1]")
        return beta * one
    if tempering is None:
        return one
    weights = weights_at(one)
    target = tempering * weights.shape[1]
    low, high, whole = before, one, ess(weights)[:, None] >= target
    for _ in range(0 if bool(whole.all()) else HALVINGS):
        middle = (low + high) / 2
        enough = ess(weights_at(middle))[:, None] >= target
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.where(whole, one, low)
