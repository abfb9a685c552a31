r"""The gradient of the recipe that was released with the weighted maps: a heuristic, and not consistent.

The paper's gradient averages three terms over the proposals of a weighted map (:mod:`diamond.weighted_map`), with
weights :math:`w_i \propto e^{r(z_i)}` times the importance weights:

.. math:: \nabla V_t(x_t) \approx \sum_i w_i \left[ \nabla r(z_i) - \nabla \frac{|x_t - \alpha_t z_i|^2}{2 \sigma_t^2}
          + \left( a \nabla \log p_{t'}(x'_i) - \nabla \log p_t(x_t) \right) \right].

In high dimensions these weights degenerate. The released recipe takes :math:`w = \mathrm{softmax}(r)`, without the
importance weights, scales each of the three averages to unit length, and adds them:

.. math:: g = \sum_{j=1}^{3} G_j / |G_j| .

So it points somewhere near the gradient's direction, never to its size, and more proposals do not bring it nearer. A
multiple of the reward moves the weights only: its gradient is scaled away.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, section 5
    | its released code, https://github.com/PeterHolderrieth/diamond_maps
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import repeat_cond, slice_cond
from diamond.randomness import SlicedNoise
from diamond.validation import as_times, check_positive, check_state
from diamond.weighted_map import WeightedDiamondMap

from .answers import check_differentiable
from .draws import block_slices, check_cond, flat_events, leaf_of, source_of
from .gradient import drop_slopes
from .scoring import Reward, Scorer, scorer_of
from .softmax_mean import SoftmaxMean, weighted_sum

__all__ = ["released_gradient"]


def released_gradient(
    model: WeightedDiamondMap,
    reward: Reward | Scorer,
    x_t: Tensor,
    t: Tensor | float,
    mc: int = 16,
    *,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The heuristic's direction at `x_t`, `(B, *event)`, of length at most 3: NOT an estimate of `grad V_t(x_t)`, for
    any number of proposals. :func:`align.value_gradient` is one.

    The recipe steps along it times its own factor (20 by default there) and `b_t`. It takes the likelihood at the
    proposals `z_i` themselves, where the released code takes a second, shorter look ahead.

    Arguments:
        model: a weighted map.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`, differentiable.
        x_t: states `(B, *event)`.
        t: times `(B,)`, or one.
        mc: proposals a state.
        cond: conditioning with leading dimension B.
        generator: one, or one for each of B states (or of as many equal groups of them).
        chunk: proposals at once; the result does not depend on it.

    Raises:
        ValueError: an argument or a reward that does not fit; a reward without a derivative.
    """
    if not hasattr(model, "posterior_terms"):
        raise ValueError(f"model: got {type(model).__name__}, expected a diamond.WeightedDiamondMap")
    check_state(x_t, model.event_shape)
    t, rows = as_times(t, x_t), len(x_t)
    check_cond(model, cond, rows, f"{rows}, as x_t has")
    scorer = scorer_of(reward, chunk)
    noise = SlicedNoise(source_of(generator), rows, check_positive("mc", mc))
    terms = SoftmaxMean(torch.stack([x_t] * 3, dim=1))
    for part, draws in block_slices(rows, mc, chunk):
        r, slopes = _terms(model, scorer, x_t[part], t[part], slice_cond(cond, part), noise.part(part, draws), draws)
        terms.add(part, slopes(terms.weigh(part, r)))
    means = terms.mean()
    length = torch.linalg.vector_norm(flat_events(means, 2), dim=2)
    inverse = torch.where(length > 0, 1 / torch.where(length > 0, length, 1.0), 0.0)
    return weighted_sum(inverse.T, means.transpose(0, 1)).to(x_t)


@torch.enable_grad()
def _terms(model, scorer: Scorer, x: Tensor, t: Tensor, cond: Any, noise: SlicedNoise, draws: slice):
    """Rewards `(n, b)` of the draws of a block, and the function that takes their weights `(n, b)` to the three weighted
    sums `(b, 3, *event)`."""
    n, leaf = draws.stop - draws.start, leaf_of(x)
    terms = model.posterior_terms(leaf, t, n, cond=cond, generator=noise)
    r = scorer(terms.z.flatten(0, 1), repeat_cond(cond, n) if scorer.takes_cond else None).reshape(n, len(x))
    check_differentiable(r, terms.z, "for a black-box reward take align.value_gradient(..., estimator='score')")

    def slopes(weights: Tensor) -> Tensor:
        finite = torch.where(weights > 0, r, 0.0)  # -inf has weight zero, and no derivative
        drop_slopes(terms.z, weights == 0)
        (of_reward,) = torch.autograd.grad((weights * finite).sum(), leaf, retain_graph=True)
        (of_likelihood,) = torch.autograd.grad((weights * terms.recovery).sum(), leaf)
        of_scores = weighted_sum(weights, terms.score_difference)
        return torch.stack([of_reward, of_likelihood, of_scores], dim=1)

    return r.detach(), slopes
