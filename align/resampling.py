r"""Choosing ancestors.

Each scheme maps log-weights `(..., K)` to ancestor indices `(..., K)` such that index `k` is expected
:math:`K w_k` times, with :math:`w = \mathrm{softmax}(\log w)`. They differ in the variance of those counts:
multinomial :math:`\ge` residual, stratified; systematic draws give each index :math:`\lfloor K w_k \rfloor` or
:math:`\lceil K w_k \rceil` offspring. Weights of zero have none, in every scheme.

References:
    | An Introduction to Sequential Monte Carlo (Chopin & Papaspiliopoulos, 2020), chapter 9
"""

from __future__ import annotations

import math

from collections.abc import Callable

import torch

from torch import Tensor

from diamond.degeneracy import effective_size
from diamond.randomness import Generator, uniform
from diamond.validation import check_positive

__all__ = ["SCHEMES", "ess", "log_mean_exp", "multinomial", "pass_over", "residual", "stratified", "systematic"]


def log_mean_exp(x: Tensor, dim: int = -1) -> Tensor:
    """`log(mean(exp(x)))` along `dim`; -inf where all entries are."""
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def ess(log_weights: Tensor) -> Tensor:
    """The effective sample size `(sum w)^2 / sum w^2` of log-weights `(..., K)`: `(...)`, between 1 and K; 0 where all
    of them are -inf."""
    return effective_size(log_weights, dim=-1)


def multinomial(log_weights: Tensor, *, generator: Generator = None) -> Tensor:
    """Independent draws."""
    levels = _levels(log_weights)
    return _invert(levels, _uniforms(log_weights, levels.shape[-1], generator))


def stratified(log_weights: Tensor, *, generator: Generator = None) -> Tensor:
    """One draw in each of K equal cells of the unit interval."""
    levels = _levels(log_weights)
    count = levels.shape[-1]
    cells = torch.arange(count, device=levels.device, dtype=torch.float64)
    return _invert(levels, (cells + _uniforms(log_weights, count, generator)) / count)


def systematic(log_weights: Tensor, *, count: int | None = None, generator: Generator = None) -> Tensor:
    """The same draw in each of K equal cells of the unit interval, or of `count`: `(..., count)` sorted indices."""
    levels = _levels(log_weights)
    count = levels.shape[-1] if count is None else check_positive("count", count)
    cells = torch.arange(count, device=levels.device, dtype=torch.float64)
    return _invert(levels, (cells + _uniforms(log_weights, 1, generator)) / count)


def residual(log_weights: Tensor, *, generator: Generator = None) -> Tensor:
    r""":math:`\lfloor K w_k \rfloor` offspring each, and the rest drawn from what is left of the weights."""
    levels = _levels(log_weights)
    count = levels.shape[-1]
    expected = count * torch.diff(levels, dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    whole = (expected + 1e-9).floor()  # K w may fall a rounding error short of a whole number
    rest = (expected - whole).clamp_min(0)
    ends = whole.cumsum(-1)
    slots = torch.arange(count, device=log_weights.device, dtype=torch.float64)
    certain = torch.searchsorted(ends, slots.expand_as(ends).contiguous(), right=True).clamp_max(count - 1)
    levels = rest.cumsum(-1)
    drawn = _invert(
        levels / levels[..., -1:].clamp_min(torch.finfo(torch.float64).tiny), _uniforms(log_weights, count, generator)
    )
    return torch.where(slots < ends[..., -1:], certain, drawn)


SCHEMES = {"systematic": systematic, "stratified": stratified, "residual": residual, "multinomial": multinomial}


def pass_over(scheme: Callable[..., Tensor], log_weights: Tensor, *, generator: Generator = None) -> None:
    """Draws the random numbers that a call of `scheme` on these weights would, and nothing else: what a generator gives
    next is then the same whether or not a resampling was needed."""
    _uniforms(log_weights, 1 if scheme is systematic else log_weights.shape[-1], generator)


def _levels(log_weights: Tensor) -> Tensor:
    """The cumulative weights in float64, ending in exactly 1.

    Raises:
        ValueError: no tensor, NaN, +inf, or a row without a positive weight.
    """
    if not isinstance(log_weights, Tensor):
        raise ValueError(f"log_weights: got {type(log_weights).__name__}, expected a tensor (..., K)")
    if log_weights.ndim < 1 or log_weights.shape[-1] < 1:
        raise ValueError(f"log_weights: got shape {tuple(log_weights.shape)}, expected (..., K) with K at least 1")
    top = log_weights.amax(-1, keepdim=True)
    if not bool(top.isfinite().all()):  # the largest entry is NaN or +inf if any is, and -inf if all are
        raise ValueError("log_weights: got NaN, +inf, or a row of -inf alone, expected a positive weight in each row")
    levels = (log_weights.double() - top).exp().cumsum(-1)
    return levels / levels[..., -1:]


def _uniforms(log_weights: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` uniform numbers for each row of weights, in float64; rows are shared among generators on axis 0."""
    shape = (*log_weights.shape[:-1], count)
    return uniform(shape, generator, device=log_weights.device, dtype=torch.float64)


def _invert(levels: Tensor, points: Tensor) -> Tensor:
    """The first index whose level exceeds the point: never one of weight zero."""
    index = torch.searchsorted(levels.contiguous(), points.contiguous(), right=True)
    last = (levels < 1).sum(-1, keepdim=True).clamp_max(levels.shape[-1] - 1)  # the last with a positive weight
    return torch.minimum(index, last)
