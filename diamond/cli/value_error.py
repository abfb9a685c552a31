r"""How far value estimates are from the truth.

At noisy data :math:`x_t`, the value :math:`V_t = \log E[\exp r(z) \mid x_t]` is estimated from 16 posterior draws of
each sampler, and by the reward at the posterior mean (the plug-in), several times; the reference is the GLASS flow with
many inner steps and many draws. The reward is standardised over the data, and scaled to a given standard deviation.

An estimate from :math:`K` exact draws is too small by about :math:`\operatorname{Var}(e^r) / 2 K E[e^r]^2`, so the bias
of a good sampler is not zero, but that of the GLASS flow with many steps.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.evaluation import Reference, draw_in_tiles
from diamond.glass import GlassFlow
from diamond.model import Model, PosteriorSampler

__all__ = ["reference_values", "standardised", "value_errors"]

REPEATS = 8

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
def reference_values(rewards: Sequence[Reward], draws: Tensor) -> tuple[Tensor, Tensor]:
    """The values `(R, B)` of R rewards, all from the same posterior draws `(n, B, *event)`, and their standard
    errors."""
    r = _scores(rewards, draws)
    values = r.logsumexp(1) - math.log(len(draws))
    return values, (r - values[:, None]).exp().std(1) / len(draws) ** 0.5


@torch.no_grad()
def value_errors(
    model: PosteriorSampler,
    teacher: Model,
    rewards: dict[str, Reward],
    references: Iterable[Reference],
    *,
    mc: int = 16,
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32),
    seed: int = 0,
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Errors over states and repeats, one for each of the references.

    Arguments:
        model: the map.
        teacher: the flow that it was distilled from.
        rewards: by name.
        references: states, and the posterior draws taken for the truth.
        mc: posterior draws an estimate; the map and the GLASS flows start from the same noises.
        steps: inner steps of the GLASS flows to compare.
        seed: of the noises.

    Returns:
        "rmse", the root mean square errors, and "bias", the mean ones; by reward, then by estimator: "map", "GLASS-1",
        ..., "plug-in", and "reference", whose own standard error the RMSE is.
    """
    samplers: dict[str, Any] = {"map": model, **{f"GLASS-{k}": GlassFlow(teacher, k) for k in steps}}
    table: dict[str, dict[str, dict[str, list[float]]]] = {
        figure: {name: {} for name in rewards} for figure in ("rmse", "bias")
    }
    for reference in references:
        x_t, t = reference.x_t, reference.t
        truths, errors = reference_values(list(rewards.values()), reference.draws)
        mean = teacher.denoise(x_t, t)
        found = {"plug-in": torch.stack([reward(mean) for reward in rewards.values()])[:, None] - truths[:, None]}
        for name, sampler in samplers.items():
            same = torch.Generator().manual_seed(seed)
            drawn = draw_in_tiles(sampler, x_t, t, REPEATS * mc, generator=same)
            scores = _scores(list(rewards.values()), drawn).unflatten(1, (REPEATS, mc))
            found[name] = scores.logsumexp(2) - math.log(mc) - truths[:, None]  # (R, REPEATS, B)
        found["reference"] = errors[:, None]
        for key, gaps in found.items():
            for reward_name, of_reward in zip(rewards, gaps.double(), strict=True):
                table["rmse"][reward_name].setdefault(key, []).append(float(of_reward.square().mean().sqrt()))
                if key != "reference":
                    table["bias"][reward_name].setdefault(key, []).append(float(of_reward.mean()))
    return table


def _scores(rewards: Sequence[Reward], draws: Tensor) -> Tensor:
    """R rewards of draws `(n, B, *event)`: `(R, n, B)`, in float64."""
    flat = draws.flatten(0, 1)
    return torch.stack([reward(flat).reshape(draws.shape[:2]) for reward in rewards]).double()
