r"""Weighted Diamond Maps: posterior draws from any deterministic flow map, without training.

**Proposals.** The state :math:`x_t` is noised further, to the time :math:`t' < t` whose noise-to-signal ratio is
:math:`\lambda` times that of :math:`t`, and the flow map carries it to the data:

.. math:: x' = a x_t + s \epsilon, \quad \epsilon \sim N(0, I), \qquad z = X_{t',1}(x')

(:mod:`diamond.renoising` has the scales).

**Weights.** The map carries :math:`p_{t'}` to the data, so integrals over data are integrals over :math:`x'`, without a
Jacobian: the posterior is the law of :math:`z` for :math:`x'` of density proportional to
:math:`p_t(x_t \mid z) \, p_{t'}(x')`. Relative to the proposal's Gaussian density, up to a constant of the state,

.. math:: \log w = - \frac{|x_t - \alpha_t z|^2}{2 \sigma_t^2} + \log \frac{p_{t'}(x')}{p_{t'}(x_t)}
                   + \frac{|\epsilon|^2}{2},

where the second term comes from scores (:mod:`diamond.score_integral`). The constant that makes the mean weight 1 is
:math:`\log p_{t'}(x_t) - \log p_t(x_t) + d \log (s / \sigma_t)`; a self-normalised estimate does without:

.. math:: \hat V_t(x_t) = \log \textstyle\sum_i e^{r(z_i)} w_i - \log \sum_i w_i .

**The factor.** For broad data the proposal is the ideal one at :math:`\lambda = 2`, and the weights have a variance for
:math:`\lambda > 1.5`; for data as narrow as a point, and for every law as t tends to 0, only for :math:`\lambda > 2`.
So no one factor suits all times; the one that matches a standard deviation of the data does, and for isotropic Gaussian
data all weights are then equal (:mod:`diamond.renoising`). For other data the share of effective draws falls
exponentially with the dimension: see :class:`diamond.DegenerateWeights`.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, section 5 and Proposition 5.1
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from torch import Tensor

from .degeneracy import warn_of_degeneracy
from .flow_map import check_flow_map
from .interpolant import per_sample
from .model import View, fold_draws, repeat_cond
from .randomness import Generator, normal, uniform
from .renoising import Renoising, check_data_std, check_snr, renoising
from .score_integral import log_density_change, over_event
from .transition import gaussian_step
from .validation import as_times, check_later, check_noise, check_positive, check_state, shared

__all__ = ["PosteriorTerms", "WeightedDiamondMap"]


class PosteriorTerms(NamedTuple):
    """What the gradient of the paper's estimator is made of."""

    z: Tensor  # proposals (n, B, *event), differentiable in x_t
    recovery: Tensor  # -|x_t - alpha z|^2 / 2 sigma^2, (n, B), differentiable in x_t
    score_difference: Tensor  # a grad log p_t'(x') - grad log p_t(x_t), (n, B, *event), without a derivative


class WeightedDiamondMap(View):
    """A flow map whose proposals are weighted into posterior draws.

    Arguments:
        flow_map: `flow_map(x, t, r, cond=)` is the two-time map, with the `denoise`, `velocity` and `score` of its own
            diagonal, an `interpolant` and an `event_shape`: a :class:`~diamond.FlowMap`.
        snr: the factor between the noise-to-signal ratios of t' and t, above 1; see :func:`diamond.choose_snr`.
        proposals: candidates of which :meth:`posterior` draws one.
        quadrature: nodes of the rule that integrates the score, each costing an evaluation: 3 is Simpson's rule; 2, the
            paper's trapezoid rule, is cheaper and biases values by a few tenths where the data have modes.
        data_std: the standard deviation of the data around their mean, in one coordinate; if given, the factor is not
            `snr` but the one that matches it at each time, `2 + g(t) / data_std^2`.

    Attributes:
        nfe_backward: evaluations of the map so far whose derivatives may be asked for, counted per sample: those of states
            that ask for gradients, but for the scores of the weights.

    Raises:
        ValueError: not a flow map, or a number out of its range.
    """

    viewed = "flow_map"

    def __init__(
        self,
        flow_map: Any,
        snr: float = 3.0,
        proposals: int = 16,
        quadrature: int = 3,
        data_std: float | None = None,
    ) -> None:
        check_flow_map(flow_map)
        super().__init__(flow_map.interpolant, flow_map.event_shape)
        self.flow_map, self.snr, self.data_std = flow_map, check_snr(snr), check_data_std(data_std)
        self.proposals = check_positive("proposals", proposals)
        self.quadrature = check_positive("quadrature", quadrature, 2)
        self.metadata = getattr(flow_map, "metadata", {})
        self.nfe_backward = 0

    @contextmanager
    def _counted(self, x: Tensor) -> Iterator[None]:
        """Surrounds evaluations at states `x`, which are differentiated through if these ask for gradients."""
        before = getattr(self, "nfe", 0)
        yield
        if torch.is_grad_enabled() and x.requires_grad:
            self.nfe_backward += getattr(self, "nfe", 0) - before

    @property
    def _factor(self) -> str:
        return f"snr={self.snr:g}" if self.data_std is None else f"data_std={self.data_std:g}"

    @property
    def rows_per_draw(self) -> int:
        """How many rows of the network's largest call one weighted draw needs, at most."""
        return self.quadrature

    @property
    def rows_per_posterior(self) -> int:
        """How many rows of the network's largest call one draw of :meth:`posterior`, or a transition, needs."""
        return self.proposals * (self.quadrature - 1) + 1

    # ---------------------------------------------------------------- weighted draws

    def weighted_posterior(
        self,
        x_t: Tensor,
        t: Tensor | float,
        n: int = 1,
        *,
        cond: Any = None,
        generator: Generator = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`n` proposals of `z` given each `x_t` `(B, *event)`, `(n, B, *event)`, and their log-weights `(n, B)`, up to a
        constant of the state: `sum_i softmax(log_weights)_i f(z_i)` tends to `E[f(z) | x_t]`.

        Both are differentiable in `x_t`, once; the score is not differentiated for it. `noise` `(n, B, *event)` replaces
        the standard normal `eps`. Costs `quadrature * n + 1` evaluations a state, one call of the map and one of the
        score.

        Warns:
            DegenerateWeights: less than a fifth of 8 draws or more are effective, or one of 4 to 7 outweighs the rest in
                every state.
        """
        check_state(x_t, self.event_shape)
        t, noise = as_times(t, x_t), self._noise(x_t, n, generator, noise)
        z, log_weights = self.weigh(x_t, t, noise, cond=cond)
        warn_of_degeneracy(log_weights, self._factor, t)
        return z, log_weights

    def posterior_terms(
        self,
        x_t: Tensor,
        t: Tensor | float,
        n: int = 1,
        *,
        cond: Any = None,
        generator: Generator = None,
        noise: Tensor | None = None,
    ) -> PosteriorTerms:
        """The proposals of :meth:`weighted_posterior` and the terms of the paper's gradient, which a recipe may weigh
        as it likes. Costs `2 n + 1` evaluations a state."""
        check_state(x_t, self.event_shape)
        t, noise = as_times(t, x_t), self._noise(x_t, n, generator, noise)
        renoised, z, place = self._propose(x_t, t, noise, cond)
        with torch.no_grad():
            points, times = torch.cat([renoised.flatten(0, 1), x_t]), torch.cat([fold_draws(place.time, n), t])
            scores = self._score(points, times, repeat_cond(cond, n + 1)).reshape(n + 1, *x_t.shape)
            difference = per_sample(place.scale, x_t) * scores[:-1] - scores[-1]
        return PosteriorTerms(z, self._recovery(x_t, t, z), difference)

    def _propose(self, x_t: Tensor, t: Tensor, noise: Tensor, cond: Any) -> tuple[Tensor, Tensor, Renoising]:
        """The noisier states and where the map carries them, `(n, B, *event)` both, and the scales."""
        place = renoising(self.interpolant, t[:1] if shared(t) else t, self.snr, self.data_std)
        place = place._replace(time=place.time.to(t).expand_as(t))  # one time stays one
        renoised = per_sample(place.scale, x_t) * x_t + per_sample(place.noise, x_t) * noise
        n = len(noise)
        with self._counted(renoised):
            z = self.flow_map(renoised.flatten(0, 1), fold_draws(place.time, n), 1.0, cond=repeat_cond(cond, n))
        return renoised, z.reshape(noise.shape), place

    def weigh(self, x_t: Tensor, t: Tensor, noise: Tensor, *, cond: Any = None) -> tuple[Tensor, Tensor]:
        """What :meth:`weighted_posterior` gives for `noise` `(n, B, *event)` and times `(B,)`, without a check of the
        arguments or the weights; the log-weights of clean states are 0."""
        renoised, z, place = self._propose(x_t, t, noise, cond)

        def score(points: Tensor, copies: int) -> Tensor:
            return self._score(points, fold_draws(place.time, copies), repeat_cond(cond, copies))

        change = log_density_change(score, x_t, renoised, self.quadrature)
        log_weights = self._recovery(x_t, t, z) + change + over_event(noise.to(change.dtype).square()) / 2
        return z, torch.where(self.interpolant.sigma(t) > 0, log_weights, 0.0)

    def _recovery(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """`-|x_t - alpha z|^2 / 2 sigma^2`, `(n, B)`, and 0 at t = 1."""
        sigma = self.interpolant.sigma(t)
        inverse = torch.where(sigma > 0, 1 / torch.where(sigma > 0, sigma, 1.0), 0.0)
        x_t, z = x_t.to(inverse.dtype), z.to(inverse.dtype)
        residual = per_sample(inverse, x_t) * (x_t - per_sample(self.interpolant.alpha(t), x_t) * z)
        return -over_event(residual.square()) / 2

    def _score(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The map's score, and 0 at t = 1, where it need not exist."""
        return torch.where(per_sample(self.interpolant.sigma(t) > 0, x) > 0, self.score(x, t, cond=cond), 0.0)

    def _noise(self, x_t: Tensor, n: int, generator: Generator, noise: Tensor | None) -> Tensor:
        """`noise` if it is given and fits, else standard normal numbers: `(n, B, *event)`."""
        shape = (check_positive("n", n), *x_t.shape)
        if noise is None:
            noise = normal(shape, generator, batch_axis=1, device=x_t.device, dtype=x_t.dtype)
        check_noise(noise, shape)
        return noise

    # ---------------------------------------------------------------- the posterior sampler

    def posterior(
        self, x_t: Tensor, t: Tensor | float, n: int = 1, *, cond: Any = None, generator: Generator = None
    ) -> Tensor:
        """`n` draws of `z` given each `x_t` `(B, *event)`: `(n, B, *event)`, each one of `proposals` candidates, chosen by
        weight: exact as their number grows.

        The draws have candidates of their own, so that they are independent, and the same whatever company they are
        asked for in. Each is differentiable in `x_t`; how the choice moves with `x_t` is not in that derivative,
        as it is in :meth:`weighted_posterior`'s. Costs `proposals * quadrature * n + 1` evaluations a state, and `n`
        more where `x_t` asks for gradients.

        Warns:
            DegenerateWeights: less than a fifth of 8 candidates or more are effective, or one of 4 to 7 outweighs the rest
                in every state.
        """
        check_state(x_t, self.event_shape)
        (n, rows), t, sets = (check_positive("n", n), len(x_t)), as_times(t, x_t), self.proposals
        place: dict[str, Any] = {"batch_axis": 1, "device": x_t.device}
        noise = normal((n, rows, sets, *self.event_shape), generator, dtype=x_t.dtype, **place)
        level = uniform((n, rows), generator, dtype=t.dtype, **place)
        noise = noise.movedim(2, 1)  # (n, proposals, B, *event)
        with torch.no_grad():
            z, log_weights = self.weigh(x_t, t, noise.flatten(0, 1), cond=cond)
            log_weights = log_weights.unflatten(0, (n, sets))
            mass = log_weights.softmax(1).cumsum(1)
            chosen = (level[:, None] * mass[:, -1:] >= mass).sum(1).clamp_max(sets - 1)  # (n, B)
        warn_of_degeneracy(log_weights.transpose(0, 1), self._factor, t)
        if torch.is_grad_enabled() and x_t.requires_grad:  # through the chosen alone, at a fraction of the memory
            return self._propose(x_t, t, _pick(noise, chosen), cond)[1]
        return _pick(z.unflatten(0, (n, sets)), chosen)

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
        """A draw of `x_{t_next}` given each `x_t`, with correlation `rho` (DDPM's by default), by a posterior draw and a
        Gaussian step: `(B, *event)`."""
        check_state(x_t, self.event_shape)
        t, t_next = as_times(t, x_t), as_times(t_next, x_t, "t_next")
        check_later(t, t_next)
        z = self.posterior(x_t, t, cond=cond, generator=generator)[0]
        noise = normal(x_t.shape, generator, device=x_t.device, dtype=x_t.dtype)
        return gaussian_step(self.interpolant, x_t, z, t, t_next, rho, noise)

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The flow map's velocity, `(B, *event)`."""
        with self._counted(x_t):
            return self.flow_map.velocity(x_t, t, cond=cond)

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The flow map's posterior mean, `(B, *event)`."""
        with self._counted(x_t):
            return self.flow_map.denoise(x_t, t, cond=cond)

    def score(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The flow map's score, `(B, *event)`."""
        with self._counted(x_t):
            return self.flow_map.score(x_t, t, cond=cond)


def _pick(x: Tensor, chosen: Tensor) -> Tensor:
    """Of candidates `(n, proposals, B, *event)` the one `chosen` `(n, B)`: `(n, B, *event)`."""
    index = chosen.reshape(len(x), 1, x.shape[2], *[1] * (x.ndim - 3))
    return x.gather(1, index.expand(-1, -1, -1, *x.shape[3:])).squeeze(1)
