"""What an algorithm returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from torch import Tensor

from diamond.checkpoint import read_tensors, write_tensors
from diamond.randomness import Generator
from diamond.validation import check_positive

from .resampling import systematic

__all__ = ["Alignment", "Step"]


@dataclass(frozen=True)
class Step:
    """What a callback sees at the end of a step; it must not change it.

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


@dataclass(frozen=True)
class Alignment:
    """Samples aligned to a reward, with their weights and what they cost.

    Attributes:
        samples: `(batch, particles, *event)`.
        rewards: `(batch, particles)`, of these samples.
        log_weights: `(batch, particles)`, up to a constant a population; the weighted samples follow `law`.
        log_z: `(batch,)`, log of an unbiased estimate of `E[exp r(z)]`, where the method has one.
        ess: `(steps, batch)`, effective sample size after each step.
        ancestors: `(steps, batch, particles)`, the parent of each particle among those of the step before.
        nfe: network forward evaluations per population, or None for a model that does not count them.
        nfe_backward: of those, how many were differentiated through.
        reward_calls: samples scored per population.
        seconds: wall-clock time of the whole call.
        method, law: which algorithm, and which law its weighted samples follow.
    """

    samples: Tensor
    rewards: Tensor
    log_weights: Tensor
    ess: Tensor
    ancestors: Tensor
    nfe: int | None
    nfe_backward: int
    reward_calls: int
    seconds: float
    method: str
    law: str
    log_z: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def best(self) -> Tensor:
        """The sample of the highest reward in each population, `(batch, *event)`."""
        index = self.rewards.argmax(dim=1)
        return self.samples[torch.arange(len(index), device=index.device), index]

    def resample(self, n: int, *, generator: Generator = None) -> Tensor:
        """`n` samples of each population drawn by weight (systematic resampling), `(batch, n, *event)`."""
        check_positive("n", n)
        index = systematic(self.log_weights, count=n, generator=generator)
        return self.samples[torch.arange(len(index), device=index.device)[:, None], index]

    def save(self, path: str | Path) -> None:
        """Writes the tensors and figures to one safetensors file, for :meth:`load`."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        figures = {name: value for name, value in vars(self).items() if name not in tensors}
        write_tensors(path, tensors, {"kind": "alignment", "figures": figures})

    @classmethod
    def load(cls, path: str | Path) -> Alignment:
        """The result that :meth:`save` wrote to `path`.

        Raises:
            FileNotFoundError, ValueError: as :func:`diamond.load`.
        """
        tensors, header = read_tensors(path)
        if header.get("kind") != "alignment":
            raise ValueError(f"{path}: it holds a {header.get('kind')}, expected an alignment")
        try:
            fields: dict[str, Any] = {**tensors, **header["figures"]}
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: its contents are not those of an alignment") from error

    def plot(self) -> Any:
        """A matplotlib figure: the rewards, by weight and as drawn, and the effective sample size over the steps."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        rewards = self.rewards.flatten().double().cpu()
        weights = self.log_weights.softmax(-1).flatten().cpu() / len(self.rewards)
        finite = rewards.isfinite()
        ends = rewards[finite].aminmax() if bool(finite.any()) else (0.0, 0.0)
        bins = torch.linspace(float(ends[0]), float(ends[1]) + 1e-6, 31, dtype=rewards.dtype).tolist()
        left.hist(rewards[finite], bins=bins, weights=weights[finite], color="#33658a", label="by weight")
        left.hist(
            rewards[finite], bins=bins, weights=[1 / len(rewards)] * int(finite.sum()), histtype="step", color="black",
            label="as drawn",
        )  # fmt: skip
        left.set(xlabel="reward", ylabel="share", title=self.method)
        left.legend(frameon=False)
        steps = range(1, len(self.ess) + 1)
        right.plot(steps, self.ess.cpu(), color="#f26419", alpha=max(0.15, 1 / max(self.ess.shape[1], 1)))
        right.set(xlabel="step", ylabel="effective sample size", ylim=(0, self.rewards.shape[1] * 1.05))
        return figure
