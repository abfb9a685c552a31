r"""Damping guidance that rests on a single draw.

The mean gradient of a reward at posterior draws, :math:`E[\nabla_x r(z)]`, is steeper than the gradient of the value:
the logarithm of a mean of exponentials is flatter than the mean of logarithms. For a Gaussian posterior of variance
:math:`v_t` and a reward of curvature :math:`\kappa` (:math:`r = -\kappa |z - c|^2 / 2`) the two differ by the factor

.. math:: \frac{1}{1 + \kappa v_t}, \qquad v_t = \frac{s^2 \sigma_t^2}{\sigma_t^2 + s^2 \alpha_t^2},

with :math:`s` the standard deviation of the data, or of the mode that the state is in. The same factor is right for the
reward at the posterior mean (DPS). It mends the over-optimisation within a mode; which mode, it cannot choose.

References:
    | Are we really tilting? (Dandapanthula & Boffi, 2026), https://arxiv.org/abs/2606.02884
"""

from __future__ import annotations

import math

from collections.abc import Callable
from typing import Any

import torch

from diamond.interpolant import Interpolant
from diamond.validation import check_number

__all__ = ["as_schedule", "damping"]

Factor = float | Callable[[float], float]


def as_schedule(name: str, factor: Factor, least: float = -math.inf) -> Callable[[float], float]:
    """A number of at least `least`, or a function of t that gives them, as a function of t that checks them; `name` is
    the argument's.

    Raises:
        ValueError: it is neither, or no finite number, or (when asked) does not give one.
    """

    def check(number: Any, where: str) -> float:
        known = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not known or not math.isfinite(number) or number < least:
            bound = "" if least == -math.inf else f" of at least {least:g}"
            raise ValueError(
                f"{name}: {where} {number!r}, expected a finite number{bound}, or a function of t that gives one"
            )
        return float(number)

    if callable(factor):
        return lambda t: check(factor(t), f"at t = {t:g} it returned")
    number = check(factor, "got")
    return lambda t: number


def damping(interpolant: Interpolant, curvature: float, spread: float = 0.2) -> Callable[[float], float]:
    """The factor as a function of t, for `scale=` of :func:`align.guide`: exact for one draw and Gaussian data.

    Arguments:
        interpolant: the model's path.
        curvature: of the reward, `1 / noise**2` for a measurement with that noise; at least 0.
        spread: standard deviation of the data within a mode, above 0.

    Raises:
        ValueError: a number out of its range.
    """
    curvature = check_number("curvature", curvature, "a finite number of at least 0", lambda k: 0 <= k < math.inf)
    spread = check_number("spread", spread, "a positive finite number", lambda s: 0 < s < math.inf)

    def factor(t: float) -> float:
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = float(interpolant.alpha(time)), float(interpolant.sigma(time))
        variance = (spread * sigma) ** 2 / (sigma**2 + (spread * alpha) ** 2)
        return 1 / (1 + curvature * variance)

    return factor
