"""How much work the benchmark does."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "Settings"]


@dataclass(frozen=True)
class Settings:
    """The counts.

    Attributes:
        sizes: dimensions of the mixtures.
        mixture_steps: optimiser steps of each of their maps.
        populations: independent populations of each row.
        mixture_budgets: rising; NFE a population, for the curves. The last one is the table's.
        mixture_calls: reward calls a population, for the other table.
        teacher_steps, map_steps, flow_map_steps: of the digits' models.
        classes: digits that are asked for.
        class_populations: populations a digit.
        digit_nfe, digit_calls: their budgets.
    """

    sizes: tuple[int, ...]
    mixture_steps: int
    populations: int
    mixture_budgets: tuple[int, ...]
    mixture_calls: int
    teacher_steps: int
    map_steps: int
    flow_map_steps: int
    classes: tuple[int, ...]
    class_populations: int
    digit_nfe: int
    digit_calls: int


FULL = Settings(
    sizes=(2, 16, 64),
    mixture_steps=3000,
    populations=32,
    mixture_budgets=(256, 1024, 4096),
    mixture_calls=1024,
    teacher_steps=1200,
    map_steps=4000,
    flow_map_steps=3000,
    classes=(1, 3, 5, 8),
    class_populations=8,
    digit_nfe=1024,
    digit_calls=256,
)

QUICK = Settings(
    sizes=(2,),
    mixture_steps=60,
    populations=4,
    mixture_budgets=(128, 512),
    mixture_calls=128,
    teacher_steps=60,
    map_steps=40,
    flow_map_steps=40,
    classes=(3,),
    class_populations=2,
    digit_nfe=256,
    digit_calls=64,
)
