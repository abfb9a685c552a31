r"""Two independent noisy looks at the same clean data are worth one look at a later time.

Given :math:`z`, let :math:`x = \alpha_x z + \sigma_x \epsilon` and :math:`y = \alpha_y z + \sigma_y \epsilon'` with
independent standard normal noises. Precisions add, so all that the pair knows of :math:`z` is in

.. math::
    \left(\tfrac{\alpha_*}{\sigma_*}\right)^2 &= \left(\tfrac{\alpha_x}{\sigma_x}\right)^2
                                              + \left(\tfrac{\alpha_y}{\sigma_y}\right)^2, \qquad
    x_* = \sigma_* (p \, x / \sigma_x + q \, y / \sigma_y), \qquad
    (p, q) \propto (\alpha_x / \sigma_x, \alpha_y / \sigma_y), \; p^2 + q^2 = 1,

and :math:`x_*` is distributed as the state at the effective time :math:`t_*`: :math:`E[z \mid x, y] = D_{t_*}(x_*)`,
one call of the pretrained denoiser. What is left of the pair,

.. math:: n = q \, x / \sigma_x - p \, y / \sigma_y,

holds no signal: it is standard normal, independent of :math:`z` and of :math:`x_*` (an ancillary statistic). So
:math:`(x_*, n)` is the pair :math:`(x, y)` in whitened, decorrelated coordinates, at every pair of noise levels.

References:
    | GLASS Flows (Holderrieth et al., 2025), https://arxiv.org/abs/2509.25170, Proposition 2 (the statistic and t*)
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from torch import Tensor

from .interpolant import Interpolant, per_sample

__all__ = ["Looks", "combine_looks"]


class Looks(NamedTuple):
    """What two looks at `z` amount to. Each field is `(B,)`."""

    time: Tensor  # t*, the effective time
    weights: tuple[Tensor, Tensor]  # x* = weights[0] x + weights[1] y
    ancillary: tuple[Tensor, Tensor]  # n = ancillary[0] x + ancillary[1] y

    def statistic(self, x: Tensor, y: Tensor) -> Tensor:
        """The sufficient statistic `x*` `(B, *event)`."""
        return per_sample(self.weights[0], x) * x + per_sample(self.weights[1], y) * y

    def noise(self, x: Tensor, y: Tensor) -> Tensor:
        """The ancillary noise `n` `(B, *event)`."""
        return per_sample(self.ancillary[0], x) * x + per_sample(self.ancillary[1], y) * y


def combine_looks(interpolant: Interpolant, x_scales: tuple[Tensor, Tensor], y_scales: tuple[Tensor, Tensor]) -> Looks:
    """Combines a look with scales `(alpha, sigma)` = `x_scales` and one with `y_scales`, `(B,)` each.

    Computed in float64. Where both looks are pure noise, or both are clean, the first is taken for the statistic.
    """
    (alpha_x, sigma_x), (alpha_y, sigma_y) = ((a.double(), s.double()) for a, s in (x_scales, y_scales))
    x_part, y_part = alpha_x * sigma_y, alpha_y * sigma_x
    length = torch.hypot(x_part, y_part)
    alike = length == 0  # no signal in either look, or no noise in either
    safe = torch.where(alike, 1.0, length)
    p, q = torch.where(alike, 1.0, x_part / safe), y_part / safe
    both = sigma_x * sigma_y
    time = interpolant.time_of(torch.where(alike & (both == 0), 1.0, length), both)
    alpha = interpolant.alpha(time)
    weights = torch.where(alike, 1.0, alpha * p * sigma_y / safe), alpha * q * sigma_x / safe
    # p / sigma_y and q / sigma_x without the quotient 0 / 0 where a look is clean
    ancillary = (
        alpha_y / safe,
        torch.where(alike, -1.0 / torch.where(alike & (both == 0), 1.0, sigma_y), -alpha_x / safe),
    )
    return Looks(time, weights, ancillary)
