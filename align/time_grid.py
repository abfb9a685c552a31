"""The times at which algorithms stop on the way from noise to data."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torch import Tensor

from diamond.validation import check_positive

__all__ = ["USUAL_STEPS", "time_grid"]

USUAL_STEPS = {"best_of_n": 1, "search": 8, "smc": 8, "guide": 16}  # from noise to data


def time_grid(steps: int | None, times: Tensor | Sequence[float] | None, usual: int) -> Tensor:
    """The grid that an algorithm walks, `(steps + 1,)` float64: as given, or uniform, in its `usual` number of steps if
    none is.

    Raises:
        ValueError: no steps, times that do not rise from 0 to 1, or steps and times that contradict each other.
    """
    if steps is not None:
        check_positive("steps", steps)
    if times is None:
        return torch.linspace(0, 1, (usual if steps is None else steps) + 1, dtype=torch.float64)
    try:
        grid = torch.as_tensor(times, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"times: got {times!r}, expected times that rise from 0 to 1") from error
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or not bool((grid.diff() > 0).all()):
        raise ValueError(f"times: got {grid.tolist()}, expected times that rise from 0 to 1")
    count = len(grid) - 1
    if steps is not None and steps != count:
        raise ValueError(f"steps: got {steps} beside times of {count} steps, expected {count}; leave one out")
    return grid
