"""Populations as rows of one batch.

`batch` independent populations of `size` members are `batch * size` rows, population-major. Their states go through
the model together, in chunks where asked, with noise that depends neither on the chunks nor, where each population has
its own generator, on the other populations.
"""

from __future__ import annotations

import time

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from torch import Tensor
from tqdm.auto import tqdm

from diamond.model import PosteriorSampler, map_cond, repeat_cond, slice_cond
from diamond.randomness import Generator, SlicedNoise, fresh_generator
from diamond.validation import check_positive

__all__ = ["Population", "posterior_blocks", "row_slices", "time_grid"]

TILE = 16  # Monte Carlo draws whose noise is held at once: memory does not grow with their number


def row_slices(rows: int, chunk: int | None) -> Iterator[slice]:
    """Slices of at most `chunk` rows that cover `rows` of them."""
    step = chunk or max(rows, 1)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def posterior_blocks(
    model: PosteriorSampler, x_t: Tensor, t: Tensor, mc: int, cond: Any, generator: Generator, chunk: int | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yields `(rows, x, z)` with posterior draws `z` `(n, b, *event)` of the rows `x` of `x_t`, `n * b <= chunk`, until
    each of the `(B, *event)` rows has had `mc` draws. The noise is the same for every `chunk`. Where gradients are
    enabled, `x` is a leaf of its own."""
    rows = len(x_t)
    at_once = rows if chunk is None else min(chunk, rows)
    for first in range(0, mc, TILE):
        tile = min(TILE, mc - first)
        if chunk is None:
            x = x_t.detach().requires_grad_(torch.is_grad_enabled())
            yield slice(0, rows), x, model.posterior(x, t, tile, cond=cond, generator=generator)
            continue
        source = SlicedNoise(generator, rows, tile)  # type: ignore[arg-type]
        step = max(1, chunk // rows)
        for part in row_slices(rows, at_once):
            for draws in row_slices(tile, step):
                noise = source.part(part, draws)
                n = draws.stop - draws.start
                x = x_t[part].detach().requires_grad_(torch.is_grad_enabled())
                yield part, x, model.posterior(x, t[part], n, cond=slice_cond(cond, part), generator=noise)


class Population:
    """What every algorithm asks of a model, for all populations at once, with the cost counted.

    Arguments:
        model: any posterior sampler.
        size: members of each population.
        batch: independent populations.
        cond: conditioning with leading dimension `batch`; each member gets its population's.
        generator: one, one a population, or None.
        chunk: samples per network call.

    Raises:
        ValueError: a model without a posterior, or counts or generators that do not fit.
    """

    def __init__(
        self,
        model: PosteriorSampler,
        size: int,
        batch: int,
        cond: Any = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        chunk: int | None = None,
    ) -> None:
        if not isinstance(model, PosteriorSampler):
            raise ValueError(
                f"model: got {type(model).__name__}, expected a posterior sampler; wrap a flow as diamond.GlassFlow(flow)"
            )
        self.model, self.chunk = model, None if chunk is None else check_positive("chunk", chunk)
        self.batch, self.size = check_positive("batch", batch), size
        if isinstance(generator, Sequence) and len(generator) != batch:
            raise ValueError(
                f"generator: got {len(generator)} generators, expected one, or one for each of {batch} populations"
            )
        self.generator = fresh_generator() if generator is None else generator
        _check_cond(cond, batch)
        self.cond = repeat_cond(cond, size, interleave=True)
        self._spent = getattr(model, "nfe", None)
        self._began = time.perf_counter()

    @property
    def shape(self) -> tuple[int, int]:
        """`(batch, size)`."""
        return self.batch, self.size

    def prior(self) -> Tensor:
        """The states at t = 0, `(batch * size, *event)`."""
        return self.model.prior(self.batch * self.size, generator=self.generator)

    def transition(self, x: Tensor, t: float, t_next: float, rho: float | None = None, branch: int = 1) -> Tensor:
        """A transition of each row, `branch` times if asked: `(batch * size * branch, *event)`, row-major."""
        x, cond = x.repeat_interleave(branch, dim=0), repeat_cond(self.cond, branch, interleave=True)
        if self.chunk is None:
            return self.model.transition(x, t, t_next, rho=rho, cond=cond, generator=self.generator)
        source = SlicedNoise(self.generator, len(x))
        parts = [
            self.model.transition(x[rows], t, t_next, rho=rho, cond=slice_cond(cond, rows), generator=source.part(rows))
            for rows in row_slices(len(x), self.chunk)
        ]
        return torch.cat(parts)

    def denoise(self, x: Tensor, t: float) -> Tensor:
        """The posterior mean at each row, `(batch * size, *event)`."""
        parts = [
            self.model.denoise(x[rows], t, cond=slice_cond(self.cond, rows)) for rows in row_slices(len(x), self.chunk)
        ]
        return torch.cat(parts)

    def steps(self, times: Tensor, progress: bool, description: str) -> Iterator[tuple[int, float, float]]:
        """The steps `(k, times[k], times[k + 1])` of a grid, behind a bar if asked."""
        pairs = zip(times[:-1].tolist(), times[1:].tolist(), strict=True)
        bar = tqdm(list(pairs), desc=description, unit="step", disable=not progress, dynamic_ncols=True)
        return ((k, t, t_next) for k, (t, t_next) in enumerate(bar))

    def cost(self) -> dict[str, Any]:
        """Network evaluations per population since this was made, and seconds."""
        spent = None if self._spent is None else (self.model.nfe - self._spent) // self.batch  # type: ignore[attr-defined]
        return {"nfe": spent, "seconds": time.perf_counter() - self._began}


def time_grid(steps: int, times: Tensor | Sequence[float] | None) -> Tensor:
    """The grid that an algorithm walks, `(steps + 1,)` float64: uniform, or as given.

    Raises:
        ValueError: no steps, or times that do not rise from 0 to 1.
    """
    if times is None:
        return torch.linspace(0, 1, check_positive("steps", steps) + 1, dtype=torch.float64)
    grid = torch.as_tensor(times, dtype=torch.float64)
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or not bool((grid.diff() > 0).all()):
        raise ValueError(f"times: got {grid.tolist()}, expected times that rise from 0 to 1")
    return grid


def _check_cond(cond: Any, batch: int) -> None:
    def check(tensor: Tensor) -> Tensor:
        if tensor.ndim < 1 or len(tensor) != batch:
            raise ValueError(f"cond: got shape {tuple(tensor.shape)}, expected leading dimension batch={batch}")
        return tensor

    map_cond(check, cond)
