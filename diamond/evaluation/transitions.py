r"""Transitions: does a chain of them reproduce the marginals?

A chain starts from noise and makes transitions :math:`t_0 = 0 < t_1 < \dots < t_K = 1`; an exact one has
:math:`x_{t_k}` of the law of noised data :math:`\alpha z + \sigma \epsilon` at every k. The energy distance between the
two is measured in the events' own coordinates, for several chains beside each other, whose spread is its error.
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

from ..randomness import Generator, normal
from ..validation import check_positive
from .energy import energy_distance

__all__ = ["chain_states", "marginal_distances"]


@torch.no_grad()
def chain_states(model: Any, n: int, steps: int = 8, *, cond: Any = None, generator: Generator = None) -> list[Tensor]:
    """The states `(n, *event)` of `n` chains at times `1 / steps, ..., 1`: DDPM transitions, by early stopping for a
    Diamond Map."""
    states = [model.prior(check_positive("n", n), generator=generator)]
    for i in range(check_positive("steps", steps)):
        step = model.transition(states[-1], i / steps, (i + 1) / steps, cond=cond, generator=generator)
        states.append(step)
    return states[1:]


@torch.no_grad()
def marginal_distances(
    interpolant: Any, states: list[Tensor], z: Tensor, sets: int = 4, *, generator: Generator = None
) -> Tensor:
    """Energy distances `(K, sets)` of K states of chains to data noised to the same times, each for `sets` parts.

    Arguments:
        interpolant: the path.
        states: `(n, *event)` at times `1 / K, ..., 1`; samples at t = 1 alone are one state.
        z: as many data, in any order, `(n, *event)`, independent of the states.
        sets: parts of equal size that the chains are cut into.
        generator: of the data's noise.

    Raises:
        ValueError: shapes that do not fit, or fewer than two chains in a part.
    """
    size = len(z) // check_positive("sets", sets)
    for state in states:
        if state.shape != z.shape:
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected that of the states, {tuple(state.shape)}")
    found = []
    for i, state in enumerate(states):
        noise = normal(z.shape, generator, device=z.device, dtype=z.dtype)
        t = torch.full((len(z),), (i + 1) / len(states), device=z.device, dtype=z.dtype)
        noised = interpolant.interpolate(z, noise, t)
        mine, theirs = (part[: size * sets].unflatten(0, (sets, size)).transpose(0, 1) for part in (state, noised))
        found.append(energy_distance(mine, theirs))
    return torch.stack(found)
