"""How much work the demo does: the counts that decide how long it takes and how sharp its figures are.

Network evaluations (NFE) are the currency. With `steps` transitions and `mc` look-ahead draws, a particle of search or
SMC costs `steps + (steps - 1) mc` of them and a guided sample `steps (1 + mc)`: the numbers here make the former 16 and
the latter 64, so that every budget below is spent to the last evaluation by every method.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "MAP_STEPS", "QUICK", "TEACHER_STEPS", "Settings"]

TEACHER_STEPS = 1200
MAP_STEPS = 6000

WALK_TIMES = (0.0, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)  # of search and SMC: two draws tell little of the value before 0.3
WALK_STEPS, WALK_MC = len(WALK_TIMES) - 1, 2
WALK_COST = WALK_STEPS + (WALK_STEPS - 1) * WALK_MC
BRANCH = 4  # candidates a state, in search
GUIDE_COST = 64  # NFE a guided sample, however it is divided into steps and draws
GLASS_STEPS = 8  # inner steps of the GLASS flow that is compared at equal NFE


@dataclass(frozen=True)
class Settings:
    """The counts.

    Attributes:
        teacher_steps, map_steps: optimiser steps.
        sample_sets: sets of samples, each as many as the held-out digits, whose distance to these is averaged.
        reference_steps: inner steps of the GLASS flow taken for the truth.
        inner_steps: numbers of inner steps to compare with the map.
        distance_times, distance_states, distance_draws: of the energy distances.
        value_times, value_states, value_draws: of the value errors; the draws are those of the reference.
        value_pool: draws of each sampler, shared out among estimates.
        budgets: NFE a population, rising.
        shown_budget: the one of the tables and pictures.
        targets: digits asked for, digits to complete, and repetitions of the symmetry task.
        populations: independent populations a target.
        ess_particles, ess_mc: of the SMC runs whose effective sample size is followed, the latter for the careful one.
    """

    teacher_steps: int
    map_steps: int
    sample_sets: int
    reference_steps: int
    inner_steps: tuple[int, ...]
    distance_times: tuple[float, ...]
    distance_states: int
    distance_draws: int
    value_times: tuple[float, ...]
    value_states: int
    value_draws: int
    value_pool: int
    budgets: tuple[int, ...]
    shown_budget: int
    targets: int
    populations: int
    ess_particles: int
    ess_mc: int


FULL = Settings(
    teacher_steps=TEACHER_STEPS,
    map_steps=MAP_STEPS,
    sample_sets=4,
    reference_steps=128,
    inner_steps=(1, 2, 4, 8, 16, 32),
    distance_times=(0.2, 0.4, 0.6, 0.8),
    distance_states=8,
    distance_draws=128,
    value_times=(0.3, 0.6),
    value_states=12,
    value_draws=192,
    value_pool=128,
    budgets=(64, 256, 1024),
    shown_budget=256,
    targets=10,
    populations=4,
    ess_particles=64,
    ess_mc=16,
)

QUICK = Settings(
    teacher_steps=120,
    map_steps=40,
    sample_sets=1,
    reference_steps=16,
    inner_steps=(1, 2, 4, 8),
    distance_times=(0.3, 0.7),
    distance_states=3,
    distance_draws=24,
    value_times=(0.5,),
    value_states=4,
    value_draws=32,
    value_pool=16,
    budgets=(64, 128),
    shown_budget=128,
    targets=4,
    populations=1,
    ess_particles=16,
    ess_mc=4,
)
