r"""Noising a state further, so that its noise-to-signal ratio grows by a given factor.

From :math:`x_t`, the state :math:`x' = a x_t + s \epsilon` at the time :math:`t'` with :math:`g(t') = \lambda g(t)`:

.. math:: a = \alpha_{t'} / \alpha_t, \qquad s^2 = \sigma_{t'}^2 - a^2 \sigma_t^2 = (1 - 1 / \lambda) \sigma_{t'}^2,

because :math:`\sigma_{t'} = \sqrt\lambda \, a \sigma_t`. Since :math:`(\alpha_{t'}, \sigma_{t'})` is :math:`(\alpha_t,
\sqrt\lambda \sigma_t)` times :math:`a`, the lengths of the two pairs give :math:`a` at the ends of time as well.

**The matched factor.** For data :math:`N(m, S^2 I)` the flow map from :math:`t'` is affine, and the law of :math:`x'`
that it carries to the posterior is Gaussian. Its mean and variance are those of the noised state at

.. math:: \lambda(t) = 2 + g(t) / S^2,

for every mean: there the proposal is the posterior itself. For broad data the factor is 2 throughout; as t tends to 0
it grows without bound, and :math:`x'` becomes fresh noise.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, section 5
"""

from __future__ import annotations

import math

from typing import NamedTuple

import torch

from torch import Tensor

from .interpolant import Interpolant

__all__ = ["Renoising", "check_data_std", "check_snr", "renoising"]


class Renoising(NamedTuple):
    """`x' = scale x_t + noise eps` stands at `time`; each field `(B,)`, float64."""

    time: Tensor
    scale: Tensor
    noise: Tensor


def renoising(interpolant: Interpolant, t: Tensor, snr: float, data_std: float | None = None) -> Renoising:
    """How states at `t` `(B,)` are brought to the time with `snr` times their noise-to-signal ratio, or the factor that
    matches data of standard deviation `data_std`; finite on all of [0, 1], where 0 and 1 stay where they are."""
    t = t.double()
    alpha, sigma = interpolant.alpha(t), interpolant.sigma(t)
    if data_std is None:
        common, spread, share = torch.ones_like(t), math.sqrt(snr) * sigma, 1 - 1 / snr + torch.zeros_like(t)
    else:  # the pair times `common`, which is finite where the factor is not
        common = data_std * alpha
        power, noise = common.square(), sigma.square()
        spread, share = sigma * (2 * power + noise).sqrt(), (power + noise) / (2 * power + noise)
    time = interpolant.time_of(common * alpha, spread)
    sigma_there = interpolant.sigma(time)
    length = torch.hypot(interpolant.alpha(time), sigma_there)
    scale = common * length / torch.hypot(common * alpha, spread)
    return Renoising(time, scale, sigma_there * share.sqrt())


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


def check_data_std(data_std: float | None) -> float | None:
    """`data_std`, if it is None or positive and finite.

    Raises:
        ValueError: it is not.
    """
    if data_std is None:
        return None
    if isinstance(data_std, bool) or not isinstance(data_std, (int, float)) or not 0 < data_std < math.inf:
        raise ValueError(f"data_std: got {data_std!r}, expected a positive standard deviation")
    return float(data_std)
