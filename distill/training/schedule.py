"""How long and how fast to train, and the seeds of everything random in it."""

from __future__ import annotations

import math

from dataclasses import dataclass

from diamond.validation import check_choice, check_number, check_positive

__all__ = ["OPTIMIZERS", "PRECISIONS", "Schedule"]

PRECISIONS = ("fp32", "bf16")
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        batch: samples per optimiser step, over all processes and accumulated parts together.
        learning_rate: the optimiser's, after a linear warm-up of `warmup` steps, falling to zero by a half cosine.
        ema: decay of the moving average of the weights, which is what training returns; it is smaller at first,
            (1 + k) / (10 + k) at step k. Several decays keep several averages, of which the first is returned: see
            :mod:`distill.training.averages`.
        clip: largest norm of the gradient.
        seed: of everything random.
        accumulate: number of parts that a process works through one after the other for one step, to save memory.
        precision: "fp32", or "bf16" for the networks' own work, the weights and the losses staying in single precision;
            by default what accelerate was launched with.
        optimizer: "adamw", or "muon": see :mod:`distill.training.muon`.

    Raises:
        ValueError: a number that does not fit.
    """

    steps: int
    batch: int = 256
    learning_rate: float = 1e-3
    warmup: int = 100
    ema: float | tuple[float, ...] = 0.999
    clip: float = 1.0
    seed: int = 0
    accumulate: int = 1
    precision: str | None = None
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            check_positive(name, getattr(self, name))
        check_positive("warmup", self.warmup, least=0)
        check_positive("seed", self.seed, least=-(2**63))
        if self.seed >= 2**63:
            raise ValueError(f"seed: got {self.seed}, expected a whole number below 2**63")
        for name, fits in (("learning_rate", lambda rate: 0 < rate < math.inf), ("clip", lambda norm: norm > 0)):
            object.__setattr__(self, name, check_number(name, getattr(self, name), "a positive number", fits))
        self._check_decays()
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.precision is not None:
            check_choice("precision", self.precision, PRECISIONS)

    def _check_decays(self) -> None:
        expected = "a decay in [0, 1), or several different ones"
        for decay in self.decays:
            check_number("ema", decay, expected, lambda decay: 0 <= decay < 1)
        if not self.decays or len({*self.decays}) < len(self.decays):
            raise ValueError(f"ema: got {self.ema}, expected {expected}")

    @property
    def decays(self) -> tuple[float, ...]:
        """The decays of the averages, the one to return first."""
        return tuple(self.ema) if isinstance(self.ema, (tuple, list)) else (self.ema,)

    def rate(self, step: int) -> float:
        """The learning rate of step `step`."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def seed_of(self, step: int, part: int = 0) -> int:
        """A seed for each part of each step; the multipliers are odd, so that no two small triples meet."""
        return (self.seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + part * 0x8CB92BA72F3D8DD7) % 2**63
