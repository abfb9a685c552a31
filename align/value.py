r"""The value of a noisy state.

.. math:: V_t(x) = \log E[\exp r(z) \mid x_t = x], \qquad
          \hat V = \log \tfrac{1}{K} \textstyle\sum_k \exp r(z^k), \quad z^k \sim p(z \mid x_t = x).

:math:`\exp \hat V` is unbiased; :math:`\hat V` itself has bias :math:`-CV^2(e^r) / 2K` to first order. Leaving out one
draw at a time tells that bias (the jackknife), and what is left is of order :math:`1 / K^2`:

.. math:: \hat V_J = K \hat V - (K - 1) \tfrac{1}{K} \textstyle\sum_i \hat V_{-i} .

Antithetic draws come in pairs of opposite noise: what is odd in it cancels, so that a reward nearly linear over the
posterior costs a fraction of the variance. The pairs are independent of each other and their members are not, so that
the jackknife leaves out a pair at a time, and its K is their number. Draws with weights :math:`w_k`
(:class:`diamond.WeightedDiamondMap`) give :math:`\hat V = \log \sum_k w_k e^{r(z^k)} - \log \sum_k w_k`.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Proposition 4.1
    | Notes on bias in estimation (Quenouille, 1956), https://doi.org/10.1093/biomet/43.3-4.353
"""

from __future__ import annotations

import math

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler, repeat_cond, slice_cond
from diamond.validation import as_times, check_choice, check_positive, check_state

from .answers import reward_dtype
from .control import PlugInControl
from .draws import TILE, Block, check_cond, check_draws, check_sampler, posterior_blocks, source_of
from .scoring import Reward, Scorer, scorer_of

__all__ = ["draw_rewards", "log_mean_weighted", "score_block", "stream_value", "value"]


@torch.no_grad()
def value(
    model: PosteriorSampler,
    reward: Reward | Scorer,
    x_t: Tensor,
    t: Tensor | float,
    mc: int = 16,
    *,
    correction: str | None = None,
    antithetic: bool = False,
    control: str | None = None,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    reward_chunk: int | None = None,
) -> Tensor:
    """The log-mean-exp estimate of `V_t(x_t)` from `mc` posterior draws each: `(B,)`.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`.
        x_t: states `(B, *event)`.
        t: times `(B,)`, or one.
        mc: posterior draws a state.
        correction: "jackknife" takes off the bias of order `1 / mc`, for some more variance; it extrapolates, and does
            so wildly where a single draw carries the mean. With one `exp` of the result is no longer unbiased.
        antithetic: draws in pairs of opposite noise; `mc` must be even, and with a correction at least 4.
        control: "plugin" takes off the first-order noise about the posterior mean (:mod:`align.control`), for one more
            evaluation, reward call and reward gradient a state. The mean of the result stays as it is, `exp` of it is
            no longer unbiased. It pays for smooth rewards and 8 draws or more, and adds noise where the reward is steep
            and curved over the posterior.
        cond: conditioning with leading dimension B.
        generator: one, or one for each of B states (or of as many equal groups of them).
        chunk: samples per network call; the result does not depend on it.
        reward_chunk: samples per reward call, `chunk` by default.

    Raises:
        ValueError: an argument or a reward that does not fit.
    """
    scorer = scorer_of(reward, chunk, reward_chunk)
    check_sampler(model)
    check_state(x_t, model.event_shape)
    check_cond(model, cond, len(x_t), f"{len(x_t)}, as x_t has")
    t = as_times(t, x_t)
    check_positive("mc", mc, 1 if correction is None else 2)
    if correction is not None:
        check_choice("correction", correction, ("jackknife",))
        if antithetic and mc < 4:
            raise ValueError(
                f"mc: got {mc}, expected at least 4: the jackknife leaves out one pair of antithetic draws"
            )
    check_draws(mc, antithetic)
    source = source_of(generator)
    if not len(x_t):
        return x_t.new_empty(0, dtype=reward_dtype(x_t))
    blocks: Iterable[Block] = posterior_blocks(model, x_t, t, mc, cond, source, chunk, antithetic)
    baseline = None
    if control is not None:
        check_choice("control", control, ("plugin",))
        baseline = PlugInControl(model, scorer, x_t, t, cond, chunk)
        blocks = baseline.watch(blocks)
    if correction is not None:
        estimate = _jackknife(*draw_rewards(blocks, scorer, x_t, mc, cond), antithetic)
    else:
        estimate = stream_value(blocks, scorer, x_t, mc, cond)
    return estimate if baseline is None else estimate - baseline.excess()


def stream_value(blocks: Iterable[Block], scorer: Scorer, x_t: Tensor, mc: int, cond: Any) -> Tensor:
    """The log-mean-exp `(B,)` over blocks of `mc` draws of states `(B, *event)`, none of which is kept."""
    total = mass = None

    def add(sums: Tensor | None, rows: slice, part: Tensor) -> Tensor:
        if sums is None and len(part) == len(x_t):
            return part  # one block has all the states: the usual case
        sums = part.new_full((len(x_t),), -torch.inf) if sums is None else sums
        sums[rows] = torch.logaddexp(sums[rows], part)
        return sums

    for block in blocks:
        r = score_block(scorer, block, cond)
        if block.log_weights is not None:
            mass = add(mass, block.rows, block.log_weights.to(r).logsumexp(0))
            r = r + block.log_weights.to(r)
        total = add(total, block.rows, r.logsumexp(0))
    assert total is not None
    return total - (math.log(mc) if mass is None else mass)


def draw_rewards(
    blocks: Iterable[Block], scorer: Scorer, x_t: Tensor, mc: int, cond: Any, kept: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The rewards `(mc, B)` of all draws of `(B, *event)` states, and the draws' log-weights where they have any. The
    draws themselves are written into `kept` `(mc, B, *event)`, where it is given."""
    rewards = x_t.new_empty((mc, len(x_t)), dtype=reward_dtype(x_t))
    log_weights = None
    for block in blocks:
        rewards[block.draws, block.rows] = score_block(scorer, block, cond)
        if block.log_weights is not None:
            log_weights = torch.empty_like(rewards) if log_weights is None else log_weights
            log_weights[block.draws, block.rows] = block.log_weights.to(rewards)
        if kept is not None:
            kept[block.draws, block.rows] = block.z
    return rewards, log_weights


def score_block(scorer: Scorer, block: Block, cond: Any) -> Tensor:
    """The rewards `(n, b)` of a block's draws; `cond` `(B, ...)` is that of all states."""
    n, b = block.z.shape[:2]
    part = repeat_cond(slice_cond(cond, block.rows), n) if scorer.takes_cond else None
    return scorer(block.z.flatten(0, 1), part).reshape(n, b)


def log_mean_weighted(rewards: Tensor, log_weights: Tensor | None) -> Tensor:
    """`log(sum_k w_k exp r_k / sum_k w_k)` `(...)` along axis 0 of rewards `(K, ...)`; without log-weights all are 1."""
    if log_weights is None:
        return rewards.logsumexp(0) - math.log(len(rewards))
    return (rewards + log_weights).logsumexp(0) - log_weights.logsumexp(0)


def _jackknife(rewards: Tensor, log_weights: Tensor | None, antithetic: bool) -> Tensor:
    """The corrected estimate `(B,)` from rewards `(mc, B)`, of which a draw or an antithetic pair is left out at a time."""
    plain, mc = log_mean_weighted(rewards, log_weights), len(rewards)
    total = rewards if log_weights is None else rewards + log_weights
    if antithetic:
        total, log_weights = _pair_sums(total), None if log_weights is None else _pair_sums(log_weights)
    n = len(total)
    mass = math.log(mc - mc // n) if log_weights is None else _leave_one_out(log_weights)
    without = _leave_one_out(total) - mass
    corrected = n * plain - (n - 1) * without.mean(0)
    return torch.where(corrected.isfinite(), corrected, plain)  # a single draw that is not -inf tells nothing


def _pair_sums(x: Tensor) -> Tensor:
    """`log(exp x_i + exp x_j)` `(mc / 2, ...)` of draws `(mc, ...)` and their mirror images: the second half of each
    tile mirrors the first."""
    return torch.cat([tile.unflatten(0, (2, -1)).logsumexp(0) for tile in x.split(TILE)])


def _leave_one_out(x: Tensor) -> Tensor:
    """`log sum_{j != i} exp x_j` for each i of `x` `(K, ...)`: sums from either side, for a difference would cancel."""
    edge = torch.full_like(x[:1], -torch.inf)
    before = torch.cat([edge, x.logcumsumexp(0)[:-1]])
    after = torch.cat([x.flip(0).logcumsumexp(0)[:-1].flip(0), edge])
    return torch.logaddexp(before, after)
