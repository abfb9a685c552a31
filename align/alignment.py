"""What an algorithm returns."""

from __future__ import annotations

import math

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from torch import Tensor

from diamond.checkpoint import read_tensors, write_tensors
from diamond.randomness import Generator
from diamond.validation import check_positive

from .resampling import ess, systematic

__all__ = ["Alignment", "Evidence", "Step"]


@dataclass(frozen=True)
class Step:
    """What a callback sees at the end of a step; it must not change it. With several processes each sees its own
    particles, and the effective sample size of all.

    Attributes:
        step, t: the step's number and the time it reached.
        samples: `(batch, particles, *event)`.
        log_weights: `(batch, particles)`.
        ess: `(batch,)`.
    """

    step: int
    t: float
    samples: Tensor
    log_weights: Tensor
    ess: Tensor


class Evidence(NamedTuple):
    """`log_z`, an estimate of `log E[exp r(z)]`, and its standard error, NaN for a single population."""

    log_z: float
    error: float


@dataclass(frozen=True, repr=False)
class Alignment:
    """Samples aligned to a reward, with their weights and what they cost.

    Attributes:
        samples: `(batch, particles, *event)`.
        rewards: `(batch, particles)`, of these samples.
        log_weights: `(batch, particles)`, up to a constant a population; the weighted samples follow `law`.
        log_z: `(batch,)`, log of an unbiased estimate of `E[exp r(z)]`, where the method has one.
        ess: `(steps, batch)`, effective sample size after each step.
        ancestors: `(steps, batch, particles)`, the parent of each particle among those of the step before.
        inverse_temperatures: `(steps, batch)`, where the reward was tempered.
        components: `(batch, particles)` each, what the parts of a :class:`~align.rewards.Combined` say.
        nfe: network forward evaluations per population, or None for a model that does not count them.
        nfe_backward: of those, how many were differentiated through.
        reward_calls: samples scored per population.
        seconds: wall-clock time of the whole call, of the slowest process.
        method, law: which algorithm, and which law its weighted samples follow.
        settings: the algorithm's own, as JSON values.
        replicates: whether all populations have one reward and one conditioning, so that they may be taken together.
    """

    samples: Tensor
    rewards: Tensor
    log_weights: Tensor
    ess: Tensor
    ancestors: Tensor
    nfe: int | None
    reward_calls: int
    seconds: float
    method: str
    law: str
    nfe_backward: int = 0
    log_z: Tensor | None = None
    inverse_temperatures: Tensor | None = None
    components: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    replicates: bool = True

    def __repr__(self) -> str:
        batch, particles = self.rewards.shape
        cost = "" if self.nfe is None else f"nfe={self.nfe}, "
        return (
            f"Alignment({self.method}, {batch} x {particles} samples of shape {tuple(self.samples.shape[2:])}, "
            f"{cost}reward_calls={self.reward_calls})"
        )

    # ---------------------------------------------------------------- samples

    def best(self) -> Tensor:
        """The sample of the highest reward in each population, `(batch, *event)`."""
        index = self.rewards.argmax(dim=1)
        return self.samples[torch.arange(len(index), device=index.device), index]

    def resample(self, n: int, *, generator: Generator = None) -> Tensor:
        """`n` samples of each population drawn by weight (systematic resampling), `(batch, n, *event)`."""
        check_positive("n", n)
        index = systematic(self.log_weights, count=n, generator=generator)
        return self.samples[torch.arange(len(index), device=index.device)[:, None], index]

    # ---------------------------------------------------------------- diagnostics

    def evidence(self) -> Evidence:
        """`log E[exp r(z)]` from all populations together: the log of their mean estimate, with the standard error of
        that mean relative to it (the delta method).

        Raises:
            ValueError: the method estimates no evidence, or the populations have rewards or conditioning of their own.
        """
        if self.log_z is None:
            raise ValueError(
                f"log_z: {self.method} estimates none, expected the result of smc, best_of_n or guide(correct=True)"
            )
        if not self.replicates:
            raise ValueError(
                "log_z: got populations of different rewards or cond, expected replicates of one; see log_z"
            )
        log_z, count = self.log_z.double(), len(self.log_z)
        mean = torch.logsumexp(log_z, 0) - math.log(count)
        spread = (log_z - mean).exp().std() if count > 1 else log_z.new_tensor(torch.nan)
        return Evidence(float(mean), float(spread) / math.sqrt(count))

    def lineage(self) -> Tensor:
        """The number that each particle's ancestor had before step k, `(steps, batch, particles)`: `lineage()[0]` tells
        which of the first particles are its origin."""
        index, rows = torch.arange(self.rewards.shape[1], device=self.ancestors.device), []
        traced = index.expand(self.rewards.shape)
        for parents in self.ancestors.flip(0):
            traced = parents.gather(1, traced)
            rows.append(traced)
        return torch.stack(rows[::-1])

    def unique_ancestors(self) -> Tensor:
        """How many of the particles before step k have a living descendant, `(steps, batch)`: few early ones tell of a
        population that stems from a few."""
        alive = torch.zeros_like(self.ancestors, dtype=torch.bool).scatter(2, self.lineage(), True)
        return alive.sum(2)

    def summary(self) -> str:
        """A table to read: the method, the law it targets, rewards, weights, lineage and cost."""
        batch, particles = self.rewards.shape
        weights = self.log_weights.double().softmax(-1)
        rows = [
            ("method", self.method + "".join(f", {k}={v}" for k, v in self.settings.items() if v is not None)),
            ("law", self.law),
            ("populations", f"{batch} of {particles}"),
            (
                "reward",
                f"{_spread(_by_weight(weights, self.rewards))} by weight, best {_spread(self.rewards.amax(1).double())}",
            ),
        ]
        for name, part in self.components.items():
            rows.append((f"  {name}", _spread(_by_weight(weights, part))))
        if self.log_z is not None and self.replicates:
            log_z, error = self.evidence()
            rows.append(("log_z", f"{log_z:.4g}" + (f" +- {error:.2g}" if batch > 1 else "")))
        elif self.log_z is not None:
            few = ", ".join(f"{value:.4g}" for value in self.log_z[:8].tolist())
            rows.append(("log_z", few + (", ..." if batch > 8 else "") + " by population"))
        rows.append(("effective sample size", f"{_spread(ess(self.log_weights).double())} of {particles}"))
        rows.append(("unique first ancestors", f"{_spread(self.unique_ancestors()[0].double())} of {particles}"))
        cost = "not counted" if self.nfe is None else f"{self.nfe}, {self.nfe_backward} of them differentiated"
        rows += [("network evaluations", cost), ("reward calls", str(self.reward_calls))]
        rows.append(("seconds", f"{self.seconds:.3g} for all populations"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}s}  {text}" for name, text in rows)

    def plot(self) -> Any:
        """A matplotlib figure: the rewards by weight and as drawn, the effective sample size, and how many ancestors the
        particles have."""
        from .plot import plot

        return plot(self)

    # ---------------------------------------------------------------- files

    def save(self, path: str | Path) -> None:
        """Writes the tensors and figures to one safetensors file, for :meth:`load`.

        Raises:
            ValueError: `path` is a folder.
        """
        fields = {**vars(self), **{f"components.{name}": part for name, part in self.components.items()}}
        del fields["components"]
        tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
        figures = {name: value for name, value in fields.items() if name not in tensors}
        write_tensors(path, tensors, {"kind": "alignment", "figures": figures})

    @classmethod
    def load(cls, path: str | Path) -> Alignment:
        """The result that :meth:`save` wrote to `path`.

        Raises:
            FileNotFoundError, ValueError: as :func:`diamond.load`.
        """
        tensors, header = read_tensors(path)
        if header.get("kind") != "alignment":
            raise ValueError(
                f"{path}: it holds a {header.get('kind')}, expected an alignment; a model is loaded with diamond.load"
            )
        named = {name: value for name, value in tensors.items() if name.startswith("components.")}
        plain = {name: value for name, value in tensors.items() if name not in named}
        try:
            fields: dict[str, Any] = {**plain, **header["figures"]}
            return cls(**fields, components={name.split(".", 1)[1]: part for name, part in named.items()})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: its contents are not those of an alignment") from error


def _by_weight(weights: Tensor, rewards: Tensor) -> Tensor:
    """The weighted mean in each population; -inf may be where no weight is."""
    return torch.where(weights > 0, weights * rewards.double(), 0.0).sum(1)


def _spread(x: Tensor) -> str:
    """The mean over populations, and its standard error where there are several."""
    error = f" +- {float(x.std()) / math.sqrt(len(x)):.2g}" if len(x) > 1 else ""
    return f"{float(x.mean()):.4g}{error}"
