r"""How good the models are before any reward: samples, posterior draws, and the values made from them.

The GLASS flow with many inner steps is the reference throughout: it is the truth that the map was distilled from. A
value estimate from `mc` draws :math:`z^k` of the posterior is :math:`\log \frac{1}{K} \sum_k \exp r(z^k)`; its errors
have two parts, a sampler's own bias, which no number of draws mends, and the chance of the draws, which falls like
:math:`1 / \sqrt{K}`.
"""

from __future__ import annotations

import math

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor

from diamond.evaluation import distances_to, draw_references, energy_distance, equivalent_steps
from diamond.glass import GlassFlow
from diamond.model import PosteriorSampler
from diamond.randomness import normal

from .models import Cast
from .settings import Settings

__all__ = ["compare_samples", "measure_distances", "measure_values", "show_posteriors"]

GRID = 64
SHOWN_DIGIT = 3
SHOWN_DRAWS = 10
SHOWN_TIMES = (0.2, 0.4, 0.6)
TEACHER_EULER_STEPS = 64
DrawnReward = Callable[[Tensor], Tensor]  # draws (n, B, *event) -> (n, B)


@torch.no_grad()
def compare_samples(cast: Cast, settings: Settings) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Energy distance to the held-out digits, and distance to the nearest training digit, of several kinds of samples.

    Returns:
        The figures by kind, and a grid's worth of samples of each.
    """
    size, sets = len(cast.held_out.images), settings.sample_sets
    generator = cast.generator("samples")
    data = cast.train.images[torch.randperm(len(cast.train.images), generator=generator)]
    drawn = {
        "data": data[: size * min(sets, len(data) // size)],
        "teacher": cast.teacher.sample(size * sets, TEACHER_EULER_STEPS, generator=generator),
        "map, 1 step": cast.map.sample(size * sets, 1, generator=generator),
        "map, 4 steps": cast.map.sample(size * sets, 4, generator=generator),
    }
    figures: dict[str, Any] = {
        "held-out nearest": float(cast.judge.distance(cast.held_out.images).mean()),
        "calls a sample": {"data": 0, "teacher": TEACHER_EULER_STEPS, "map, 1 step": 1, "map, 4 steps": 4},
        "energy distance": {},
        "nearest": {},
    }
    for name, samples in drawn.items():
        each = samples.unflatten(0, (-1, size)).transpose(0, 1)  # (size, sets, *event): as many laws as sets
        held_out = cast.held_out.images[:, None].expand_as(each)
        figures["energy distance"][name] = float(energy_distance(each, held_out).mean())
        figures["nearest"][name] = float(cast.judge.distance(samples).mean()) if name != "data" else 0.0
    return figures, {name: samples[:GRID] for name, samples in drawn.items() if name != "map, 4 steps"}


@torch.no_grad()
def show_posteriors(cast: Cast, settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Posterior draws of one held-out digit at a few noise levels, by the map and by GLASS from the same noises.

    Returns:
        For each time, the root mean square distance between the draws of a pair and between draws of different noises;
        and what a picture needs: "t", "truth", "noisy", "mean" `(1, 8, 8)`, "map" and "glass" `(n, 1, 8, 8)`.
    """
    generator = cast.generator("posteriors")
    truth = cast.held_out.images[(cast.held_out_labels == SHOWN_DIGIT).nonzero()[:1, 0]]
    noise = normal(truth.shape, generator)
    start = normal((SHOWN_DRAWS, *truth.shape), generator, batch_axis=1)
    figures: dict[str, Any] = {"times": list(SHOWN_TIMES), "paired": [], "apart": [], "calls": settings.reference_steps}
    shown = []
    for t in SHOWN_TIMES:
        x_t = cast.map.interpolant.interpolate(truth, noise, torch.full((1,), t))
        mine = cast.map.posterior(x_t, t, SHOWN_DRAWS, noise=start)
        theirs = GlassFlow(cast.teacher, settings.reference_steps).posterior(x_t, t, SHOWN_DRAWS, noise=start)
        figures["paired"].append(float((mine - theirs).square().mean().sqrt()))
        figures["apart"].append(float((theirs - theirs.roll(1, 0)).square().mean().sqrt()))
        shown.append(
            {"t": t, "truth": truth[0], "noisy": x_t[0], "mean": cast.teacher.denoise(x_t, t)[0],
             "map": mine[:, 0], "glass": theirs[:, 0]}
        )  # fmt: skip
    return figures, shown


@torch.no_grad()
def measure_distances(cast: Cast, settings: Settings) -> dict[str, Any]:
    """Energy distances to the reference posterior at several times, and how many GLASS steps one call equals: of GLASS as
    published, with even steps, and on the grid fitted to the posterior."""
    references = draw_references(
        cast.teacher, cast.held_out.images[: settings.distance_states], settings.distance_times,
        draws=settings.distance_draws, reference_steps=settings.reference_steps, generator=cast.generator("distances"),
    )  # fmt: skip
    steps = list(settings.inner_steps)
    mine = distances_to(references, cast.map).mean(1).tolist()
    even, fitted = (
        torch.stack([distances_to(references, GlassFlow(cast.teacher, k, grid=grid)).mean(1) for k in steps]).T.tolist()
        for grid in ("uniform", "posterior")
    )
    return {
        "times": list(settings.distance_times),
        "steps": steps,
        "reference steps": settings.reference_steps,
        "map": mine,
        "glass": even,
        "glass, fitted": fitted,
        "equivalent steps": [equivalent_steps(m, steps, row) for m, row in zip(mine, even, strict=True)],
        "equivalent steps, fitted": [equivalent_steps(m, steps, row) for m, row in zip(mine, fitted, strict=True)],
    }


@torch.no_grad()
def measure_values(
    cast: Cast, settings: Settings, rewards: dict[str, Callable[[Tensor], DrawnReward]]
) -> dict[str, Any]:
    """Root mean square errors of value estimates against network calls.

    Arguments:
        rewards: by name; given the rows of the held-out digits that are noised, what scores draws from them.

    Returns:
        "curves": by reward and time, by sampler, lists of "nfe" and "rmse"; "reference error" likewise.
    """
    generator = cast.generator("values")
    rows = torch.arange(settings.distance_states, settings.distance_states + settings.value_states)
    z = cast.held_out.images[rows]
    samplers: dict[str, tuple[PosteriorSampler, int]] = {"map": (cast.map, 1)}
    samplers |= {f"GLASS-{k}": (GlassFlow(cast.teacher, k), k) for k in settings.inner_steps if 2 <= k <= 16}
    steps = settings.reference_steps
    figures: dict[str, Any] = {"times": list(settings.value_times), "mc": [], "curves": {}, "reference error": {}}
    figures["mc"] = [2**i for i in range(settings.value_pool.bit_length() - 1)]
    for t in settings.value_times:
        x_t = cast.map.interpolant.interpolate(z, normal(z.shape, generator), torch.full((len(z),), t))
        truth = GlassFlow(cast.teacher, steps).posterior(x_t, t, settings.value_draws, generator=generator)
        pools = {name: sampler.posterior(x_t, t, settings.value_pool, generator=generator)
                 for name, (sampler, _) in samplers.items()}  # fmt: skip
        mean = cast.teacher.denoise(x_t, t)[None]
        for reward_name, bind in rewards.items():
            reward = bind(rows)
            scores = reward(truth)
            value = scores.logsumexp(0) - math.log(len(scores))
            spread = (scores - value).exp().std(0) / len(scores) ** 0.5
            curves = {
                name: _curve(reward(pool), value, samplers[name][1], figures["mc"]) for name, pool in pools.items()
            }
            curves["plug-in"] = {"nfe": [1], "rmse": [float((reward(mean)[0] - value).square().mean().sqrt())]}
            figures["curves"].setdefault(reward_name, {})[str(t)] = curves
            figures["reference error"].setdefault(reward_name, {})[str(t)] = float(spread.square().mean().sqrt())
    return figures


def _curve(scores: Tensor, value: Tensor, calls: int, mc: list[int]) -> dict[str, list[float]]:
    """Errors of estimates from groups of `mc` of the draws scored `(n, B)`, which cost `calls` evaluations each."""
    errors = []
    for count in mc:
        estimates = scores.unflatten(0, (-1, count)).logsumexp(1) - math.log(count)
        errors.append(float((estimates - value).square().mean().sqrt()))
    return {"nfe": [calls * count for count in mc], "rmse": errors}
