r"""Flow maps: the deterministic two-time map of the probability-flow ODE, in one network call.

:math:`X_{t,r}(x)` is where the ODE that stands at :math:`x` at time :math:`t` stands at time :math:`r`. As in
:mod:`diamond.diamond_map` the network gives a velocity, read as the endpoint :math:`Z = D(x, t, F)`, and

.. math:: X_{t,r}(x) = \frac{\sigma_r}{\sigma_t} x + \left(\alpha_r - \frac{\sigma_r}{\sigma_t} \alpha_t\right) Z,

the step that is exact for a constant endpoint; on the diagonal the endpoint is the denoiser.

References:
    | Flow Map Matching (Boffi et al., 2024), https://arxiv.org/abs/2406.07507
    | Test-time scaling of diffusions with flow maps (Sabour et al., 2025), https://arxiv.org/abs/2511.22688
"""

from __future__ import annotations

import inspect

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor, nn

from .interpolant import Interpolant, Linear, per_sample
from .labels import check_labels, warn_of_no_label
from .model import Model
from .randomness import Generator, normal
from .transition import gaussian_step
from .validation import as_times, check_later, check_positive, check_state

__all__ = ["FlowMap", "check_flow_map"]


class FlowMap(Model):
    """A deterministic flow map. As a posterior sampler it is a plug-in: all its draws are one point, the look-ahead
    `X_{t,1}(x_t)` of FMTT, so that the values it gives are biased by a Jensen gap at early times.

    Arguments:
        net: `net(x, t, cond, times=(r,))`, with `x` `(B, *event)` and times `(B,)`, giving `(B, *event)`: a network
            of :mod:`diamond.nets` made with `times=1`.
        interpolant: the path, linear by default.
        event_shape: the shape of one sample; `net.event_shape` where that exists.

    Raises:
        ValueError: no event shape.
    """

    def __init__(
        self,
        net: nn.Module | Callable[..., Tensor],
        interpolant: Interpolant | None = None,
        event_shape: tuple[int, ...] | None = None,
    ) -> None:
        event_shape = getattr(net, "event_shape", None) if event_shape is None else event_shape
        if event_shape is None:
            raise ValueError("event_shape: got None, expected the shape of one sample")
        super().__init__(interpolant or Linear(), event_shape)
        self.net = net

    def displace(self, x: Tensor, t: Tensor, r: Tensor, *, cond: Any = None) -> Tensor:
        """`X_{t,r}(x)`, `(B, *event)`, without a check of the arguments: states `(B, *event)`, times `(B,)`, t <= r."""
        self._count(x, cond)
        path = self.interpolant
        endpoint = path.denoiser_from_velocity(x, t, self.net(x, t, cond, times=(r,)))
        sigma = path.sigma(t)
        shrink = torch.where(sigma > 0, path.sigma(r) / torch.where(sigma > 0, sigma, 1.0), 1.0)
        return per_sample(shrink, x) * x + per_sample(path.alpha(r) - shrink * path.alpha(t), x) * endpoint

    def _count(self, x: Tensor, cond: Any) -> None:
        """Counts one call of the network."""
        self.nfe += len(x) * getattr(self.net, "evaluations", 1)
        if cond is None:
            warn_of_no_label(self)

    def forward(self, x: Tensor, t: Tensor | float, r: Tensor | float, *, cond: Any = None) -> Tensor:
        """`X_{t,r}(x)`, `(B, *event)`, for states at times `t <= r`.

        Raises:
            ValueError: a shape that does not fit, a time outside [0, 1], or `r` before `t`.
        """
        check_state(x, self.event_shape, "x")
        t, r = as_times(t, x), as_times(r, x, "r")
        if bool((r < t).any()):
            raise ValueError(f"r: got a time up to {float((t - r).max()):g} before t, expected t <= r")
        return self.displace(x, t, r, cond=cond)

    def posterior(
        self, x_t: Tensor, t: Tensor | float, n: int = 1, *, cond: Any = None, generator: Generator = None
    ) -> Tensor:
        """The look-ahead `X_{t,1}(x_t)`, `n` times the same: `(n, B, *event)`, for one evaluation in all."""
        check_state(x_t, self.event_shape)
        check_positive("n", n)
        look_ahead = self(x_t, t, 1.0, cond=cond)
        return look_ahead.expand(n, *look_ahead.shape)

    def transition(
        self,
        x_t: Tensor,
        t: Tensor | float,
        t_next: Tensor | float,
        *,
        rho: Tensor | float | None = None,
        cond: Any = None,
        generator: Generator = None,
    ) -> Tensor:
        """A Gaussian step around the look-ahead, `(B, *event)`: it keeps the marginals only where the posterior is a
        point."""
        check_state(x_t, self.event_shape)
        t, t_next = as_times(t, x_t), as_times(t_next, x_t, "t_next")
        check_later(t, t_next)
        z = self.posterior(x_t, t, cond=cond)[0]
        noise = normal(x_t.shape, generator, device=x_t.device, dtype=x_t.dtype)
        return gaussian_step(self.interpolant, x_t, z, t, t_next, rho, noise)

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """`E[z | x_t]`, `(B, *event)`, from the map's diagonal."""
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        return self.interpolant.denoiser_from_velocity(x_t, t, self.velocity(x_t, t, cond=cond))

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The velocity of the probability-flow ODE, `(B, *event)`: the network's own, on the map's diagonal."""
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        self._count(x_t, cond)
        return self.net(x_t, t, cond, times=(t,))

    @torch.no_grad()
    def sample(self, n: int, steps: int = 1, *, cond: Any = None, generator: Generator = None) -> Tensor:
        """`n` samples `(n, *event)` by `steps` maps on a uniform grid of times, one evaluation each."""
        check_labels(self, cond)
        x = self.prior(check_positive("n", n), generator=generator)
        for i in range(check_positive("steps", steps)):
            x = self(x, i / steps, (i + 1) / steps, cond=cond)
        return x


def check_flow_map(flow_map: Any) -> None:
    """Refuses what does not serve as a flow map: a call `(x, t, r, cond=)`, a path, and the faces of a flow.

    Raises:
        ValueError: something is missing, which the message names.
    """
    missing = [n for n in ("interpolant", "event_shape", "denoise", "velocity", "score") if not hasattr(flow_map, n)]
    try:
        call = flow_map.forward if isinstance(flow_map, torch.nn.Module) else flow_map
        inspect.signature(call).bind(None, None, None, cond=None)
        if not missing:
            return
    except TypeError:
        missing = ["a call (x, t, r, cond=)"]
    raise ValueError(
        f"flow_map: got {type(flow_map).__name__} without {', '.join(missing)}, expected a flow map; distil one from a flow"
    )
