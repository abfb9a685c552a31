r"""GLASS flows: stochastic transitions and posterior draws from any flow model, without training.

Given :math:`x_t`, a transition to :math:`t' > t` of any correlation (see :mod:`diamond.transition`) has the law of
:math:`\gamma x_t + y_1`, where :math:`y_s` follows an inner flow from noise at :math:`s = 0`. Its conditional path is
a second look at :math:`z`, whose noise is independent of that of :math:`x_t`:

.. math:: y_s = s \bar\alpha z + \bar\sigma_s \epsilon', \qquad \bar\sigma_s = (1 - s) + s \bar\sigma .

So the inner flow's denoiser is the pretrained one at the pair's sufficient statistic (:mod:`diamond.observation`),

.. math:: \frac{dy}{ds} = \frac{\dot{\bar\sigma}_s}{\bar\sigma_s} y
          + \left(\bar\alpha - s \bar\alpha \frac{\dot{\bar\sigma}_s}{\bar\sigma_s}\right) D_{t_*}(x_*(x_t, y_s)) .

In GLASS's own coordinates the state is :math:`\bar x_s = \gamma x_t + y_s`, which starts from
:math:`N(\gamma x_t, I)`. Both paths are straight in :math:`s`, so an Euler step is exact for a constant denoiser, and
the last one ends at :math:`s = 1` without a singularity. The posterior is the case :math:`t' = 1`.

**Where to step.** With :math:`r = s \bar\alpha / \bar\sigma_s` such steps are Euler's for
:math:`d(y / \bar\sigma_s) / dr = D`. For Gaussian data of variance :math:`d^2` the posterior of :math:`x_t` has a width
of :math:`1 / P`, :math:`P^2 = 1 / d^2 + \alpha_t^2 / \sigma_t^2`, and the denoiser moves along a trajectory as
:math:`\sin \varphi`, :math:`\tan \varphi = r / P`: in units of that width every outer time poses the problem of
:math:`t = 0`. A step over :math:`\Delta\varphi` keeps :math:`\cos \Delta\varphi` of the deviation from the mean that it
should keep, so N steps lose :math:`\tfrac12 \sum \Delta\varphi^2` of it to leading order: at best, with equal angles,
:math:`\pi^2 / 8N`. Steps even in :math:`r / (r + c)`, from :math:`r = 0` to infinity, lose

.. math:: \frac{1}{2N} \left(1 + \frac{\pi}{4} \left(\frac{c}{P} + \frac{P}{c}\right)\right) .

Steps even in s have :math:`c = 1` for the posterior: within 5 % of the best at t = 0 for d = 1, and ever worse as P grows.
The grid "posterior" has :math:`c = \sqrt{1 + \alpha_t^2 / \sigma_t^2}`, which is P for d = 1 and tends to P for any d as t
grows; where the two differ by a factor of 1.7 or more, it loses less than angles that are equal for c. In s it is

.. math:: \frac{s_i}{1 - s_i} = \frac{c}{\bar\alpha + c \bar\sigma} \, \frac{i}{N - i}, \qquad i = 0, \dots, N .

References:
    | GLASS Flows (Holderrieth et al., 2025), https://arxiv.org/abs/2509.25170, Theorem 1 and Proposition 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch import Tensor

from .interpolant import Interpolant, per_sample
from .model import Model, View, fold_draws, repeat_cond
from .observation import combine_looks
from .randomness import Generator, normal
from .transition import TransitionScales, transition_scales
from .validation import as_times, check_choice, check_later, check_noise, check_positive, check_state, shared

__all__ = ["GlassFlow", "glass_velocity"]


def glass_velocity(
    denoise, interpolant: Interpolant, x_bar: Tensor, s: Tensor, x_t: Tensor, t: Tensor, cond: Any = None
) -> Tensor:
    """The velocity `u_s(x_bar | x_t, t)` `(B, *event)` of the flow from noise at s = 0 to the posterior of `x_t` at s = 1.

    `denoise(x, t, cond=)` is any posterior mean on the path `interpolant`; `x_bar = s z + (1 - s) noise`. Costs one
    call of it. Times `s` `(B,)` are in [0, 1).
    """
    looks = combine_looks(interpolant, (interpolant.alpha(t), interpolant.sigma(t)), (s, 1 - s))
    z = denoise(looks.statistic(x_t, x_bar), looks.time.to(t.dtype), cond=cond)
    return (z - x_bar) / per_sample(1 - s, x_bar)


class GlassFlow(View):
    """The GLASS view of a flow model.

    Arguments:
        flow: any model with a `denoise` and an `interpolant`: a :class:`~diamond.Flow`, a
            :class:`~diamond.GaussianMixtureFlow`, a :class:`~diamond.DiamondMap`.
        steps: inner steps of a draw, each of one evaluation (two with `solver="heun"`, but for the last).
        solver: "euler" or "heun".
        grid: where the inner steps end: "uniform" in inner time, as GLASS flows were published; or "posterior", the same
            grid in units of the width that the posterior of `x_t` has for data of variance 1 (see the module). The
            two agree at t = 0 (for DDPM's transitions, on the linear path); at late times "posterior" needs far fewer
            steps. `examples/benchmarks/glass_grid.py` measures both.

    Raises:
        ValueError: no steps, or an unknown solver or grid.
    """

    viewed = "flow"

    def __init__(self, flow: Model, steps: int = 16, solver: str = "euler", grid: str = "posterior") -> None:
        if not hasattr(flow, "denoise"):
            raise ValueError(f"flow: got {type(flow).__name__}, expected a flow model with a denoise method")
        steps, solver = check_positive("steps", steps), check_choice("solver", solver, ("euler", "heun"))
        check_choice("grid", grid, ("uniform", "posterior"))
        super().__init__(flow.interpolant, flow.event_shape)
        self.flow, self.steps, self.solver, self.grid = flow, steps, solver, grid
        self.metadata = flow.metadata

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The underlying flow's velocity, `(B, *event)`."""
        return self.flow.velocity(x_t, t, cond=cond)

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The underlying flow's posterior mean, `(B, *event)`."""
        return self.flow.denoise(x_t, t, cond=cond)

    def posterior(
        self,
        x_t: Tensor,
        t: Tensor | float,
        n: int = 1,
        *,
        cond: Any = None,
        generator: Generator = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """`n` draws of `z` given each `x_t` `(B, *event)`: `(n, B, *event)`, for `steps` evaluations each.

        `noise` `(n, B, *event)` replaces the standard normal start of the inner flow.
        """
        check_state(x_t, self.event_shape)
        shape = (check_positive("n", n), *x_t.shape)
        t = as_times(t, x_t)
        if noise is None:
            noise = normal(shape, generator, batch_axis=1, device=x_t.device, dtype=x_t.dtype)
        check_noise(noise, shape)
        drawn = self._inner(
            noise.flatten(0, 1), fold_draws(x_t, n), fold_draws(t, n), torch.ones_like(t[:1]), 0.0, repeat_cond(cond, n)
        )
        return drawn.reshape(shape)

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
        """A draw of `x_{t_next}` given each `x_t`, of correlation `rho` (DDPM's by default): `(B, *event)`."""
        check_state(x_t, self.event_shape)
        t, t_next = as_times(t, x_t), as_times(t_next, x_t, "t_next")
        check_later(t, t_next)
        noise = normal(x_t.shape, generator, device=x_t.device, dtype=x_t.dtype)
        return self._inner(noise, x_t, t, t_next, rho, cond)

    def _inner(self, y: Tensor, x_t: Tensor, t: Tensor, t_next: Tensor, rho, cond: Any) -> Tensor:
        """Integrates the inner flow over all of [0, 1] and returns `gamma x_t + y_1`."""
        alike = shared(t) and (len(t_next) == 1 or shared(t_next))
        if alike and (rho is None or isinstance(rho, (int, float))):  # one inner path for all rows
            t, t_next = t[:1], t_next[:1]
        scales = transition_scales(self.interpolant, t, t_next.expand_as(t), rho)
        outer = self.interpolant.alpha(t), self.interpolant.sigma(t)
        times = self._inner_times(outer, scales)

        def inner(s: Tensor | float) -> tuple[Tensor, Tensor]:
            return s * scales.alpha, (1 - s) + s * scales.sigma

        def denoise(y: Tensor, s: Tensor | float) -> Tensor:
            looks = combine_looks(self.interpolant, outer, inner(s))
            return self.flow.denoise(looks.statistic(x_t, y), looks.time.to(t.dtype).expand(len(y)), cond=cond)

        def step(y: Tensor, s: Tensor | float, s_next: Tensor | float, z: Tensor) -> Tensor:
            """Exact where the denoiser is constantly `z`: carries the noise in `y` along, and the signal up."""
            (alpha, sigma), (alpha_next, sigma_next) = inner(s), inner(s_next)
            shrink = sigma_next / sigma
            return per_sample(shrink, y) * y + per_sample(alpha_next - shrink * alpha, y) * z

        for i in range(self.steps):
            s, s_next = times[i], times[i + 1]
            z = denoise(y, s)
            guess = step(y, s, s_next, z)
            if self.solver == "heun" and i + 1 < self.steps:
                guess = step(y, s, s_next, (z + denoise(guess, s_next)) / 2)
            y = guess
        return y + per_sample(scales.gamma, x_t) * x_t

    def _inner_times(self, outer: tuple[Tensor, Tensor], scales: TransitionScales) -> Sequence[Tensor | float]:
        """Where the inner steps begin and end, from 0 to 1: each a number, or `(B,)` where it depends on the row."""
        even = [i / self.steps for i in range(self.steps + 1)]
        if self.grid == "uniform":
            return even
        alpha, sigma = outer[0].double(), outer[1].double()
        size = torch.hypot(alpha, sigma)  # c sigma_t
        noise = scales.alpha * sigma + scales.sigma * size
        ratio = size / torch.where(noise > 0, noise, size)  # clean data stay as they are
        return [ratio * tau / ((1 - tau) + ratio * tau) for tau in even]
