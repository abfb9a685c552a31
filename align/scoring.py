"""Asking a reward, and checking its answer."""

from __future__ import annotations

import inspect
import re

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from torch import Tensor

from diamond.model import map_cond, slice_cond
from diamond.validation import check_positive

from .answers import answer_of, checked_numbers, depends_on, takes_cond

__all__ = [
    "ByPopulation",
    "Reward",
    "RewardFailure",
    "Scorer",
    "scorer_of",
]

Reward: TypeAlias = Callable[..., Any]  # reward(z) or reward(z, cond) -> (N,), larger is better


DEVICES = re.compile(r"(?:same|expected) device|(?:weight|bias) type")  # torch's own words about them


class RewardFailure(RuntimeError):
    """A reward that could not be had, an external judge that has gone away; what was finished is kept.

    Attributes:
        rewards: `(N,)` of the samples that were asked about, NaN where there was no answer.
        samples: these samples, `(N, *event)`; added on the way out.
        step: where the algorithm stood at the end of its last finished step, particles and weights: an
            :class:`align.Step`, or None.
    """

    def __init__(self, message: str, rewards: Tensor) -> None:
        super().__init__(message)
        self.rewards = rewards
        self.samples: Tensor | None = None
        self.step: Any = None


class Scorer:
    """A reward with its answers checked, cast and counted.

    Arguments:
        reward: `reward(z)` or `reward(z, cond)`, giving one number a sample: a tensor `(N,)` of any real number type
            on the samples' device.
        chunk: samples per call, all at once by default.

    Attributes:
        calls: samples scored so far.
        takes_cond: how the reward takes conditioning, or "": see :func:`align.answers.takes_cond`.
    """

    def __init__(self, reward: Reward, chunk: int | None = None) -> None:
        if not callable(reward) or inspect.isclass(reward):
            came = repr(reward) if isinstance(reward, str) else type(reward).__name__
            came = f"the class {reward.__name__}" if inspect.isclass(reward) else came
            raise ValueError(
                f"reward: got {came}, expected a callable reward(z) -> (N,), like align.rewards.Brightness()"
            )
        self.reward, self.chunk, self.calls = reward, chunk, 0
        self.takes_cond = takes_cond(reward)
        self.step: Any = None  # for failures to carry

    def __call__(self, z: Tensor, cond: Any = None) -> Tensor:
        """Rewards `(N,)` of samples `(N, *event)`, in float32, or float64 where the samples are.

        Raises:
            ValueError: the answer is no tensor, has another shape or device, is complex, or holds NaN or +inf; a
                differentiable reward is asked for and it leaves torch; a module's weights lie on another device.
            RewardFailure: an external judge has gone away; it carries the samples, and the rewards there were.
        """
        return self._score(z, cond, self._ask)[0]

    def components(self, z: Tensor, cond: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Rewards `(N,)` and what they are made of by name, `(N,)` each, for one call of each part; without names
        where the reward has none (:class:`align.rewards.Combined` has). Errors as in a plain call."""
        if isinstance(self.reward, ByPopulation):
            return self._score(z, cond, self.reward.scored)
        return self._score(z, cond, self._ask_parts if hasattr(self.reward, "components") else self._ask)

    def _score(self, z: Tensor, cond: Any, ask: Callable[..., tuple[Any, dict]]) -> tuple[Tensor, dict[str, Tensor]]:
        size = self.chunk or max(len(z), 1)
        answers: list[Tensor] = []
        named: list[dict[str, Tensor]] = []
        for start in range(0, len(z), size):
            rows = slice(start, min(start + size, len(z)))
            # a copy, so that a reward that works in place changes nothing but its own
            sample = (z if size >= len(z) else z[rows]).clone()
            try:
                answer, parts = ask(sample, slice_cond(cond, rows) if self.takes_cond else None)
            except RewardFailure as failure:
                missing = failure.rewards.new_full((len(z) - rows.stop,), torch.nan)
                found = [answer.detach().to(missing) for answer in answers]
                failure.step = self.step
                failure.samples, failure.rewards = z.detach(), torch.cat([*found, failure.rewards, missing])
                raise
            except RuntimeError as error:
                reason = self._misuse(error, sample)
                if reason is None:
                    raise
                raise ValueError(f"reward: {reason}") from error
            answers.append(checked_numbers(answer, sample, "reward"))
            named.append(parts)
        self.calls += len(z)
        joined = torch.cat(answers) if len(answers) != 1 else answers[0]
        return joined, {name: torch.cat([parts[name] for parts in named]) for name in (named[0] if named else ())}

    def _misuse(self, error: RuntimeError, z: Tensor) -> str | None:
        """What is to be said of an error that torch raised in the reward of samples `z`, if its own words do not say it."""
        if z.requires_grad and "requires grad" in str(error):  # torch's own words about numpy() and lists
            return (
                f"it takes the samples out of torch, where they have no derivative ({error}); expected a differentiable "
                "reward; for a black-box reward take estimator='score'"
            )
        reward = getattr(self.reward, "__self__", self.reward)
        if isinstance(reward, torch.nn.Module) and DEVICES.search(str(error)):
            for weight in (*reward.parameters(), *reward.buffers()):
                if weight.device != z.device:
                    return (
                        f"its weights are on {weight.device} and the samples on {z.device} ({error}); expected both on one "
                        f"device; move it there by reward.to('{z.device}')"
                    )
        return None

    def _ask(self, z: Tensor, cond: Any) -> tuple[Any, dict[str, Tensor]]:
        return answer_of(self.reward, z, cond=cond, how=self.takes_cond), {}

    def _ask_parts(self, z: Tensor, cond: Any) -> tuple[Any, dict[str, Tensor]]:
        parts = self.reward.components(z, cond)  # type: ignore[attr-defined]
        return self.reward.total(parts), parts  # type: ignore[attr-defined]


class ByPopulation:
    """Rewards of their own for each population, as one reward whose `cond` is `(population (N,), the user's cond)`.

    Arguments:
        rewards: one a population.

    Attributes:
        names: of the parts, where all rewards are made of parts of the same names, else empty.
    """

    def __init__(self, rewards: Sequence[Reward]) -> None:
        self.scorers = [Scorer(reward) for reward in rewards]
        names = [list(getattr(reward, "names", ())) if hasattr(reward, "components") else [] for reward in rewards]
        self.names = names[0] if all(set(other) == set(names[0]) for other in names) else []

    def __call__(self, z: Tensor, cond: Any) -> Tensor:
        """`(N,)`: each population's rows by its own reward."""
        return self.scored(z, cond)[0]

    def scored(self, z: Tensor, cond: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The rewards `(N,)`, and the parts that all of them have by name, `(N,)` each.

        Raises:
            ValueError: a derivative is asked for, and a population's reward has none: its gradient would be zero without
                a word, once the others are beside it.
        """
        population, cond = cond
        rows: list[Tensor] = []
        answers: list[Tensor] = []
        named: list[dict[str, Tensor]] = []
        for number in population.unique().tolist():
            rows.append((population == number).nonzero().squeeze(1))
            sample, part = z[rows[-1]], map_cond(lambda c, index=rows[-1]: c[index], cond)  # type: ignore[misc]
            try:
                answer, parts = self.scorers[number].components(sample, part)
            except RewardFailure as failure:
                found = failure.rewards.new_full((len(z),), torch.nan)
                found[torch.cat(rows)] = torch.cat(
                    [*[answer.detach().to(found) for answer in answers], failure.rewards]
                )
                failure.rewards = found
                raise
            if torch.is_grad_enabled() and z.requires_grad and not depends_on(answer, sample):
                raise ValueError(
                    f"reward: that of population {number} returned numbers that do not depend differentiably on the samples, "
                    "expected differentiable rewards; for black-box rewards take estimator='score'"
                )
            answers.append(answer)
            named.append(parts)
        order = torch.cat(rows).argsort()
        joined = {name: torch.cat([parts[name] for parts in named])[order] for name in self.names}
        return torch.cat(answers)[order], joined


def scorer_of(reward: Reward | Scorer, chunk: int | None, reward_chunk: int | None = None) -> Scorer:
    """A reward as a :class:`Scorer`; one that is a scorer already stays as it is."""
    for name, size in (("chunk", chunk), ("reward_chunk", reward_chunk)):
        if size is not None:
            check_positive(name, size)
    return reward if isinstance(reward, Scorer) else Scorer(reward, chunk if reward_chunk is None else reward_chunk)
