"""Mixtures: every method's error against the closed form, at equal NFE and at equal reward calls.

Search and SMC walk in 8 steps with 4 draws a value, guidance in 16 steps with 4 draws a gradient: the defaults of
:mod:`align`.
"""

from __future__ import annotations

import zlib

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .figures import law_figures
from .methods import FREE, METHODS, Contest, CountedReward, affordable, methods_of, run
from .models import mixture_models
from .settings import Settings
from .tilts import Tilt, make_tilt

__all__ = ["FLOOR", "compare_on_mixtures", "seeded"]

WALK = {"steps": 8, "mc": 4}
GUIDE = {"steps": 16, "mc": 4}
FLOOR = "draws of the tilted law"
FLOOR_DRAWS = 100


def seeded(seed: int, *names: object) -> torch.Generator:
    """A generator for one purpose: whatever else is drawn, it draws the same."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, (seed, *names))).encode()))


def compare_on_mixtures(settings: Settings, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each dimension, budget, model and method, as they are finished."""
    for size in settings.sizes:
        tilt = make_tilt(size)
        models = mixture_models(tilt, settings.mixture_steps, folder, seed)
        contest = Contest(models, CountedReward(tilt.reward), WALK, GUIDE)
        yield _floor(tilt, settings, seed)
        for currency, budget, model, method in _plan(settings, list(models.by_name)):
            row = {"problem": tilt.name, "currency": currency, "budget": budget, "model": model, "method": method}
            if spent := _row(contest, tilt, row, settings.populations, seed):
                yield row | spent


def _plan(settings: Settings, models: list[str]) -> Iterator[tuple[str, int, str, str]]:
    """All that is compared: the tables of both budgets, and the smaller budgets for the map's methods alone."""
    for currency, budget in (("nfe", settings.mixture_budgets[-1]), ("reward_calls", settings.mixture_calls)):
        yield from ((currency, budget, model, method) for model in models for method in methods_of(model))
    for budget in settings.mixture_budgets[:-1]:
        yield from (("nfe", budget, "map", method) for method in METHODS)


def _row(contest: Contest, tilt: Tilt, row: dict[str, Any], populations: int, seed: int) -> dict[str, Any]:
    model, method = contest.models.by_name[row["model"]], methods_of(row["model"])[row["method"]]
    particles = affordable(contest, model, method, row["budget"], row["currency"])
    if not particles:
        return {}
    result, calls = run(contest, model, method, particles, populations, seeded(seed, *row.values()))
    return {
        "particles": particles,
        "nfe": result.nfe,
        "nfe_backward": result.nfe_backward,
        "reward_calls": calls,
        "seconds": result.seconds,
        "figures": law_figures(result.samples, result.log_weights, result.log_z, tilt),
    }


def _floor(tilt: Tilt, settings: Settings, seed: int) -> dict[str, Any]:
    """What independent draws of the tilted law itself would score: no sampler of as many particles does better."""
    count = settings.populations * FLOOR_DRAWS
    samples = tilt.law.sample(count, generator=seeded(seed, tilt.name, "floor")).unflatten(0, (-1, FLOOR_DRAWS))
    even = torch.zeros(samples.shape[:2])
    row = {"problem": tilt.name, "method": FLOOR, "particles": FLOOR_DRAWS, **FREE}
    truth = {"log z": tilt.log_z, "draws needed": tilt.draws_needed, "masses": tilt.law.weights.tolist()}
    return row | {"figures": law_figures(samples, even, None, tilt), "truth": truth}
