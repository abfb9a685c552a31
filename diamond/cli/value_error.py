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

from align import value
from align.scoring import Scorer
from diamond.evaluation import Reference
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
    scores = torch.stack([reward(draws.flatten(0, 1)).reshape(draws.shape[:2]) for reward in rewards])
    r = scores.double()  # (R, n, B)
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
        for (name, reward), truth, error in zip(rewards.items(), truths, errors, strict=True):
            found = {"plug-in": reward(teacher.denoise(x_t, t))[None] - truth}
            for sampler_name, sampler in samplers.items():
                many = x_t.repeat(REPEATS, *[1] * (x_t.ndim - 1))
                same = torch.Generator().manual_seed(seed)
                estimates = value(sampler, Scorer(reward), many, t, mc, generator=same)
                found[sampler_name] = estimates.reshape(REPEATS, -1) - truth
            found["reference"] = error[None]
            for key, gaps in found.items():
                table["rmse"][name].setdefault(key, []).append(float(gaps.double().square().mean().sqrt()))
                if key != "reference":
                    table["bias"][name].setdefault(key, []).append(float(gaps.double().mean()))
    return table
