"""Populations as rows of one batch.

`batch` independent populations of `size` members are `batch * size` rows, population-major. Their states go through
the model together, in chunks where asked, with noise that depends neither on the chunks nor, where each population has
its own generator, on the other populations.

With an accelerator of several processes each of them holds an equal share of every population's members: see
:mod:`align.processes`.
"""

from __future__ import annotations

import copy

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler, map_cond, repeat_cond, slice_cond
from diamond.progress import progress_bar
from diamond.randomness import SlicedNoise
from diamond.validation import check_positive

from .account import Account
from .alignment import Alignment, Step
from .draws import Block, check_cond, posterior_blocks, row_slices, source_of
from .processes import Processes
from .scoring import ByPopulation, Reward, Scorer

__all__ = ["Population"]

NAMED = 8  # populations that a sentence names


class Population:
    """What every algorithm asks of a model and a reward, for all populations at once, with the cost counted.

    Arguments:
        model: any posterior sampler.
        reward: a reward, or a sequence of them, one a population.
        size: members of each population.
        batch: independent populations.
        cond: conditioning with leading dimension `batch`; each member gets its population's.
        generator: one, one a population, or None.
        chunk: samples per network call.
        reward_chunk: samples per reward call, `chunk` by default.
        accelerator: processes over which each population is spread.
        besides: a value function whose model and reward calls, where it counts them, are counted too.

    Attributes:
        generator: of the noise of this process's members.
        shared: of what all processes draw alike, the ancestors.
        scorer: the reward, checked and counted.
        cond, reward_cond: conditioning of each row, for the model and for the reward.
        backward: network evaluations that gradients of the value went through, of all populations, by this process.

    Raises:
        ValueError: a model without a posterior, or counts, rewards or generators that do not fit.
    """

    def __init__(
        self,
        model: PosteriorSampler,
        reward: Reward | Sequence[Reward],
        size: int,
        batch: int,
        cond: Any = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        chunk: int | None = None,
        reward_chunk: int | None = None,
        accelerator: Any = None,
        besides: Any = None,
    ) -> None:
        if not isinstance(model, PosteriorSampler):
            raise ValueError(
                f"model: got {type(model).__name__}, expected a posterior sampler; wrap a flow as diamond.GlassFlow(flow)"
            )
        self.model, self.chunk = model, None if chunk is None else check_positive("chunk", chunk)
        self.batch = check_positive("batch", batch)
        self.processes = Processes(accelerator)
        self.total, self.size = size, self.processes.share(size)
        if isinstance(generator, Sequence) and len(generator) != batch:
            raise ValueError(
                f"generator: got {len(generator)} generators, expected one, or one for each of {batch} populations"
            )
        self.generator, self.shared = self.processes.split(source_of(generator))
        check_cond(model, cond, batch, f"batch={batch}")
        several = reward if isinstance(reward, Sequence) and not isinstance(reward, str) else None
        self.replicates = (several is None or all(one is several[0] for one in several)) and _alike(cond)
        self.cond = self.reward_cond = repeat_cond(cond, self.size, interleave=True)
        if several is not None:
            if len(several) != batch:
                raise ValueError(
                    f"reward: got {len(several)} rewards, expected one, or one for each of {batch} populations"
                )
            self.reward_cond = torch.arange(batch).repeat_interleave(self.size), self.cond
        scored: Any = reward if several is None else ByPopulation(several)
        reward_chunk = self.chunk if reward_chunk is None else check_positive("reward_chunk", reward_chunk)
        self.scorer = Scorer(scored, reward_chunk)
        self.account = Account(model, self.scorer, besides)

    @property
    def shape(self) -> tuple[int, int]:
        """`(batch, size)`, of this process."""
        return self.batch, self.size

    def widened(self, branch: int) -> Population:
        """The same populations with `branch` candidates in the place of each member, on the same account."""
        wide = copy.copy(self)
        wide.total, wide.size = self.total * branch, self.size * branch
        wide.cond = repeat_cond(self.cond, branch, interleave=True)
        wide.reward_cond = repeat_cond(self.reward_cond, branch, interleave=True)
        return wide

    # ---------------------------------------------------------------- what the model does

    def prior(self) -> Tensor:
        """The states at t = 0, `(batch * size, *event)`."""
        return self.model.prior(self.batch * self.size, generator=self.generator)

    def transition(self, x: Tensor, t: float, t_next: float, rho: float | None = None, branch: int = 1) -> Tensor:
        """A transition of each row, `branch` times if asked: `(batch * size * branch, *event)`, row-major."""
        cond = self.cond
        if branch > 1:
            x, cond = x.repeat_interleave(branch, dim=0), repeat_cond(cond, branch, interleave=True)
        at_once = self._states_at_once()
        if at_once is None:
            return self.model.transition(x, t, t_next, rho=rho, cond=cond, generator=self.generator)
        source = SlicedNoise(self.generator, len(x))
        parts = [
            self.model.transition(x[rows], t, t_next, rho=rho, cond=slice_cond(cond, rows), generator=source.part(rows))
            for rows in row_slices(len(x), at_once)
        ]
        return torch.cat(parts)

    def posterior(self, x: Tensor, t: float) -> Tensor:
        """One posterior draw for each row, `(batch * size, *event)`."""
        at_once = self._states_at_once()
        if at_once is None:
            return self.model.posterior(x, t, cond=self.cond, generator=self.generator)[0]
        source = SlicedNoise(self.generator, len(x))
        parts = [
            self.model.posterior(x[rows], t, cond=slice_cond(self.cond, rows), generator=source.part(rows))[0]
            for rows in row_slices(len(x), at_once)
        ]
        return torch.cat(parts)

    def _states_at_once(self) -> int | None:
        """How many states may be moved at once: a model may need several rows of its network, `rows_per_posterior`, for
        each of them."""
        return None if self.chunk is None else max(1, self.chunk // getattr(self.model, "rows_per_posterior", 1))

    def blocks(self, x: Tensor, t: float, mc: int, antithetic: bool = False) -> Iterator[Block]:
        """`mc` posterior draws of each row, in blocks: see :func:`align.draws.posterior_blocks`."""
        return posterior_blocks(self.model, x, t, mc, self.cond, self.generator, self.chunk, antithetic)

    def denoise(self, x: Tensor, t: float) -> Tensor:
        """The posterior mean at each row, `(batch * size, *event)`."""
        parts = [
            self.model.denoise(x[rows], t, cond=slice_cond(self.cond, rows)) for rows in row_slices(len(x), self.chunk)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def score(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The rewards of clean rows and their components by name, `(batch, size)` each.

        Raises:
            ValueError: a population's rewards, of all processes, are all -inf; or an answer that is no reward.
            RewardFailure: an external judge has gone away.
        """
        rewards, parts = self.scorer.components(x, self.reward_cond)
        rewards = rewards.reshape(self.shape)
        _check_alive(self.gather(rewards))
        return rewards, {name: part.reshape(self.shape) for name, part in parts.items()}

    # ---------------------------------------------------------------- what members do among each other

    def everyone(self, device: torch.device) -> Tensor:
        """The number that each of this process's members has in its population, `(batch, size)`."""
        first = self.processes.index * self.size
        return torch.arange(first, first + self.size, device=device).expand(self.shape)

    def mine(self, x: Tensor) -> Tensor:
        """This process's share of numbers `(batch, total, ...)`: `(batch, size, ...)`."""
        first = self.processes.index * self.size
        return x[:, first : first + self.size]

    def gather(self, x: Tensor) -> Tensor:
        """The whole populations' `(batch, total, ...)` from each process's `(batch, size, ...)`."""
        return self.processes.gather(x, dim=1)

    def take(self, x: Tensor, ancestors: Tensor, axis: int = 0) -> Tensor:
        """The rows of ancestors, `(batch, size)` numbers in their populations, along `axis` of `x`, whose rows are
        population-major. With several processes `x` holds this one's members, and the ancestors may be any's."""
        rows = x.movedim(axis, 0)
        if self.processes.count > 1:
            rows = self.gather(rows.unflatten(0, (self.batch, -1))).flatten(0, 1)
        members = rows.shape[0] // self.batch
        first = members * torch.arange(self.batch, device=x.device)[:, None]
        return rows[(ancestors + first).flatten()].movedim(0, axis)

    # ---------------------------------------------------------------- the walk and its cost

    def steps(self, times: Tensor, progress: bool, description: str) -> Iterator[tuple[int, float, float]]:
        """The steps `(k, times[k], times[k + 1])` of a grid, behind a bar if asked."""
        pairs: Iterable[tuple[float, float]] = zip(times[:-1].tolist(), times[1:].tolist(), strict=True)
        if progress and self.processes.index == 0:
            pairs = progress_bar(list(pairs), desc=description, unit="step")
        return ((k, t, t_next) for k, (t, t_next) in enumerate(pairs))

    def report(
        self, callback: Callable[[Step], None] | None, k: int, t: float, x: Tensor, log_w: Tensor, size: Tensor
    ) -> None:
        """Tells the callback where the algorithm stands at the end of a step, and remembers it for a reward that fails."""
        self.scorer.step = Step(k, t, x.unflatten(0, self.shape), log_w, size)
        if callback is not None:
            callback(self.scorer.step)

    def result(self, x: Tensor, rewards: Tensor, log_weights: Tensor, components: dict, **fields: Any) -> Alignment:
        """What an algorithm returns, of all processes' members, with its cost."""
        fields["settings"] = {name: _plain(setting) for name, setting in fields["settings"].items()}
        fields["ancestors"] = self.processes.gather(fields["ancestors"], dim=2)
        return Alignment(
            samples=self.gather(x.unflatten(0, self.shape)),
            rewards=self.gather(rewards),
            log_weights=self.gather(log_weights),
            components={name: self.gather(part) for name, part in components.items()},
            nfe=self._each(self.account.evaluations()) if self.account.counts else None,
            nfe_backward=self._each(self.account.differentiated()),
            reward_calls=self._each(self.account.calls()),
            replicates=self.replicates,
            seconds=self.processes.most(self.account.seconds()),
            **fields,
        )

    def _each(self, count: int) -> int:
        """A count of all populations by this process, for one population by all processes."""
        return self.processes.sum(count) // self.batch


def _plain(setting: Any) -> Any:
    """Numbers of numpy's, or a tensor's, as Python's own: settings are JSON values."""
    return setting.tolist() if hasattr(setting, "tolist") else setting


def _check_alive(rewards: Tensor) -> None:
    dead = (rewards == -torch.inf).all(1).nonzero().flatten().tolist()
    if not dead:
        return
    batch, size = rewards.shape
    which, advice = "", "take more particles"
    if batch > 1:
        named = ", ".join(map(str, dead[:NAMED])) + (f", ... ({len(dead)} in all)" if len(dead) > NAMED else "")
        which = f" of population{'s' if len(dead) > 1 else ''} {named} of 0 to {batch - 1}"
        advice += f", or leave {'these populations' if len(dead) > 1 else 'this population'} out"
    raise ValueError(
        f"reward: it returned -inf for all {size} samples{which}, expected one or more that it allows; {advice}"
    )


def _alike(cond: Any) -> bool:
    """Whether all populations have the same conditioning."""
    return _equal(cond, map_cond(lambda c: c[:1].expand(c.shape), cond))


def _equal(cond: Any, other: Any) -> bool:
    """Whether conditioning is the same in all its tensors and texts, of two of one structure."""
    if isinstance(cond, Tensor):
        return bool((cond == other).all())
    if isinstance(cond, dict):
        return all(_equal(cond[key], other[key]) for key in cond)
    if isinstance(cond, (tuple, list)):
        return all(_equal(*pair) for pair in zip(cond, other, strict=True))
    return cond == other  # a text, or None
