r"""Handwritten digits: a class asked for by one classifier, and judged by others that had no part in it.

The reward is a classifier's log-probability of the digit, so the target is the model's law given the class. Particles
are drawn by weight, and of these are reported: the mean reward; how often a judge of another kind agrees
(:class:`diamond.cli.demo.models.Judge`); their mean pairwise distance within a population relative to that of real
digits of the class; and, in the features of a third, narrow classifier, the Frechet distance to these,

.. math:: |m - m'|^2 + \operatorname{tr} (C + C' - 2 (C^{1/2} C' C^{1/2})^{1/2}) .

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torch import Tensor, nn

import distill

from align.rewards import ClassifierLogProbability
from diamond.cli.classifier import train_classifier
from diamond.cli.demo import models as demo
from diamond.cli.demo.settings import WALK_MC, WALK_TIMES
from diamond.data import load_data

from .figures import mean_and_error
from .methods import FREE, Contest, CountedReward, affordable, methods_of, run
from .mixtures import seeded
from .models import Models, assemble, cached
from .settings import Settings

__all__ = ["PROBLEM", "REAL", "compare_on_digits", "frechet_distance"]

PROBLEM = "digits"
REAL = "real digits"
WALK = {"times": WALK_TIMES, "mc": WALK_MC}
GUIDE = {"steps": 16, "mc": 3}
DRAWN = 16  # samples of each population that are looked at
FEATURES = 16


@dataclass(frozen=True)
class Jury:
    """Who scores: the cast with its judge, and a narrow network for its features."""

    cast: demo.Cast
    narrow: nn.Module
    real: dict[int, Tensor]  # by class, `(N, 1, 8, 8)`

    def features(self, z: Tensor) -> Tensor:
        """The last hidden layer of the narrow network, `(N, 16)`."""
        return self.narrow[:-1](z)  # type: ignore[index]


def compare_on_digits(settings: Settings, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each budget, model and method, as they are finished."""
    models, jury = _models(settings, folder / "digits", seed)
    yield _real_row(jury, settings, seed)
    for currency, budget in (("nfe", settings.digit_nfe), ("reward_calls", settings.digit_calls)):
        for name in models.by_name:
            for method in methods_of(name):
                row = {"problem": PROBLEM, "currency": currency, "budget": budget, "model": name, "method": method}
                if spent := _row(models, jury, row, settings, seed):
                    yield row | spent


def _models(settings: Settings, folder: Path, seed: int) -> tuple[Models, Jury]:
    train, held_out = load_data("digits"), load_data("digits", split="held-out")
    assert train.labels is not None and held_out.labels is not None

    def how(steps: int) -> dict[str, Any]:
        return {"steps": steps, "seed": seed}

    teacher = cached(
        folder / "glass.ckpt",
        lambda out: distill.train_flow(train.images, out=out, **how(settings.teacher_steps)),
        how(settings.teacher_steps),
    )
    maps = [
        cached(
            folder / name,
            lambda out, recipe=recipe, steps=steps: recipe(  # type: ignore[misc]
                teacher, train.images, loss="trajectory", times="uniform", out=out, **how(steps)
            ),
            how(steps),
        )
        for name, recipe, steps in (
            ("diamond.ckpt", distill.distill, settings.map_steps),
            ("flow-map.ckpt", distill.distill_flow_map, settings.flow_map_steps),
        )
    ]
    cast = demo.assemble(teacher, maps[0], seed)
    std = float(train.images.var(0).mean().sqrt())
    images, labels = torch.cat([train.images, held_out.images]), torch.cat([train.labels, held_out.labels])
    narrow = train_classifier(train, width=FEATURES, seed=seed + 1)
    jury = Jury(cast, narrow, {label: images[labels == label] for label in settings.classes})
    return assemble(cast.teacher, cast.map, maps[1], (8,), std), jury


def _row(models: Models, jury: Jury, row: dict[str, Any], settings: Settings, seed: int) -> dict[str, Any]:
    model, method = models.by_name[row["model"]], methods_of(row["model"])[row["method"]]
    results, calls, drawn = [], [], {}
    for label in settings.classes:
        reward = CountedReward(ClassifierLogProbability(jury.cast.classifier, label))
        contest = Contest(models, reward, WALK, GUIDE)
        particles = affordable(contest, model, method, row["budget"], row["currency"])
        if not particles:
            return {}
        generator = seeded(seed, *row.values(), label)
        result, spent = run(contest, model, method, particles, settings.class_populations, generator)
        results.append(result)
        calls.append(spent)
        drawn[label] = result.resample(DRAWN, generator=generator)
    return {
        "particles": results[0].samples.shape[1],
        "nfe": results[0].nfe,
        "nfe_backward": results[0].nfe_backward,
        "reward_calls": calls[0],
        "seconds": sum(result.seconds for result in results),
        "figures": _figures(jury, drawn),
    }


def _figures(jury: Jury, drawn: dict[int, Tensor]) -> dict[str, Any]:
    """Of populations `(batch, n, 1, 8, 8)` by class: means and standard errors over all populations, those of the
    Frechet distance over classes."""
    rewards, agrees, spreads, distances = [], [], [], []
    for label, samples in drawn.items():
        flat, real = samples.flatten(0, 1), jury.real[label]
        reward = ClassifierLogProbability(jury.cast.classifier, label)
        rewards.append(reward(flat).reshape(samples.shape[:2]).mean(1))
        agrees.append((jury.cast.judge.labels(flat) == label).float().reshape(samples.shape[:2]).mean(1))
        spreads.append(_mean_distance(samples.flatten(2)) / _mean_distance(real.flatten(1)[None]))
        distances.append(frechet_distance(jury.features(flat), jury.features(real)))
    return {
        "reward": mean_and_error(torch.cat(rewards)),
        "agrees": mean_and_error(torch.cat(agrees)),
        "diversity": mean_and_error(torch.cat(spreads)),
        "frechet": mean_and_error(torch.stack(distances)),
    }


def _real_row(jury: Jury, settings: Settings, seed: int) -> dict[str, Any]:
    """What real digits score: random ones of each class, and for the Frechet distance one half against the other."""
    generator = seeded(seed, "real")
    drawn, halves = {}, []
    for label, real in jury.real.items():
        order = torch.randperm(len(real), generator=generator)
        features = jury.features(real[order])
        halves.append(frechet_distance(*features.tensor_split(2)))
        batch = settings.class_populations
        rows = torch.stack([torch.randperm(len(real), generator=generator)[:DRAWN] for _ in range(batch)])
        drawn[label] = real[rows]
    row = {"problem": PROBLEM, "method": REAL, "particles": DRAWN, **FREE}
    held_out = jury.cast.held_out
    correct = jury.narrow(held_out.images).argmax(1) == held_out.labels
    truth = {"accuracy": float(correct.float().mean())}
    figures = _figures(jury, drawn) | {"frechet": mean_and_error(torch.stack(halves))}
    return row | {"figures": figures, "truth": truth}


def _mean_distance(x: Tensor) -> Tensor:
    """The mean distance between different members of populations `(batch, n, D)`: `(batch,)`."""
    n = x.shape[1]
    return torch.cdist(x, x).sum((1, 2)) / (n * (n - 1))


def frechet_distance(x: Tensor, y: Tensor) -> Tensor:
    """The Frechet distance between the Gaussians of the moments of `x` `(N, D)` and `y` `(M, D)`, a scalar."""
    x, y = x.double(), y.double()
    values, basis = torch.linalg.eigh(x.T.cov())
    root = (basis * values.clamp_min(0).sqrt()) @ basis.T
    cross = torch.linalg.eigvalsh(root @ y.T.cov() @ root).clamp_min(0).sqrt().sum()
    spread = x.T.cov().trace() + y.T.cov().trace() - 2 * cross
    return (x.mean(0) - y.mean(0)).square().sum() + spread
