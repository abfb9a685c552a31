r"""A mean with softmax weights, over blocks of draws.

.. math:: \textstyle\sum_k \mathrm{softmax}(l)_k \, v_k = \sum_k e^{l_k - m} v_k \big/ \sum_k e^{l_k - m}, \qquad
          m = \max_k l_k .

Both sums are kept relative to the largest logit so far, and scaled by :math:`e^{m - m'}` when a larger :math:`m'` comes:
no logit is too large, and no draw is kept. They are single precision or better, whatever that of the samples: in half
precision a sum of many draws stops growing.

References:
    | Online normalizer calculation for softmax (Milakov and Gimelshein, 2018), https://arxiv.org/abs/1805.02867
"""

from __future__ import annotations

import torch

from torch import Tensor

from diamond.interpolant import per_sample

from .answers import reward_dtype

__all__ = ["SoftmaxMean", "weighted_sum"]


class SoftmaxMean:
    """`sum_k softmax(l)_k v_k` for each of B states, over blocks of k, for values of the shape of `x` `(B, *event)`."""

    def __init__(self, x: Tensor) -> None:
        self.top = x.new_full((len(x),), -torch.inf, dtype=reward_dtype(x))
        self.mass, self.total = torch.zeros_like(self.top), torch.zeros_like(x, dtype=self.top.dtype)

    def weigh(self, rows: slice, logits: Tensor) -> Tensor:
        """Takes in logits `(n, b)`; gives their weights relative to the largest so far."""
        new = torch.maximum(self.top[rows], logits.amax(0))
        level = torch.where(new.isfinite(), new, 0.0)
        weights, decay = (logits - level).exp(), (self.top[rows] - level).exp()
        self.top[rows] = new
        self.mass[rows] = self.mass[rows] * decay + weights.sum(0)
        self.total[rows] *= per_sample(decay, self.total)
        return weights

    def add(self, rows: slice, weighted: Tensor) -> None:
        """Adds what the weights last given weigh, summed, `(b, *event)`."""
        self.total[rows] += weighted

    def mean(self) -> Tensor:
        """`(B, *event)`, in single precision or better, and 0 where there was no weight."""
        mass = per_sample(self.mass, self.total)
        return torch.where(mass > 0, self.total / mass, 0.0)


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """`sum_k w_k v_k` `(b, *event)` of weights `(n, b)` and values `(n, b, *event)`, in the better precision of both."""
    return (weights.reshape(*weights.shape, *[1] * (values.ndim - 2)) * values).sum(0)
