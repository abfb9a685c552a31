r"""The gradient of the value of a noisy state, in three ways.

* `reparam`, the derivative of the estimate :math:`\hat V = \log \frac1K \sum_k \exp r(z^k)` through the draws,
  :math:`\sum_k \mathrm{softmax}(r)_k \, \nabla_x r(z^k)`;
* `score`, for rewards without a derivative: :math:`\nabla V_t = \frac{\alpha_t}{\sigma_t^2} (E_w[z] - E[z])` with
  weights :math:`w \propto \exp r(z)`. Both means are over the same draws: the error that they share cancels, which is
  why the plain mean is taken and not the denoiser's (:math:`\mathrm{Var}` falls by that of a mean of K draws). The
  price is a bias to zero: :math:`E[e^{\hat V} g] = (1 - \tfrac1K) \nabla e^{V_t}`, so that for a mild reward the mean
  gradient is too short by that factor. Antithetic draws from a symmetric posterior escape it;
* `plugin`, :math:`\nabla_x r(D_t(x))`, the reward at the posterior mean: diffusion posterior sampling (DPS).

All are accumulated over blocks of draws, so that memory depends on `chunk` and not on their number. Draws with weights
:math:`v_k` that depend on :math:`x` (:class:`diamond.WeightedDiamondMap`) give, with :math:`l_k = \log v_k`,

.. math:: \nabla \hat V = \textstyle\sum_k \mathrm{softmax}(r + l)_k \, \nabla (r_k + l_k)
                          - \sum_k \mathrm{softmax}(l)_k \, \nabla l_k .

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Proposition 4.1
    | Meta Flow Maps (Potaptchik et al., 2026), https://arxiv.org/abs/2601.14430 (both estimators, there called G and GF)
    | Diffusion Posterior Sampling (Chung et al., 2022), https://arxiv.org/abs/2209.14687
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.flow_map import FlowMap
from diamond.interpolant import per_sample
from diamond.model import PosteriorSampler, slice_cond
from diamond.validation import as_times, check_choice, check_state

from .answers import check_differentiable, check_slope
from .draws import Block, check_cond, check_draws, check_sampler, leaf_of, posterior_blocks, row_slices, source_of
from .scoring import Reward, Scorer, scorer_of
from .softmax_mean import SoftmaxMean, weighted_sum
from .tempering import tempered
from .value import score_block

__all__ = ["ESTIMATORS", "check_estimator", "drop_slopes", "mean_shift", "population_gradient", "value_gradient"]

ESTIMATORS = ("reparam", "score", "plugin")


def value_gradient(
    model: PosteriorSampler,
    reward: Reward | Scorer,
    x_t: Tensor,
    t: Tensor | float,
    mc: int = 16,
    estimator: str = "reparam",
    *,
    antithetic: bool = False,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    reward_chunk: int | None = None,
) -> Tensor:
    """An estimate of `grad V_t(x_t)` from `mc` posterior draws each: `(B, *event)`.

    Arguments as in :func:`~align.value`, and the estimator: "reparam" (differentiates the reward and the model), "score"
    (neither; needs a model whose draws differ, `mc` of at least 2 and `t < 1`) or "plugin" (differentiates both at the
    posterior mean, which is biased however large `mc` is, and takes no draws).

    Raises:
        ValueError: an argument or a reward that does not fit; a reward without a derivative where one is needed.
    """
    check_estimator(model, estimator)
    if estimator != "plugin":
        check_sampler(model)
    elif not hasattr(model, "denoise"):
        raise ValueError(f"model: got {type(model).__name__}, expected a model with a denoise method")
    check_state(x_t, model.event_shape)
    check_cond(model, cond, len(x_t), f"{len(x_t)}, as x_t has")
    scorer, t = scorer_of(reward, chunk, reward_chunk), as_times(t, x_t)
    check_draws(mc, antithetic)
    source = source_of(generator)
    if estimator == "plugin" and antithetic:
        raise ValueError("antithetic: got True with estimator='plugin', which takes no draws; leave one out")
    if not len(x_t):
        return torch.empty_like(x_t)
    if estimator == "plugin":
        return _plugin(model, scorer, x_t, t, cond, cond, chunk)
    blocks = posterior_blocks(model, x_t, t, mc, cond, source, chunk, antithetic)
    return _gradient(model, scorer, x_t, t, mc, estimator, blocks, cond)


def check_estimator(model: Any, estimator: str, name: str = "estimator") -> None:
    """Refuses an unknown `estimator`, the argument called `name`, and one that compares draws that are all one point.

    Raises:
        ValueError: it is one of these.
    """
    check_choice(name, estimator, ESTIMATORS)
    if estimator == "score" and isinstance(model, FlowMap):
        raise ValueError(
            f"{name}: got 'score' for a FlowMap, all of whose draws are one point, so that no weights move their mean; "
            "expected 'reparam' or 'plugin'"
        )


def population_gradient(
    population: Any, x: Tensor, t: float, mc: int, estimator: str, antithetic: bool = False, beta: Tensor | None = None
) -> Tensor:
    """:func:`value_gradient` for the rows of a :class:`~align.population.Population`, whose model and reward may be
    conditioned differently; of the reward `beta r`, with `beta` `(rows,)`, where that is given."""
    times = as_times(t, x)
    model, scorer, cond = population.model, population.scorer, population.reward_cond
    before = population.account.evaluations()
    if estimator == "plugin":
        slope = _plugin(model, scorer, x, times, population.cond, cond, population.chunk)
        slope = slope if beta is None else per_sample(beta, slope) * slope
    else:
        blocks = population.blocks(x, t, mc, antithetic)
        slope = _gradient(model, scorer, x, times, mc, estimator, blocks, cond, beta)
    population.account.backward += 0 if estimator == "score" else population.account.evaluations() - before
    return slope


def _gradient(model, scorer: Scorer, x_t: Tensor, t: Tensor, mc: int, estimator: str, blocks, cond, beta=None):
    if estimator == "reparam":
        return _reparam(scorer, x_t, blocks, cond, beta)
    shift = mean_shift(scorer, x_t, mc, blocks, cond, beta)
    path = model.interpolant
    if not bool((t < 1).all()):
        raise ValueError("t: got 1, expected times before it: the 'score' estimator divides by sigma(t)")
    return per_sample(path.alpha(t) / path.sigma(t).square(), shift) * shift


@torch.no_grad()
def mean_shift(
    scorer: Scorer, x_t: Tensor, mc: int, blocks: Iterable[Block], cond: Any, beta: Tensor | None = None
) -> Tensor:
    """`E_w[z] - E[z]` given `x_t`, `(B, *event)`, from blocks of `mc` draws: how far the reward, or `beta` `(B,)` times
    it, moves the posterior mean. Finite at every t."""
    if mc < 2:
        raise ValueError(f"mc: got {mc}, expected at least 2 draws: the 'score' estimator compares them")
    tilted, plain = SoftmaxMean(x_t), SoftmaxMean(x_t)
    for block in blocks:
        r, base = _score(scorer, block, cond, beta), block.log_weights
        base = torch.zeros_like(r) if base is None else base.to(r)
        for mean, logits in ((tilted, r + base), (plain, base)):
            weights = mean.weigh(block.rows, logits)
            mean.add(block.rows, weighted_sum(weights, block.z))
    return _gap(tilted, plain).to(x_t)


def _reparam(scorer: Scorer, x_t: Tensor, blocks: Iterable[Block], cond: Any, beta: Tensor | None) -> Tensor:
    tilted, plain = SoftmaxMean(x_t), SoftmaxMean(x_t)
    with torch.enable_grad():
        # a leaf for each block: what one block built is freed before the next
        for block in blocks:
            r = _score(scorer, block, cond, beta)
            check_differentiable(r, block.z)
            if block.log_weights is not None:
                weights = plain.weigh(block.rows, block.log_weights.detach().to(r))
                slope = torch.autograd.grad((weights * block.log_weights).sum(), block.x, retain_graph=True)[0]
                plain.add(block.rows, slope)
                r = r + block.log_weights
            weights = tilted.weigh(block.rows, r.detach())
            finite = torch.where(weights > 0, r, 0.0)  # -inf has weight zero, and no derivative
            drop_slopes(block.z, weights == 0)
            tilted.add(block.rows, check_slope(torch.autograd.grad((weights * finite).sum(), block.x)[0]))
    return _gap(tilted, plain).to(x_t)


def drop_slopes(z: Tensor, where: Tensor) -> None:
    """Lets no derivative come back through those of the samples `z` `(..., *event)` that the mask `where` `(...)` marks,
    whose rewards count for nothing. It would be NaN where such a reward is the logarithm of zero."""
    # a hook that knew z would keep it, and its graph
    masked = where.reshape(*where.shape, *[1] * (z.ndim - where.ndim))
    z.register_hook(lambda slope: slope.masked_fill(masked, 0.0))


def _gap(tilted: SoftmaxMean, plain: SoftmaxMean) -> Tensor:
    """The first mean less the second, and 0 where the first has no weight: rewards of -inf throughout move nothing."""
    gap = tilted.mean() - plain.mean()
    return torch.where(per_sample(tilted.mass, gap) > 0, gap, 0.0)


def _score(scorer: Scorer, block: Block, cond: Any, beta: Tensor | None) -> Tensor:
    r = score_block(scorer, block, cond)
    return r if beta is None else tempered(r, beta[block.rows])


def _plugin(model, scorer: Scorer, x_t: Tensor, t: Tensor, cond: Any, reward_cond: Any, chunk: int | None) -> Tensor:
    parts = []
    for rows in row_slices(len(x_t), chunk):
        with torch.enable_grad():
            leaf = leaf_of(x_t[rows])
            mean = model.denoise(leaf, t[rows], cond=slice_cond(cond, rows))
            mean = mean.view_as(mean)  # no leaf
            r = scorer(mean, slice_cond(reward_cond, rows) if scorer.takes_cond else None)
            check_differentiable(r, mean)
            drop_slopes(mean, ~r.isfinite())
            parts.append(check_slope(torch.autograd.grad(torch.where(r.isfinite(), r, 0.0).sum(), leaf)[0]))
    return torch.cat(parts)
