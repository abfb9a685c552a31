"""Which factor to noise with further: the one whose weights leave the most draws effective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch import Tensor

from .degeneracy import effective_size
from .randomness import Generator, normal
from .validation import as_times, check_positive, check_state
from .weighted_map import WeightedDiamondMap

__all__ = ["choose_snr"]


@torch.no_grad()
def choose_snr(
    flow_map: Any,
    x_t: Tensor,
    t: Tensor | float,
    candidates: Sequence[float] = (2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0),
    n: int = 64,
    *,
    quadrature: int = 3,
    cond: Any = None,
    generator: Generator = None,
) -> float:
    """The candidate whose weights have the largest median effective sample size on the states `x_t` `(B, *event)` at
    times `t`, for `n` draws a state and the same noise for all. Costs what these draws cost, for each candidate.

    A sample does not see that a variance is infinite, so candidates of 1.5 and less look better than they are.

    Raises:
        ValueError: no candidates, or an argument that does not fit.
    """
    if not len(candidates):
        raise ValueError("candidates: got none, expected factors above 1")
    models = [WeightedDiamondMap(flow_map, snr, quadrature=quadrature) for snr in candidates]
    check_state(x_t, flow_map.event_shape)
    t, shape = as_times(t, x_t), (check_positive("n", n, 2), *x_t.shape)
    noise = normal(shape, generator, batch_axis=1, device=x_t.device, dtype=x_t.dtype)
    sizes = [effective_size(model.weigh(x_t, t, noise, cond=cond)[1]).median() for model in models]
    return float(candidates[int(torch.stack(sizes).argmax())])
