"""All figures of a map, as JSON values: its posteriors, values, calibration, transitions and samples.

Every part has its own source of noise, so that it comes out the same whichever others are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor

from align.rewards import Brightness, Symmetry
from diamond import evaluation
from diamond.glass import GlassFlow
from diamond.progress import progress_bar
from diamond.randomness import normal

from ..value_error import Reward, standardised, value_errors
from .settings import MC, TEACHER_STEPS, Sizes
from .subject import Subject

__all__ = ["evaluate_all"]

DEVIATION = 1.0  # of the rewards over the data: a value is then off by about one where nothing is known of z
PROJECTIONS = 4
BINS = 8
SETS = 4  # parts whose spread is an energy distance's error
PLAIN = 256  # entries of an event up to which the two-sample test sees them all


@torch.no_grad()
def evaluate_all(subject: Subject, sizes: Sizes, progress: bool = True) -> dict[str, Any]:
    """The figures of `subject`: "posterior", "two_sample", "value", "calibration", "transition" and "samples", the last
    None without a judge."""
    bar: Any = progress_bar(total=6, desc="reference", unit="part", disable=not progress)
    noise = subject.generator(0)
    z, model, teacher = subject.states(sizes.states, noise)
    references = evaluation.draw_references(
        teacher, z, sizes.times, draws=sizes.draws, reference_steps=sizes.reference_steps, generator=noise
    )
    rewards = {
        name: standardised(reward, subject.train.images, DEVIATION)
        for name, reward in {"brightness": Brightness(), "symmetry": Symmetry()}.items()
    }
    parts: dict[str, Callable[[], Any]] = {
        "posterior": lambda: _distances(model, teacher, references, sizes),
        "two_sample": lambda: _two_sample(subject, model, teacher, references, sizes),
        "value": lambda: {
            "mc": MC,
            "reward_deviation": DEVIATION,
            **value_errors(model, teacher, rewards, references, mc=MC, steps=sizes.glass_steps, seed=subject.seed),
        },
        "calibration": lambda: _calibration(subject, rewards, sizes),
        "transition": lambda: _transitions(subject, sizes),
        "samples": lambda: None if subject.judge is None else _samples(subject, subject.judge, sizes),
    }
    figures = {}
    for name, part in parts.items():
        bar.set_description(name)
        figures[name] = part()
        bar.update()
    bar.close()
    return figures


def _distances(model: Any, teacher: Any, references: list[evaluation.Reference], sizes: Sizes) -> dict[str, Any]:
    """Energy distances to the reference, errors of the mean and spreads, one for each time, their mean over states; and the
    number of GLASS steps that would come as close as the map's one call: fitted to the posterior, as everywhere here, and
    even ones, as published."""
    steps = sizes.glass_steps
    mine = evaluation.compare(references, model)
    distances = mine.distance.mean(1).tolist()
    figures: dict[str, Any] = {}
    for grid, suffix in (("posterior", ""), ("uniform", "_published")):
        theirs = [evaluation.compare(references, GlassFlow(teacher, k, grid=grid)) for k in steps]
        for figure in ("distance", "mean_error", "spread"):
            named = {f"GLASS-{k}": found for k, found in zip(steps, theirs, strict=True)}
            rows = {name: getattr(found, figure).mean(1).tolist() for name, found in {"map": mine, **named}.items()}
            figures[f"{'energy_' if figure == 'distance' else ''}{figure}{suffix}"] = rows
        figures[f"equivalent_steps{suffix}"] = [
            evaluation.equivalent_steps(distance, steps, [float(found.distance[i].mean()) for found in theirs])
            for i, distance in enumerate(distances)
        ]
    return figures


def _two_sample(
    subject: Subject, model: Any, teacher: Any, references: list[evaluation.Reference], sizes: Sizes
) -> dict[str, Any]:
    """Areas under the curve and accuracies of the two-sample test, on small events themselves and in the judge's
    features: by view, then by sampler, one for each time."""
    samplers = {"map": model, **{f"GLASS-{k}": GlassFlow(teacher, k) for k in sizes.test_steps}}
    views: dict[str, Callable[[Tensor], Tensor]] = {}
    if subject.judge is not None:
        views["judge's features"] = subject.judge.features
    if subject.train.images[0].numel() <= PLAIN or not views:
        views["pixels"] = lambda images: images.flatten(1)
    noise = subject.generator(1)
    table: dict[str, Any] = {name: {} for name in views}
    for reference in references:
        truth = reference.draws[: sizes.test_draws]
        drawn = {
            name: evaluation.draw_in_tiles(sampler, reference.x_t, reference.t, len(truth), generator=noise)
            for name, sampler in samplers.items()
        }
        for view, seen in views.items():
            for name, draws in drawn.items():
                x, y = (seen(d.flatten(0, 1)).reshape(*d.shape[:2], -1) for d in (truth, draws))
                found = evaluation.two_sample_test(x, y, seen(reference.x_t), generator=noise)
                for figure, value in vars(found).items():
                    table[view].setdefault(name, {}).setdefault(figure, []).append(value)
    return table


def _calibration(subject: Subject, rewards: dict[str, Reward], sizes: Sizes) -> dict[str, Any]:
    """Ranks of held-out data among posterior draws: of rewards and of projections on random directions, and how far
    from uniform they are. "p_value" is that of the least likely number, times how many there are."""
    noise = subject.generator(2)
    z, model, teacher = subject.states(sizes.ranked_states, noise)
    directions = evaluation.random_projections(z, PROJECTIONS, generator=noise).flatten(1)

    def numbers(images: Tensor) -> Tensor:
        return torch.cat(
            [torch.stack([reward(images) for reward in rewards.values()], -1), images.flatten(1) @ directions.T], -1
        )

    samplers = {"map": model, f"GLASS-{sizes.ranked_steps}": GlassFlow(teacher, sizes.ranked_steps)}
    names = [*rewards, *(f"projection {i + 1}" for i in range(PROJECTIONS))]
    figures: dict[str, Any] = {"states": len(z), "draws": sizes.ranked_draws, "numbers": names, "by": {}}
    for t in sizes.times:
        (reference,) = evaluation.draw_references(teacher, z, (t,), draws=1, reference_steps=1, generator=noise)
        for name, sampler in samplers.items():
            draws = evaluation.draw_in_tiles(sampler, reference.x_t, t, sizes.ranked_draws, generator=noise)
            scored = numbers(draws.flatten(0, 1)).reshape(*draws.shape[:2], -1)
            ranks = evaluation.truth_ranks(numbers(z), scored, generator=noise)
            statistics, p_values = evaluation.uniformity(ranks)
            row = figures["by"].setdefault(name, {"statistic": [], "p_value": [], "histogram": []})
            row["statistic"].append(statistics.tolist())
            row["p_value"].append(min(1.0, len(names) * float(p_values.min())))
            counts = ranks.flatten().cpu().histc(BINS, 0, 1)
            row["histogram"].append((counts / counts.mean()).tolist())
    return figures


def _transitions(subject: Subject, sizes: Sizes) -> dict[str, Any]:
    """Energy distances, in the events' own coordinates, between noised data and the states of the map's chain; and
    between noised data and noised samples of the teacher. Means and standard errors, one for each time."""
    noise = subject.generator(3)
    count = min(sizes.samples, len(subject.train.images))
    z = subject.train.images[torch.randperm(len(subject.train.images), generator=noise)[:count]]
    path, steps = subject.map.interpolant, sizes.chain_steps
    times = [(i + 1) / steps for i in range(steps)]
    chain = subject.chain(count, steps, noise)
    samples = subject.sample(subject.teacher, count, TEACHER_STEPS, noise)[0]
    teacher = [
        path.interpolate(samples, normal(samples.shape, noise, device=z.device, dtype=z.dtype), z.new_full((count,), t))
        for t in times
    ]
    figures: dict[str, Any] = {"times": times, "states": count}
    for name, states in {"chain of the map": chain, "teacher, noised": teacher}.items():
        found = evaluation.marginal_distances(path, states, z, min(SETS, count // 2), generator=noise)
        figures[name] = {
            "energy_distance": found.mean(1).tolist(),
            "error": (found.std(1) / found.shape[1] ** 0.5).tolist() if found.shape[1] > 1 else None,
        }
    return figures


def _samples(subject: Subject, judge: Any, sizes: Sizes) -> dict[str, Any]:
    """Figures of samples in the judge's features, and for comparison those of held-out data."""
    noise = subject.generator(4)
    rows = torch.randperm(len(subject.train.images), generator=noise)[: sizes.data]
    train, held_out = subject.train, subject.held_out
    data = evaluation.JudgedData.of(judge, train.images[rows], None if train.labels is None else train.labels[rows])
    kinds = {"held-out data": (held_out.images[: sizes.samples], held_out.labels)} if len(held_out.images) > 3 else {}
    for steps in sizes.map_steps:
        kinds[f"map, {steps} step{'s' * (steps > 1)}"] = subject.sample(subject.map, sizes.samples, steps, noise)
    kinds[f"teacher, {TEACHER_STEPS} steps"] = subject.sample(subject.teacher, sizes.samples, TEACHER_STEPS, noise)
    by = {}
    for name, (images, labels) in kinds.items():
        labels = None if labels is None else labels[: len(images)]
        by[name] = {"count": len(images), **evaluation.sample_quality(judge, data, images, labels)}
    return {"judge": judge.title, "judge_metadata": judge.metadata, "data": len(rows), "by": by}
