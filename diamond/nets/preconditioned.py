r"""A network at unit scale, for data of one standard deviation.

Were the data Gaussian with mean :math:`m` and standard deviation :math:`d` in every entry, the denoiser would be linear.
The wrapped network supplies the rest, its input and its output of unit scale at every time:

.. math::
    D_t(x) = m + \frac{\alpha_t d^2}{V_t} (x - \alpha_t m) + \frac{\sigma_t d}{\sqrt{V_t}} \, F(y, t), \qquad
    y = \frac{x - \alpha_t m}{\sqrt{V_t}}, \qquad V_t = \alpha_t^2 d^2 + \sigma_t^2,

so that the correction to the denoiser shrinks with the noise that is left, and late times lose no precision. In velocity
form, with the wronskian :math:`w_t = \dot\alpha_t \sigma_t - \alpha_t \dot\sigma_t`, nothing is divided by the noise:

.. math:: u_t(x) = \dot\alpha_t m + \frac{(\dot\alpha_t \alpha_t d^2 + \dot\sigma_t \sigma_t) \, y
                   + d \, w_t \, F(y, t)}{\sqrt{V_t}} .

:class:`~diamond.nets.Whitened` does the same with a full covariance, in whose coordinates a convolution has no meaning.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | https://arxiv.org/abs/2206.00364, section 5
"""

from __future__ import annotations

import math

from torch import Tensor

from ..interpolant import Interpolant, Linear, interpolant_named, per_sample
from .network import Network

__all__ = ["Preconditioned"]


class Preconditioned(Network):
    """A network that predicts the velocity, as a correction to that of independent Gaussian entries.

    Arguments:
        net: a network on events, whose output is read at unit scale.
        std: the data's standard deviation.
        mean: the data's mean.
        interpolant: the path, or its name; linear by default.

    Raises:
        ValueError: `std` is not above 0, or not finite.
    """

    def __init__(
        self, net: Network, std: float, mean: float = 0.0, interpolant: Interpolant | str | None = None
    ) -> None:
        super().__init__()
        if not (std > 0 and math.isfinite(std)):
            raise ValueError(f"std: got {std}, expected a finite number above 0")
        self.net, self.std, self.mean = net, float(std), float(mean)
        self.event_shape = net.event_shape
        self.interpolant = interpolant_named(interpolant) if isinstance(interpolant, str) else interpolant or Linear()
        self.config = {"net": net, "std": self.std, "mean": self.mean, "interpolant": self.interpolant.name}

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor | None = None,
        states: tuple[Tensor, ...] = (),
        times: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """The velocity `(B, *event)` at states `x` `(B, *event)` and times `t` `(B,)`; further states pass as they
        are, being noise of unit scale."""
        path = self.interpolant
        alpha, sigma, alpha_dot, sigma_dot = path.alpha(t), path.sigma(t), path.alpha_dot(t), path.sigma_dot(t)
        scale = (alpha.square() * self.std**2 + sigma.square()).rsqrt()
        unit = per_sample(scale, x) * (x - per_sample(alpha * self.mean, x))
        residual = self.net(unit, t, cond, states, times)
        carried = (alpha_dot * alpha * self.std**2 + sigma_dot * sigma) * scale
        corrected = (alpha_dot * sigma - alpha * sigma_dot) * self.std * scale
        return (
            per_sample(alpha_dot * self.mean, x) + per_sample(carried, x) * unit + per_sample(corrected, x) * residual
        )
