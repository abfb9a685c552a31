r"""The path from noise to data.

A state at time :math:`t` is a noisy look at clean data :math:`z`,

.. math:: x_t = \alpha_t z + \sigma_t \epsilon, \qquad \epsilon \sim N(0, I),

with :math:`t = 0` noise (:math:`\alpha_0 = 0, \sigma_0 = 1`) and :math:`t = 1` data (:math:`\alpha_1 = 1,
\sigma_1 = 0`). One network knows three things about :math:`x_t`, each an affine function of the others:

.. math::
    D_t(x) &= E[z \mid x_t = x]                                                    &&\text{denoiser} \\
    u_t(x) &= \dot\alpha_t D_t(x) + \dot\sigma_t \, (x - \alpha_t D_t(x)) / \sigma_t &&\text{velocity} \\
    \nabla \log p_t(x) &= (\alpha_t D_t(x) - x) / \sigma_t^2                       &&\text{score}

The noise-to-signal ratio :math:`g(t) = \sigma_t^2 / \alpha_t^2` falls from infinity to 0. So that nothing is
infinite at either end, its inverse is asked for with the *pair* :math:`(\alpha, \sigma)` up to scale: see
:meth:`Interpolant.time_of`.

References:
    | GLASS Flows (Holderrieth et al., 2025), https://arxiv.org/abs/2509.25170, section 2
    | Stochastic Interpolants (Albergo et al., 2023), https://arxiv.org/abs/2303.08797
"""

from __future__ import annotations

import abc
import math

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor

__all__ = ["Cosine", "Interpolant", "Linear", "interpolant_named"]

TINY = 1e-12  # guards a quotient whose numerator vanishes as well; never changes a well-posed value


def per_sample(coefficient: Any, x: Tensor) -> Any:
    """Casts `coefficient` `(B,)` to the dtype of `x` and gives it trailing axes, to scale `x` `(..., B, *event)`
    whose events have `x.ndim - 1` axes when `x` is `(B, *event)`. A number stays one."""
    if isinstance(coefficient, float):
        return coefficient
    return coefficient.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def _slope(scale: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    t = t.contiguous()  # forward differentiation refuses a time that is expanded over the batch
    return torch.func.jvp(scale, (t,), (torch.ones_like(t),))[1]


class Interpolant(abc.ABC):
    """A smooth pair `alpha`, `sigma` with `alpha(0) = sigma(1) = 0`, `alpha(1) = sigma(0) = 1`, and `alpha / sigma`
    increasing. A subclass must give these two; the derivatives come by forward differentiation and the inverse of
    the noise-to-signal ratio by bisection, unless it knows better.

    Every method maps a float tensor of times in [0, 1] of any shape to a tensor of that shape.
    """

    name: str = "custom"

    @abc.abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal's scale."""

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation."""

    def scales(self, t: Tensor | float) -> tuple[Any, Any]:
        """`alpha` and `sigma` in float64, and as numbers for one time that is a number: what is the same for a whole
        batch is worked out without tensors."""
        if isinstance(t, Tensor):
            t = t.double()
            return self.alpha(t), self.sigma(t)
        time = torch.tensor(t, dtype=torch.float64)
        return self.alpha(time).item(), self.sigma(time).item()

    def alpha_dot(self, t: Tensor) -> Tensor:
        """The derivative of `alpha`."""
        return _slope(self.alpha, t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """The derivative of `sigma`."""
        return _slope(self.sigma, t)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The time at which signal and noise stand as `alpha` to `sigma` (both >= 0, any common scale, not both 0).

        `time_of(1, g.sqrt())` is the inverse of the noise-to-signal ratio; `(a, 0)` gives 1 and `(0, s)` gives 0.
        """
        low, high = torch.zeros_like(alpha), torch.ones_like(alpha)
        for _ in range(60):
            middle = (low + high) / 2
            early = self.alpha(middle) * sigma < self.sigma(middle) * alpha
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        t = ((low + high) / 2).detach()
        # a step of Newton's method, which has the derivatives that bisection lacks
        slope = (self.alpha_dot(t) * sigma - self.sigma_dot(t) * alpha).detach()
        gap = self.alpha(t) * sigma - self.sigma(t) * alpha
        return (t - torch.where(slope > 0, gap / torch.where(slope > 0, slope, 1.0), 0.0)).clamp(0, 1)

    def noise_to_signal(self, t: Tensor) -> Tensor:
        """`g(t) = sigma(t)^2 / alpha(t)^2`: strictly decreasing, infinite at t = 0, zero at t = 1."""
        return (self.sigma(t) / self.alpha(t)) ** 2

    def noise_to_signal_inverse(self, g: Tensor) -> Tensor:
        """The time `t` with `g(t) = g`, for `g` in [0, inf]."""
        # both members are scaled down, so that an infinite ratio needs no case of its own
        return self.time_of(1 / (1 + g.sqrt()), 1 / (1 + 1 / g.sqrt()))

    def interpolate(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """`x_t` from data and noise, both `(B, *event)`, at times `(B,)`."""
        return per_sample(self.alpha(t), z) * z + per_sample(self.sigma(t), z) * noise

    def velocity_from_denoiser(self, x: Tensor, t: Tensor, denoised: Tensor) -> Tensor:
        """`u_t(x)` `(B, *event)` from `D_t(x)` `(B, *event)`; finite on all of [0, 1]."""
        noise = self.noise_from_denoiser(x, t, denoised)
        return per_sample(self.alpha_dot(t), x) * denoised + per_sample(self.sigma_dot(t), x) * noise

    def noise_from_denoiser(self, x: Tensor, t: Tensor, denoised: Tensor) -> Tensor:
        """`E[eps | x_t = x]` `(B, *event)` from `D_t(x)`; taken to be 0 at t = 1, where the quotient is 0 / 0."""
        sigma = self.sigma(t)
        inverse = torch.where(sigma > 0, 1 / sigma.clamp_min(TINY), 0.0)
        return (x - per_sample(self.alpha(t), x) * denoised) * per_sample(inverse, x)

    def denoiser_from_noise(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`D_t(x)` `(B, *event)` from `E[eps | x_t = x]`. At t = 0 the state holds no signal, and the quotient 0 / 0
        is taken with a signal of 1e-3: a noise prediction says nothing of the mean there."""
        return (x - per_sample(self.sigma(t), x) * noise) / per_sample(self.alpha(t).clamp_min(1e-3), x)

    def denoiser_from_velocity(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        """`D_t(x)` `(B, *event)` from `u_t(x)` `(B, *event)`; finite on all of [0, 1], and `x` itself at t = 1."""
        alpha, sigma = self.alpha(t), self.sigma(t)
        alpha_dot, sigma_dot = self.alpha_dot(t), self.sigma_dot(t)
        wronskian = alpha_dot * sigma - alpha * sigma_dot  # > 0, because alpha / sigma increases
        return per_sample(sigma / wronskian, x) * velocity - per_sample(sigma_dot / wronskian, x) * x

    def score_from_denoiser(self, x: Tensor, t: Tensor, denoised: Tensor) -> Tensor:
        """`grad log p_t(x)` `(B, *event)` from `D_t(x)`; it diverges at t = 1 where data have no density."""
        variance = self.sigma(t).square().clamp_min(TINY)
        return (per_sample(self.alpha(t), x) * denoised - x) / per_sample(variance, x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Linear(Interpolant):
    """`alpha = t`, `sigma = 1 - t`: flow matching's conditional optimal transport path."""

    name = "linear"

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def scales(self, t: Tensor | float) -> tuple[Any, Any]:
        t = t.double() if isinstance(t, Tensor) else t
        return t, 1 - t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / (alpha + sigma)

    def denoiser_from_velocity(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        return torch.addcmul(x, per_sample(1 - t, x), velocity)  # alpha' sigma - alpha sigma' = 1


class Cosine(Interpolant):
    """`alpha = sin(pi t / 2)`, `sigma = cos(pi t / 2)`: the variance-preserving path."""

    name = "cosine"

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(t * (math.pi / 2))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin((1 - t) * (math.pi / 2))  # the cosine, but exactly 0 at t = 1

    def alpha_dot(self, t: Tensor) -> Tensor:
        return (math.pi / 2) * torch.sin((1 - t) * (math.pi / 2))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -(math.pi / 2) * torch.sin(t * (math.pi / 2))

    def time_of(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.atan2(alpha, sigma) * (2 / math.pi)


def interpolant_named(name: str) -> Interpolant:
    """The interpolant that a checkpoint or a command line names.

    Raises:
        ValueError: the name is neither "linear" nor "cosine".
    """
    known = {kind.name: kind for kind in (Linear, Cosine)}
    if name not in known:
        raise ValueError(f"interpolant: got {name!r}, expected one of {', '.join(sorted(known))}")
    return known[name]()
