r"""Diamond Maps: posterior draws in one network call.

For each fixed :math:`(x_t, t)` the map :math:`X_{s,r}(\bar x_s \mid x_t, t)` carries the GLASS posterior flow from
inner time :math:`s` to :math:`r \ge s`. Hence :math:`X_{0,1}(\epsilon \mid x_t, t) \sim p(z \mid x_t)` for
:math:`\epsilon \sim N(0, I)`.

**Parametrisation.** The network predicts the endpoint that the straight line through :math:`\bar x_s` and
:math:`X_{s,r}` reaches at inner time 1, which is bounded however close to 1 the times are:

.. math:: X_{s,r} = \bar x_s + \kappa \, (Z - \bar x_s), \qquad \kappa = \frac{r - s}{1 - s}.

On the diagonal :math:`r = s` the endpoint is the posterior mean given both looks, :math:`D_{t_*}(x_*)`. So the network
sees the pair in whitened coordinates (:mod:`diamond.observation`), the sufficient statistic :math:`x_*` at its
effective time and the ancillary noise :math:`n`, and its output is read as a velocity at :math:`(x_*, t_*)`:

.. math:: Z = \text{denoiser from velocity}\,(x_*, t_*, \; F(x_*, t_*; \kappa n, s, r, t)),

for the linear path :math:`Z = x_* + (1 - t_*) F`. Thus the output is scaled by the noise that is left, the ancillary
noise is silent on the diagonal, and a network with zeros in the new inputs *is* the teacher's velocity there.

**Early stopping.** Stopped where the pair is worth a look at :math:`t'`, the same call is a DDPM transition:
:math:`t_*(r^*, t) = t'` and :math:`x_{t'} = x_*(x_t, X_{0,r^*})`.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Proposition 4.3 (early stopping)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor, nn

from .interpolant import Interpolant, Linear, per_sample
from .labels import check_labels, warn_of_no_label
from .model import Model, fold_draws, repeat_cond
from .observation import combine_looks
from .randomness import Generator, normal
from .transition import gaussian_step
from .validation import as_times, check_later, check_noise, check_positive, check_state, check_time

__all__ = ["DiamondMap"]


class DiamondMap(Model):
    """A stochastic flow map.

    Arguments:
        net: `net(x, t, cond, states=(n,), times=(s, r, t))`, with states `(B, *event)` and times `(B,)`, giving
            `(B, *event)`: a network of :mod:`diamond.nets` made with `states=1, times=3`.
        interpolant: the outer path, linear by default. The inner path is linear always.
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

    # ---------------------------------------------------------------- the map

    def displace(self, x_bar: Tensor, s: Tensor, r: Tensor, x_t: Tensor, t: Tensor, *, cond: Any = None) -> Tensor:
        """`X_{s,r}(x_bar | x_t, t)`, `(B, *event)`, without a check of the arguments; differentiable in all of them, but in
        `s` and `t` where both are 0: which look holds the signal depends on which time leaves first.

        Arguments:
            x_bar: inner states at inner times `s`, `(B, *event)`.
            s, r: inner times `(B,)`, 0 <= s <= r <= 1.
            x_t: outer states at times `t` `(B,)`, `(B, *event)`.
            cond: conditioning with leading dimension B.
        """
        endpoint, share = self._endpoint(x_bar, s, r, x_t, t, cond)
        return torch.lerp(x_bar, endpoint, per_sample(share, x_bar))

    def mean_velocity(self, x_bar: Tensor, s: Tensor, r: Tensor, x_t: Tensor, t: Tensor, *, cond: Any = None) -> Tensor:
        """The mean velocity `(X_{s,r}(x_bar | x_t, t) - x_bar) / (r - s)`, `(B, *event)`, and its limit at `r = s`, for
        `s < 1`; arguments as in :meth:`displace`."""
        return (self._endpoint(x_bar, s, r, x_t, t, cond)[0] - x_bar) / per_sample(1 - s, x_bar)

    def inner_velocity(self, x_bar: Tensor, s: Tensor, x_t: Tensor, t: Tensor, *, cond: Any = None) -> Tensor:
        """The velocity `d/dr X_{s,r}(x_bar | x_t, t)` at `r = s`, `(B, *event)`, for `s < 1`; arguments as in
        :meth:`displace`."""
        return self.mean_velocity(x_bar, s, s, x_t, t, cond=cond)

    def _endpoint(
        self, x_bar: Tensor, s: Tensor, r: Tensor, x_t: Tensor, t: Tensor, cond: Any
    ) -> tuple[Tensor, Tensor]:
        """The endpoint `Z` `(B, *event)` and the share `kappa` `(B,)` of the way to it."""
        outer = self.interpolant.alpha(t), self.interpolant.sigma(t)
        looks = combine_looks(self.interpolant, outer, (s, 1 - s))
        statistic, time = looks.statistic(x_t, x_bar), looks.time.to(t.dtype)
        share = torch.where(s < 1, (r - s) / torch.where(s < 1, 1 - s, 1.0), 0.0)
        noise = per_sample(share, x_bar) * looks.noise(x_t, x_bar)
        return self._endpoint_at(statistic, time, noise, (s, r, t), cond), share

    def _from_noise(self, noise: Tensor, r: Tensor | float, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        """`X_{0,r}`, as :meth:`displace` gives it, without the algebra: at s = 0 the inner look holds no signal, so the
        statistic is `x_t` itself and the ancillary noise is `-noise`. The stopping time is `(B,)` or one number."""
        stop = r.to(t.dtype) if isinstance(r, Tensor) else _everywhere(r, t)
        share = per_sample(r, noise)
        endpoint = self._endpoint_at(x_t, t, noise * -share, (_everywhere(0.0, t), stop, t), cond)
        return endpoint if isinstance(r, float) and r == 1 else torch.lerp(noise, endpoint, share)

    def _endpoint_at(self, x: Tensor, time: Tensor, noise: Tensor, times: tuple[Tensor, ...], cond: Any) -> Tensor:
        """The network's endpoint `Z` `(B, *event)` at the statistic `x` of effective `time`. Counts one call of it."""
        self.nfe += len(x) * getattr(self.net, "evaluations", 1)
        if cond is None:
            warn_of_no_label(self)
        velocity = self.net(x, time, cond, states=(noise,), times=times)
        return self.interpolant.denoiser_from_velocity(x, time, velocity)

    def forward(
        self,
        x_bar: Tensor,
        s: Tensor | float,
        r: Tensor | float,
        x_t: Tensor,
        t: Tensor | float,
        *,
        cond: Any = None,
    ) -> Tensor:
        """`X_{s,r}(x_bar | x_t, t)`, `(B, *event)`, for inner times `s <= r` and outer states `x_t` at times `t`.

        Raises:
            ValueError: a shape that does not fit, a time outside [0, 1], or `r` before `s`.
        """
        check_state(x_bar, self.event_shape, "x_bar")
        check_state(x_t, self.event_shape)
        if len(x_t) != len(x_bar):
            raise ValueError(f"x_t: got {len(x_t)} rows for {len(x_bar)} rows of x_bar, expected as many")
        s, r, t = as_times(s, x_bar, "s"), as_times(r, x_bar, "r"), as_times(t, x_t)
        if bool((r < s).any()):
            raise ValueError(f"r: got a time up to {float((s - r).max()):g} before s, expected s <= r")
        return self.displace(x_bar, s, r, x_t, t, cond=cond)

    # ---------------------------------------------------------------- what it draws

    def posterior(
        self,
        x_t: Tensor,
        t: Tensor | float,
        n: int = 1,
        *,
        cond: Any = None,
        generator: Generator = None,
        noise: Tensor | None = None,
        steps: int = 1,
    ) -> Tensor:
        """`n` draws of `z` given each `x_t` `(B, *event)`: `(n, B, *event)`, in ONE evaluation each.

        `noise` `(n, B, *event)` replaces the standard normal start; `steps` above 1 composes that many shorter maps.
        """
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        shape = (check_positive("n", n), *x_t.shape)
        if noise is None:
            noise = normal(shape, generator, batch_axis=1, device=x_t.device, dtype=x_t.dtype)
        else:
            check_noise(noise, shape)
        x_bar, x_t, t, cond = noise.flatten(0, 1), fold_draws(x_t, n), fold_draws(t, n), repeat_cond(cond, n)
        x_bar = self._from_noise(x_bar, 1 / check_positive("steps", steps), x_t, t, cond)
        for i in range(1, steps):
            s, r = _everywhere(i / steps, t), _everywhere((i + 1) / steps, t)
            x_bar = self.displace(x_bar, s, r, x_t, t, cond=cond)
        return x_bar.reshape(shape)

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
        """A draw of `x_{t_next}` given each `x_t`, in one evaluation: `(B, *event)`.

        With `rho = None` it is DDPM's, by stopping the posterior flow early; any other correlation comes by a
        posterior draw and a Gaussian step.
        """
        check_state(x_t, self.event_shape)
        if rho is None and isinstance(t, float) and isinstance(t_next, float):
            check_later(check_time(t), check_time(t_next, "t_next"))
            return self._stop_early(x_t, as_times(t, x_t), *self._stop(t, t_next), cond, generator)
        t, t_next = as_times(t, x_t), as_times(t_next, x_t, "t_next")
        check_later(t, t_next)
        if rho is None:
            return self._stop_early(x_t, t, *self._stop(t, t_next), cond, generator)
        z = self.posterior(x_t, t, cond=cond, generator=generator)[0]
        noise = normal(x_t.shape, generator, device=x_t.device, dtype=x_t.dtype)
        return gaussian_step(self.interpolant, x_t, z, t, t_next, rho, noise)

    def stopping_time(self, t: Tensor, t_next: Tensor) -> Tensor:
        """The inner time `r*` `(B,)` at which `x_t` and the inner state are together worth a look at `t_next`:
        `1 / g(t_next) = 1 / g(t) + 1 / g_inner(r*)`, with the linear inner path."""
        return self._stop(t, t_next)[0]

    def _stop(self, t: Any, t_next: Any) -> tuple[Any, Any, Any]:
        """The stopping time, and the weights of `x_t` and of the inner state in `x_{t_next}`, their sufficient
        statistic there; each `(B,)`, float64, or a number for times that are. For `t < t_next` no quotient is 0 / 0."""
        (alpha, sigma), (alpha_next, sigma_next) = self.interpolant.scales(t), self.interpolant.scales(t_next)
        # the difference is not negative but by rounding
        signal = abs((alpha_next * sigma) ** 2 - (alpha * sigma_next) ** 2) ** 0.5
        total = signal + sigma * sigma_next
        unit = alpha_next * sigma**2
        return signal / total, alpha * sigma_next**2 / unit, signal * total / unit

    def _stop_early(
        self, x_t: Tensor, t: Tensor, r: Any, outer: Any, inner: Any, cond: Any, generator: Generator
    ) -> Tensor:
        """The inner flow until `r`, and the sufficient statistic of where it stands: see :meth:`_stop`."""
        noise = normal(x_t.shape, generator, device=x_t.device, dtype=x_t.dtype)
        x_bar = self._from_noise(noise, r, x_t, t, cond)
        return per_sample(outer, x_t) * x_t + per_sample(inner, x_bar) * x_bar

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """`E[z | x_t]`, `(B, *event)`: the map's diagonal at s = 0, where the inner state is silent."""
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        start = _everywhere(0.0, t)
        return self._endpoint_at(x_t, t, torch.zeros_like(x_t), (start, start, t), cond)

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The velocity of the probability-flow ODE, `(B, *event)`."""
        check_state(x_t, self.event_shape)
        return self.interpolant.velocity_from_denoiser(x_t, as_times(t, x_t), self.denoise(x_t, t, cond=cond))

    @torch.no_grad()
    def sample(self, n: int, steps: int = 1, *, cond: Any = None, generator: Generator = None) -> Tensor:
        """`n` samples `(n, *event)` in `steps` evaluations each.

        One step is a posterior draw from pure noise, of which the outer state knows nothing; more are a chain of
        DDPM transitions by early stopping, on a uniform grid of times.
        """
        check_labels(self, cond)
        x = self.prior(check_positive("n", n), generator=generator)
        for i in range(check_positive("steps", steps)):
            x = self.transition(x, i / steps, (i + 1) / steps, cond=cond, generator=generator)
        return x


def _everywhere(time: float, t: Tensor) -> Tensor:
    """One time for the whole batch of times `t` `(B,)`, stored once."""
    return t.new_full((), time).expand_as(t)
