r"""Gaussian transitions from one noise level to a cleaner one, given the data.

For data :math:`z`, the noises at :math:`t` and :math:`t' > t` may have any correlation :math:`\rho \in [-1, 1]`
without changing either marginal. Then

.. math::
    x_{t'} \mid x_t, z \sim N(\bar\alpha z + \gamma x_t, \; \bar\sigma^2 I), \qquad
    \gamma = \rho \, \sigma_{t'} / \sigma_t, \quad
    \bar\alpha = \alpha_{t'} - \gamma \alpha_t, \quad
    \bar\sigma = \sigma_{t'} \sqrt{1 - \rho^2}.

:math:`\rho = \alpha_t \sigma_{t'} / (\sigma_t \alpha_{t'})` is DDPM's ancestral step (the time reversal of the
noising diffusion), and :math:`\rho = 0` draws fresh noise.

References:
    | GLASS Flows (Holderrieth et al., 2025), https://arxiv.org/abs/2509.25170, Proposition 1
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from torch import Tensor

from .interpolant import Interpolant, per_sample

__all__ = ["TransitionScales", "ddpm_correlation", "gaussian_step", "transition_scales"]


class TransitionScales(NamedTuple):
    """`x_{t'} = alpha z + gamma x_t + sigma noise`; each field `(B,)`, float64."""

    alpha: Tensor
    gamma: Tensor
    sigma: Tensor


def ddpm_correlation(interpolant: Interpolant, t: Tensor, t_next: Tensor) -> Tensor:
    """The correlation `rho` of DDPM's ancestral step, for times `t < t_next` of shape `(B,)`."""
    rho = interpolant.alpha(t) * interpolant.sigma(t_next) / (interpolant.sigma(t) * interpolant.alpha(t_next))
    return rho.clamp_max(1)  # adjacent times may round to more


def transition_scales(
    interpolant: Interpolant, t: Tensor, t_next: Tensor, rho: Tensor | float | None
) -> TransitionScales:
    """The scales of the step from `t` to `t_next` `(B,)`, `t < t_next`; `rho = None` is DDPM's.

    Raises:
        ValueError: `rho` lies outside [-1, 1], or is neither one number nor one a sample.
    """
    t, t_next = t.double(), t_next.double()
    if rho is None:
        rho = ddpm_correlation(interpolant, t, t_next)
    rho = torch.as_tensor(rho, dtype=t.dtype, device=t.device)
    if rho.shape not in ((), (1,), t.shape):
        raise ValueError(f"rho: got shape {tuple(rho.shape)}, expected one correlation or ({len(t)},) of them")
    if not bool((rho.abs() <= 1).all()):
        raise ValueError(f"rho: got {rho.tolist()}, expected correlations in [-1, 1]")
    sigma_t = interpolant.sigma(t)
    gamma = rho * interpolant.sigma(t_next) / torch.where(sigma_t > 0, sigma_t, 1.0)  # clean data stay as they are
    alpha = interpolant.alpha(t_next) - gamma * interpolant.alpha(t)
    sigma = interpolant.sigma(t_next) * (1 - rho.square()).sqrt()
    return TransitionScales(alpha, gamma.expand_as(t), sigma.expand_as(t))


def gaussian_step(
    interpolant: Interpolant,
    x_t: Tensor,
    z: Tensor,
    t: Tensor,
    t_next: Tensor,
    rho: Tensor | float | None,
    noise: Tensor,
) -> Tensor:
    """A draw of `x_{t_next}` `(B, *event)` given `x_t`, `z` and standard normal `noise` of the same shape."""
    scales = transition_scales(interpolant, t, t_next, rho)
    return per_sample(scales.alpha, z) * z + per_sample(scales.gamma, z) * x_t + per_sample(scales.sigma, z) * noise
