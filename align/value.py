r"""The value of a noisy state, and its gradient.

.. math:: V_t(x) = \log E[\exp r(z) \mid x_t = x], \qquad
          \hat V = \log \tfrac{1}{K} \textstyle\sum_k \exp r(z^k), \quad z^k \sim p(z \mid x_t = x).

:math:`\exp \hat V` is unbiased; :math:`\hat V` itself has bias :math:`-CV^2(e^r) / 2K` to first order. Its gradient
comes in three ways:

* `reparam`, the derivative of :math:`\hat V` through the draws, :math:`\sum_k \mathrm{softmax}(r)_k \, \nabla_x r(z^k)`;
* `score`, for rewards without a derivative: :math:`\nabla V_t = \frac{\alpha_t}{\sigma_t^2} (E_w[z] - E[z])` with
  weights :math:`w \propto \exp r(z)`, both means over the same draws;
* `plugin`, :math:`\nabla_x r(D_t(x))`, the reward at the posterior mean: diffusion posterior sampling (DPS).

All are accumulated over blocks of draws, so that memory depends on `chunk` and not on their number.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Proposition 4.1
    | Diffusion Posterior Sampling (Chung et al., 2022), https://arxiv.org/abs/2209.14687
"""

from __future__ import annotations

import math

from collections.abc import Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.interpolant import per_sample
from diamond.model import PosteriorSampler, repeat_cond, slice_cond
from diamond.randomness import Generator, fresh_generator
from diamond.validation import as_times, check_choice, check_positive, check_state

from .population import posterior_blocks, row_slices
from .scoring import Reward, Scorer

__all__ = ["ESTIMATORS", "value", "value_gradient"]

ESTIMATORS = ("reparam", "score", "plugin")


@torch.no_grad()
def value(
    model: PosteriorSampler,
    reward: Reward | Scorer,
    x_t: Tensor,
    t: Tensor | float,
    mc: int = 16,
    *,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The log-mean-exp estimate of `V_t(x_t)` from `mc` posterior draws each: `(B,)`.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`.
        x_t: states `(B, *event)`.
        t: times `(B,)`, or one.
        mc: posterior draws a state.
        cond: conditioning with leading dimension B.
        generator: one, or one for each of B states (or of as many equal groups of them).
        chunk: samples per network and reward call; the result does not depend on it.

    Raises:
        ValueError: an argument or a reward that does not fit.
    """
    scorer = _scorer(reward, chunk)
    check_state(x_t, model.event_shape)
    t = as_times(t, x_t)
    check_positive("mc", mc)
    total = x_t.new_full((len(x_t),), -torch.inf, dtype=_reward_dtype(x_t))
    for rows, _, z in posterior_blocks(model, x_t, t, mc, cond, _source(generator), chunk):
        r = _score_draws(scorer, z, slice_cond(cond, rows))
        total[rows] = torch.logaddexp(total[rows], r.logsumexp(0))
    return total - math.log(mc)


def value_gradient(
    model: PosteriorSampler,
    reward: Reward | Scorer,
    x_t: Tensor,
    t: Tensor | float,
    mc: int = 16,
    estimator: str = "reparam",
    *,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """An estimate of `grad V_t(x_t)` from `mc` posterior draws each: `(B, *event)`.

    Arguments as in :func:`value`, and the estimator: "reparam" (differentiates the reward and the model), "score"
    (neither; needs `mc` of at least 2 and `t < 1`) or "plugin" (differentiates both at the posterior mean, which is
    biased however large `mc` is, and takes no draws).

    Raises:
        ValueError: an argument or a reward that does not fit; a reward without a derivative where one is needed.
    """
    check_state(x_t, model.event_shape)
    check_choice("estimator", estimator, ESTIMATORS)
    scorer, t = _scorer(reward, chunk), as_times(t, x_t)
    check_positive("mc", mc)
    if estimator == "plugin":
        return _plugin(model, scorer, x_t, t, cond, chunk)
    if estimator == "reparam":
        return _reparam(model, scorer, x_t, t, mc, cond, _source(generator), chunk)
    tilt = mean_shift(model, scorer, x_t, t, mc, cond=cond, generator=generator, chunk=chunk)
    path = model.interpolant
    if not bool((t < 1).all()):
        raise ValueError("t: got 1, expected times before it: the 'score' estimator divides by sigma(t)")
    return per_sample(path.alpha(t) / path.sigma(t).square(), tilt) * tilt


@torch.no_grad()
def mean_shift(
    model: PosteriorSampler,
    reward: Reward | Scorer,
    x_t: Tensor,
    t: Tensor,
    mc: int,
    *,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """`E_w[z] - E[z]` given `x_t`, `(B, *event)`: how far the reward moves the posterior mean. Finite at every t."""
    if mc < 2:
        raise ValueError(f"mc: got {mc}, expected at least 2 draws: the 'score' estimator compares them")
    scorer = _scorer(reward, chunk)
    top, mass = _accumulators(x_t)
    weighted, plain = torch.zeros_like(x_t), torch.zeros_like(x_t)
    for rows, _, z in posterior_blocks(model, x_t, t, mc, cond, _source(generator), chunk):
        r = _score_draws(scorer, z, slice_cond(cond, rows))
        weights, decay = _advance(top, mass, rows, r)
        weighted[rows] = _scale(decay, weighted[rows]) + (_trail(weights, z) * z).sum(0)
        plain[rows] += z.sum(0)
    return _scale(1 / mass, weighted, where=mass > 0, otherwise=plain / mc) - plain / mc


def _reparam(model, scorer: Scorer, x_t: Tensor, t: Tensor, mc: int, cond, generator, chunk) -> Tensor:
    top, mass = _accumulators(x_t)
    gradient = torch.zeros_like(x_t)
    with torch.enable_grad():
        # a leaf for each block: what one block built is freed before the next
        for rows, leaf, z in posterior_blocks(model, x_t, t, mc, cond, generator, chunk):
            r = _score_draws(scorer, z, slice_cond(cond, rows))
            _check_differentiable(r)
            weights, decay = _advance(top, mass, rows, r.detach())
            finite = torch.where(weights > 0, r, 0.0)  # -inf has weight zero, and no derivative
            (slope,) = torch.autograd.grad((weights * finite).sum(), leaf)
            gradient[rows] = _scale(decay, gradient[rows]) + slope
    return _scale(1 / mass, gradient, where=mass > 0, otherwise=torch.zeros_like(gradient))


def _plugin(model, scorer: Scorer, x_t: Tensor, t: Tensor, cond, chunk) -> Tensor:
    parts = []
    for rows in row_slices(len(x_t), chunk):
        with torch.enable_grad():
            leaf = x_t[rows].detach().requires_grad_()
            part = slice_cond(cond, rows)
            r = scorer(model.denoise(leaf, t[rows], cond=part), part)
            _check_differentiable(r)
            parts.append(torch.autograd.grad(torch.where(r.isfinite(), r, 0.0).sum(), leaf)[0])
    return torch.cat(parts)


def _score_draws(scorer: Scorer, z: Tensor, cond: Any) -> Tensor:
    """Rewards `(n, b)` of draws `(n, b, *event)`."""
    n, b = z.shape[:2]
    return scorer(z.flatten(0, 1), repeat_cond(cond, n) if scorer.takes_cond else None).reshape(n, b)


def _accumulators(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest reward so far, and the sum of exponentials relative to it; `(B,)` each."""
    top = x.new_full((len(x),), -torch.inf, dtype=_reward_dtype(x))
    return top, torch.zeros_like(top)


def _advance(top: Tensor, mass: Tensor, rows: slice, r: Tensor) -> tuple[Tensor, Tensor]:
    """Takes in rewards `(n, b)`; gives their weights relative to the new largest, and the factor for older sums."""
    new = torch.maximum(top[rows], r.amax(0))
    level = torch.where(new.isfinite(), new, 0.0)
    weights, decay = (r - level).exp(), (top[rows] - level).exp()
    top[rows] = new
    mass[rows] = mass[rows] * decay + weights.sum(0)
    return weights, decay


def _trail(weights: Tensor, z: Tensor) -> Tensor:
    return weights.to(z.dtype).reshape(*weights.shape, *[1] * (z.ndim - weights.ndim))


def _scale(factor: Tensor, x: Tensor, where: Tensor | None = None, otherwise: Tensor | None = None) -> Tensor:
    scaled = _trail(factor, x) * x
    return scaled if where is None or otherwise is None else torch.where(_trail(where, x) > 0, scaled, otherwise)


def _check_differentiable(r: Tensor) -> None:
    if not r.requires_grad:
        raise ValueError(
            "reward: it returned numbers that do not depend differentiably on the samples, expected a differentiable "
            "reward; for a black-box reward take estimator='score'"
        )


def _scorer(reward: Reward | Scorer, chunk: int | None) -> Scorer:
    if chunk is not None:
        check_positive("chunk", chunk)
    return reward if isinstance(reward, Scorer) else Scorer(reward, chunk)


def _source(generator: Generator) -> Generator:
    return fresh_generator() if generator is None else generator


def _reward_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
