r"""How far value estimates are from the truth.

At noisy data :math:`x_t`, the value :math:`V_t = \log E[\exp r(z) \mid x_t]` is estimated from 16 posterior draws of
each sampler, and by the reward at the posterior mean (the plug-in), several times; the reference is the GLASS flow with
128 inner steps and many draws. The reward is standardised over the data, and scaled to a given standard deviation.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Sequence

import torch

from torch import Tensor

from align import value
from align.scoring import Scorer
from diamond.glass import GlassFlow
from diamond.model import Model, PosteriorSampler
from diamond.randomness import normal

__all__ = ["reference_values", "standardised", "value_errors"]

REPEATS = 8
TILE = 64

Reward = Callable[[Tensor], Tensor]


def standardised(reward: Reward, images: Tensor, deviation: float) -> Reward:
    """`reward`, shifted and scaled to mean 0 and the given standard deviation over `images` `(N, *event)`.

    Raises:
        ValueError: the reward is the same for all of them.
    """
    rewards = reward(images)
    mean, spread = rewards.mean(), rewards.std()
    if not bool(spread > 0):
        raise ValueError("data: got images that all have the same reward, expected some that differ")
    return lambda z: (reward(z) - mean) * (deviation / spread)


@torch.no_grad()
def reference_values(
    model: PosteriorSampler, rewards: Sequence[Reward], x_t: Tensor, t: float, draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The values `(R, B)` of R rewards at states `(B, *event)`, all from the same draws, and their standard errors."""
    scores = []
    for first in range(0, draws, TILE):
        z = model.posterior(x_t, t, min(TILE, draws - first), generator=generator)
        scores.append(torch.stack([reward(z.flatten(0, 1)).reshape(z.shape[:2]) for reward in rewards]))
    r = torch.cat(scores, dim=1).double()  # (R, draws, B)
    values = r.logsumexp(1) - math.log(draws)
    return values, (r - values[:, None]).exp().std(1) / draws**0.5


@torch.no_grad()
def value_errors(
    model: PosteriorSampler,
    teacher: Model,
    rewards: dict[str, Reward],
    z: Tensor,
    times: Iterable[float],
    *,
    mc: int = 16,
    steps: Sequence[int] = (1, 2, 4, 8, 16),
    reference_steps: int = 128,
    draws: int = 512,
    seed: int = 0,
) -> dict[str, dict[str, list[float]]]:
    """Root mean square errors over states and repeats, one for each of `times`.

    Arguments:
        model: the map.
        teacher: the flow that it was distilled from.
        rewards: by name.
        z: data `(B, *event)`, noised to each of `times`.
        mc: posterior draws an estimate; the map and the GLASS flows start from the same noises.
        steps: inner steps of the GLASS flows to compare.
        draws: of the reference.
        seed: of the noises.

    Returns:
        By reward, then by estimator: "map", "GLASS-1", ..., "plug-in", and "reference", whose own standard error it is.
    """
    samplers: dict[str, PosteriorSampler] = {"map": model, **{f"GLASS-{k}": GlassFlow(teacher, k) for k in steps}}
    table: dict[str, dict[str, list[float]]] = {name: {} for name in rewards}
    for t in times:
        generator = torch.Generator().manual_seed(seed)
        noise = normal(z.shape, generator, device=z.device, dtype=z.dtype)
        x_t = teacher.interpolant.interpolate(z, noise, torch.full((len(z),), t, device=z.device, dtype=z.dtype))
        truths, errors = reference_values(
            GlassFlow(teacher, reference_steps), list(rewards.values()), x_t, t, draws, generator
        )
        for (name, reward), truth, error in zip(rewards.items(), truths, errors, strict=True):
            found = {"plug-in": reward(teacher.denoise(x_t, t))[None] - truth}
            for sampler_name, sampler in samplers.items():
                many = x_t.repeat(REPEATS, *[1] * (x_t.ndim - 1))
                same = torch.Generator().manual_seed(seed + 1)
                estimates = value(sampler, Scorer(reward), many, t, mc, generator=same)
                found[sampler_name] = estimates.reshape(REPEATS, -1) - truth
            found["reference"] = error[None]
            for key, gaps in found.items():
                table[name].setdefault(key, []).append(float(gaps.double().square().mean().sqrt()))
    return table
