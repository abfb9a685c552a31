r"""A plug-in control variate for the value of a noisy state.

The posterior mean :math:`D = E[z \mid x_t = x]` is known, so that :math:`\nabla r(D) \cdot (z - D)` has mean 0 over the
posterior. To first order it is what the reward's noise consists of, and it is taken off the estimate of the value:

.. math:: \hat V_c = \hat V - \tfrac1K \textstyle\sum_k \nabla r(D) \cdot (z^k - D) .

The mean of :math:`\hat V_c` is that of :math:`\hat V`, bias included, for every K; a single draw gives
:math:`r(z) - \nabla r(D) \cdot (z - D)`, without noise where the reward is linear. It is the logarithm that is corrected:
the same baseline in :math:`\frac1K \sum_k e^{r(z^k)}`, with the coefficient :math:`e^{r(D)}`, leaves means below zero,
and one fitted to the draws needs many of them. The price is that :math:`\exp \hat V_c` is not unbiased.

For a linear reward of standard deviation s on a Gaussian posterior K times the variance falls from
:math:`e^{s^2} - 1` to :math:`e^{s^2} - 1 - s^2` as K grows; antithetic draws have
:math:`(e^{s^2} - 1)(1 - e^{-s^2})`. By Stein's lemma the best coefficient is the mean slope over the *tilted* posterior
relative to :math:`\nabla r(D)`: 1 for a linear reward, less for a concave one. Where the tilted posterior lies where the
reward is flat, near the centre of a steep quadratic, the control adds noise.

A trained map's draws need not have its D as their mean, nor have weighted ones: their gap times the slope is then added
to the mean of the value.

`examples/benchmarks/control_variates.py` measures it at equal cost, on mixtures. With 8 to 16 draws the error of the
value is 15 to 20 % below that of antithetic draws for linear and wide quadratic rewards (7 to 16 % with the gradient
counted as a call), as large for narrower ones, and a third larger for steep ones; with 2 it is no smaller but for linear
rewards, and on top of antithetic draws it pays for none. As `value=` of :func:`align.smc` it is right for nearly linear
rewards and few draws; with a steep one the particles that matter are lost.

References:
    | Monte Carlo theory, methods and examples (Owen, 2013), https://artowen.su.domains/mc/, chapter 8
    | Estimation of the mean of a multivariate normal distribution (Stein, 1981),
    | https://doi.org/10.1214/aos/1176345632
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler, slice_cond

from .answers import check_differentiable
from .draws import Block, flat_events, row_slices
from .scoring import Scorer
from .softmax_mean import SoftmaxMean, weighted_sum

__all__ = ["PlugInControl"]


class PlugInControl:
    """The control of states `(B, *event)` at times `(B,)`: an evaluation, a reward call and a reward gradient each.

    Arguments:
        model: any model with a `denoise`.
        scorer: the reward, differentiable.
        x_t, t, cond: the states, their times and their conditioning.
        chunk: states per network call.

    Attributes:
        centre: `D` `(B, *event)`.
        slope: `grad r(D)` `(B, *event)`; 0, which leaves the estimate as it is, where it is not finite.

    Raises:
        ValueError: a model without a `denoise`, or a reward without a derivative.
    """

    def __init__(
        self, model: PosteriorSampler, scorer: Scorer, x_t: Tensor, t: Tensor, cond: Any, chunk: int | None
    ) -> None:
        if not hasattr(model, "denoise"):
            raise ValueError(f"model: got {type(model).__name__}, expected a model with a denoise method for control")
        sizes = [size for size in (chunk, scorer.chunk) if size is not None]
        parts = list(row_slices(len(x_t), min(sizes, default=None)))
        self.centre = torch.cat([model.denoise(x_t[rows], t[rows], cond=slice_cond(cond, rows)) for rows in parts])
        self.slope = torch.cat([_slope(scorer, self.centre[rows], slice_cond(cond, rows)) for rows in parts])
        self._mean = SoftmaxMean(x_t.new_zeros(len(x_t)))

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks as they are, each noted on its way."""
        for block in blocks:
            part = flat_events(block.z - self.centre[block.rows], 2).to(self._mean.total)
            noise = (part * flat_events(self.slope[block.rows]).to(part)).sum(-1)
            weights = torch.zeros_like(noise) if block.log_weights is None else block.log_weights.to(noise)
            self._mean.add(block.rows, weighted_sum(self._mean.weigh(block.rows, weights), noise))
            yield block

    def excess(self) -> Tensor:
        """The mean of `grad r(D) . (z - D)` over the draws seen so far, `(B,)`."""
        return self._mean.mean()


def _slope(scorer: Scorer, z: Tensor, cond: Any) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        sample = leaf.view_as(leaf)  # no leaf
        r = scorer(sample, cond if scorer.takes_cond else None)
        check_differentiable(r, sample, "for a black-box reward leave control out")
        slope = torch.autograd.grad(torch.where(r.isfinite(), r, 0.0).sum(), leaf)[0]
    finite = (r.isfinite() & flat_events(slope).isfinite().all(1)).reshape(-1, *[1] * (slope.ndim - 1))
    return torch.where(finite, slope, 0.0)
