r"""Rewards that add, scale, clip and temper.

A tilt by :math:`r / T` is :math:`p(z) \exp(r(z) / T)`: a high temperature leaves the model's law as it is, a low one
follows the reward alone. A sum of rewards is a product of tilts, :math:`p(z) \prod_i \exp(w_i r_i(z))`.

A sum of numbers hides which of them have a derivative. Where one is asked for, each part must depend on the samples
through operations that autograd has recorded, or its share of the gradient would be lost without a word.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from torch import Tensor, nn

from diamond.validation import check_number

from ..answers import answer_of, checked_numbers, depends_on
from ..scoring import RewardFailure, Scorer

__all__ = ["RewardModule", "Term", "WeightedSum"]


class RewardModule(nn.Module):
    """A reward `(N, *event) -> (N,)` that composes: `2.0 * a + b`, with `b` any callable reward.

    A subclass defines `forward(z)` or `forward(z, cond)`.
    """

    def __add__(self, other: Callable[..., Any]) -> RewardModule:
        return WeightedSum([Term(1.0, self), Term(1.0, other)])

    def __radd__(self, other: Any) -> RewardModule:
        if isinstance(other, int) and other == 0:  # sum([...]) starts
            return self * 1.0
        return WeightedSum([Term(1.0, other), Term(1.0, self)])

    def __mul__(self, factor: float) -> RewardModule:
        return WeightedSum([Term(factor, self)])

    __rmul__ = __mul__

    def __neg__(self) -> RewardModule:
        return self * -1.0

    def __sub__(self, other: Callable[..., Any]) -> RewardModule:
        return WeightedSum([Term(1.0, self), Term(-1.0, other)])

    def __rsub__(self, other: Callable[..., Any]) -> RewardModule:
        return WeightedSum([Term(1.0, other), Term(-1.0, self)])

    def clip(self, low: float | None = None, high: float | None = None) -> RewardModule:
        """This reward held within `[low, high]`; its gradient is zero outside, and -inf becomes `low`.

        Raises:
            ValueError: neither end is given, or no number lies between them.
        """
        return Clipped(self, low, high)

    def temper(self, temperature: float) -> RewardModule:
        """This reward over `temperature`, a finite number above 0: 1 changes nothing, more of it softens the tilt.

        Raises:
            ValueError: another temperature.
        """
        fits = lambda t: 0 < t < math.inf  # noqa: E731
        return self * (1 / check_number("temperature", temperature, "a finite number above 0", fits))


class Clipped(RewardModule):
    """`min(max(reward, low), high)`, in `[low, high]`; the gradient is zero where the reward lies outside."""

    def __init__(self, reward: Callable[..., Any], low: float | None, high: float | None) -> None:
        super().__init__()
        if low is None and high is None:
            raise ValueError("low, high: got None for both, expected a number for one or both")
        for name, end in (("low", low), ("high", high)):
            if end is not None:
                check_number(name, end, "a number, or None", lambda e: not math.isnan(e))
        if low is not None and high is not None and low > high:
            raise ValueError(f"low, high: got {low} and {high}, expected low to be at most high")
        self.reward, self.low, self.high = reward, low, high
        self.scorer = Scorer(reward)

    def forward(self, z: Tensor, cond: Any = None) -> Tensor:
        try:
            return self.scorer(z, cond).clamp(self.low, self.high)
        except RewardFailure as failure:
            raise RewardFailure(str(failure), failure.rewards.clamp(self.low, self.high)) from failure


class Term(NamedTuple):
    """A part of a sum, and what it is called in messages."""

    weight: float
    reward: Callable[..., Any]
    name: str = ""


class WeightedSum(RewardModule):
    """`sum_i weight_i * reward_i`; each term is checked as a reward is, and asked once a call.

    Differentiable where every term of a weight other than 0 is. If the samples require a gradient and some terms depend
    differentiably on them, so must the others: a constant offset is refused with the black boxes, since neither can be
    told from the other.

    Arguments:
        terms: weights, rewards and names; the name is that of the function or class by default. Sums without a
            name are opened up.

    Raises:
        ValueError: a reward that is not callable, a weight that is not a finite number; when called, an answer that is
            no reward or a term that loses its gradient, by name.
        RewardFailure: a term's reward could not be had; its `rewards` are those of the sum.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms: list[Term] = []
        for weight, reward, name in terms:
            weight = check_number(f"weight of {name!r}" if name else "factor", weight, "a finite number")
            if type(reward) is WeightedSum and not name:
                self.terms += [Term(weight * term.weight, term.reward, term.name) for term in reward.terms]
            else:
                self.terms.append(Term(weight, reward, name or _name_of(reward)))
        self.modules_ = nn.ModuleList(term.reward for term in self.terms if isinstance(term.reward, nn.Module))
        self.scorers = [Scorer(term.reward) for term in self.terms]

    def forward(self, z: Tensor, cond: Any = None) -> Tensor:
        return self.weigh(self.answers(z, cond))

    def answers(self, z: Tensor, cond: Any = None) -> list[Tensor]:
        """What each term answers, unweighted: `(N,)` each."""
        samples = z.view_as(z)  # a node of its own in autograd's graph, which nothing but the terms comes from
        answers: list[Tensor] = []
        failure: RewardFailure | None = None
        for term, scorer in zip(self.terms, self.scorers, strict=True):
            sample = samples.clone()
            try:
                answer = answer_of(term.reward, sample, cond=cond, how=scorer.takes_cond)
                answers.append(checked_numbers(answer, sample, f"reward {term.name!r}"))
            except RewardFailure as error:  # the other terms are asked still, so that what was finished is whole
                answers.append(error.rewards.to(z.device))
                failure = failure or error
        if failure is not None:
            raise RewardFailure(str(failure), self.weigh(answers).detach()) from failure
        if torch.is_grad_enabled() and z.requires_grad:
            self._check_gradients(answers, samples)
        return answers

    def weigh(self, answers: Sequence[Tensor]) -> Tensor:
        """The sum `(N,)` of the terms' answers by their weights; weight 0 makes nothing even of -inf."""
        weighted = [
            term.weight * (answer if term.weight else answer.clamp_min(torch.finfo(answer.dtype).min))
            for term, answer in zip(self.terms, answers, strict=True)
        ]
        return sum(weighted[1:], weighted[0])

    def _check_gradients(self, answers: list[Tensor], samples: Tensor) -> None:
        depends = [depends_on(answer, samples) for answer in answers]
        for term, follows in zip(self.terms, depends, strict=True):
            if any(depends) and term.weight and not follows:
                raise ValueError(
                    f"reward {term.name!r}: it returned numbers that do not depend differentiably on the samples, "
                    "while other parts of the sum do, expected a differentiable part: a black box or a constant would "
                    "lose its gradient in the sum; without it, or with black boxes, use estimator='score'"
                )


def _name_of(reward: Any) -> str:
    return getattr(reward, "__name__", type(reward).__name__)
