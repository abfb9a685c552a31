r"""Noising a state further, so that its noise-to-signal ratio grows by a given factor.

From :math:`x_t`, the state :math:`x' = a x_t + s \epsilon` at the time :math:`t'` with :math:`g(t') = \lambda g(t)`:

.. math:: a = \alpha_{t'} / \alpha_t, \qquad s^2 = \sigma_{t'}^2 - a^2 \sigma_t^2 = (1 - 1 / \lambda) \sigma_{t'}^2,

because :math:`\sigma_{t'} = \sqrt\lambda \, a \sigma_t`. Since :math:`(\alpha_{t'}, \sigma_{t'})` is :math:`(\alpha_t,
\sqrt\lambda \sigma_t)` times :math:`a`, the lengths of the two pairs give :math:`a` at the ends of time as well.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, section 5
"""

from __future__ import annotations

import math

from typing import NamedTuple

import torch

from torch import Tensor

from .interpolant import Interpolant

__all__ = ["Renoising", "check_snr", "renoising"]


class Renoising(NamedTuple):
    """`x' = scale x_t + noise eps` stands at `time`; each field `(B,)`, float64."""

    time: Tensor
    scale: Tensor
    noise: Tensor


def renoising(interpolant: Interpolant, t: Tensor, snr: float) -> Renoising:
    """How states at `t` `(B,)` are brought to the time with `snr` times their noise-to-signal ratio; finite on all of
    [0, 1], where 0 and 1 stay where they are."""
    t, root = t.double(), math.sqrt(snr)
    signal, noise = interpolant.alpha(t), root * interpolant.sigma(t)
    time = interpolant.time_of(signal, noise)
    sigma = interpolant.sigma(time)
    scale = torch.hypot(interpolant.alpha(time), sigma) / torch.hypot(signal, noise)
    return Renoising(time, scale, sigma * math.sqrt(1 - 1 / snr))


def check_snr(snr: float) -> float:
    """`snr`, if it is a finite factor above 1.

    Raises:
        ValueError: it is not.
    """
    if isinstance(snr, bool) or not isinstance(snr, (int, float)) or not 1 < snr < math.inf:
        raise ValueError(
            f"snr: got {snr!r}, expected a finite factor above 1 (at 1 nothing is random, and the proposal is the flow "
            "map's own look-ahead)"
        )
    return float(snr)
