r"""A network in the coordinates of a Gaussian fit to the data.

Let the data have mean :math:`m` and covariance :math:`Q \Lambda Q^T`. Were they Gaussian, the denoiser would be linear,

.. math:: D^{lin}_t(x) = m + Q \, \frac{\alpha_t \Lambda}{\alpha_t^2 \Lambda + \sigma_t^2} \, Q^T (x - \alpha_t m),
          \qquad \text{with variances left} \quad P_t = \frac{\sigma_t^2 \Lambda}{\alpha_t^2 \Lambda + \sigma_t^2} .

The wrapped network supplies the rest, its inputs and outputs of unit scale in every direction at every time:

.. math:: D_t(x) = D^{lin}_t(x) + Q P_t^{1/2} F(y, t), \qquad
          y = (\alpha_t^2 \Lambda + \sigma_t^2)^{-1/2} Q^T (x - \alpha_t m).

In velocity form both terms share one rotation, with :math:`V_t = \alpha_t^2 \Lambda + \sigma_t^2`:

.. math:: u_t(x) = \dot\alpha_t m + Q \, V_t^{-1/2} \left( (\dot\alpha_t \alpha_t \Lambda + \dot\sigma_t \sigma_t) \, y
                   + (\dot\alpha_t \sigma_t - \alpha_t \dot\sigma_t) \, \Lambda^{1/2} F(y, t) \right).

Thus directions in which the data hardly vary (a dark border) cost it nothing, and late times, at which the posterior is
narrow, no precision. This is the preconditioning of EDM with a full covariance in place of one standard deviation.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | https://arxiv.org/abs/2206.00364, section 5
"""

from __future__ import annotations

import torch

from torch import Tensor

from ..interpolant import Interpolant, Linear, interpolant_named
from ..validation import check_state
from .network import Network

__all__ = ["Whitened"]


class Whitened(Network):
    """A network that predicts the velocity, as a correction to that of Gaussian data.

    Arguments:
        net: a network on vectors `(D,)`, with D the number of an event's entries.
        event_shape: the shape of one sample.
        interpolant: the path, or its name; linear by default.
        data: samples `(N, *event)` to take the mean and covariance of; without, they are left to be loaded.

    Raises:
        ValueError: data of another shape.
    """

    mean: Tensor
    variances: Tensor
    basis: Tensor

    def __init__(
        self,
        net: Network,
        event_shape: tuple[int, ...],
        interpolant: Interpolant | str | None = None,
        data: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.event_shape = tuple(event_shape)
        self.interpolant = interpolant_named(interpolant) if isinstance(interpolant, str) else interpolant or Linear()
        self.config = {"event_shape": list(event_shape), "interpolant": self.interpolant.name, "net": net}
        size = torch.Size(event_shape).numel()
        mean, variances, basis = torch.zeros(size), torch.ones(size), torch.eye(size)
        if data is not None:
            check_state(data, self.event_shape, "data")
            flat = data.unsqueeze(-1).flatten(1).double()  # an event may be a plain number
            mean = flat.mean(0)
            variances, basis = torch.linalg.eigh((flat - mean).T @ (flat - mean) / max(len(flat) - 1, 1))
        for name, value in (("mean", mean), ("variances", variances.clamp_min(0)), ("basis", basis)):
            self.register_buffer(name, value.float().contiguous())

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor | None = None,
        states: tuple[Tensor, ...] = (),
        times: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """The velocity `(B, *event)` at states `x` `(B, *event)` and times `t` `(B,)`."""
        path = self.interpolant
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        scale = (alpha.square() * self.variances + sigma.square()).clamp_min(1e-12).rsqrt().to(x.dtype)
        alpha, sigma = alpha.to(x.dtype), sigma.to(x.dtype)
        white = ((x.unsqueeze(-1).flatten(1) - alpha * self.mean) @ self.basis) * scale
        noises = tuple(state.unsqueeze(-1).flatten(1) @ self.basis for state in states)
        residual = self.net(white, t, cond, noises, times)
        rates = path.alpha_dot(t)[:, None].to(x.dtype), path.sigma_dot(t)[:, None].to(x.dtype)
        carried = (rates[0] * alpha * self.variances + rates[1] * sigma) * scale
        # the root of a quotient that is 0 would have no derivative
        corrected = (rates[0] * sigma - rates[1] * alpha) * self.variances.sqrt() * scale
        velocity = (carried * white + corrected * residual) @ self.basis.T + rates[0] * self.mean
        return velocity.reshape(x.shape)
