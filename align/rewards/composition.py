"""Rewards that add and scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..scoring import Scorer

__all__ = ["RewardModule"]


class RewardModule(nn.Module):
    """A reward `(N, *event) -> (N,)` that composes: `2.0 * a + b`, with `b` any callable reward.

    A subclass defines `forward(z)` or `forward(z, cond)`.
    """

    def __add__(self, other: Callable[..., Any]) -> RewardModule:
        return WeightedSum([(1.0, self), (1.0, other)])

    def __radd__(self, other: Callable[..., Any] | int) -> RewardModule:
        if isinstance(other, int):  # 0, where sum([...]) starts from
            return self * 1.0
        return self + other

    def __mul__(self, factor: float) -> RewardModule:
        return WeightedSum([(float(factor), self)])

    __rmul__ = __mul__

    def __neg__(self) -> RewardModule:
        return self * -1.0

    def __sub__(self, other: Callable[..., Any]) -> RewardModule:
        return WeightedSum([(1.0, self), (-1.0, other)])

    def __rsub__(self, other: Callable[..., Any]) -> RewardModule:
        return WeightedSum([(1.0, other), (-1.0, self)])


class WeightedSum(RewardModule):
    """`sum_i factor_i * reward_i`; each term is checked as a reward is."""

    def __init__(self, terms: list[tuple[float, Callable[..., Any]]]) -> None:
        super().__init__()
        flat: list[tuple[float, Callable[..., Any]]] = []
        for factor, term in terms:
            flat += [(factor * f, t) for f, t in term.terms] if isinstance(term, WeightedSum) else [(factor, term)]
        self.terms: list[tuple[float, Callable[..., Any]]] = flat
        self.modules_ = nn.ModuleList(term for _, term in flat if isinstance(term, nn.Module))
        self.scorers = [Scorer(term) for _, term in flat]

    def forward(self, z: Tensor, cond: Any = None) -> Tensor:
        parts = [factor * scorer(z, cond) for (factor, _), scorer in zip(self.terms, self.scorers, strict=True)]
        return sum(parts[1:], parts[0])
