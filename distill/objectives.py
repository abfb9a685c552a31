r"""What one training step looks at: times and noises drawn, and the residuals of :mod:`distill.losses` there.

An objective is called as `objective(model, z, cond, generator)` and gives its terms by name, scalars to be added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torch import Tensor

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.model import Model
from diamond.randomness import normal

from .losses import diagonal, flow_matching, lagrangian
from .problems import FlowProblem, PosteriorProblem
from .times import LATEST, inner_pairs, uniform_times

__all__ = ["FlowObjective", "MapObjective"]


class FlowObjective:
    """Flow matching at uniform times."""

    def __call__(self, flow: Flow, z: Tensor, cond: Any, generator: torch.Generator) -> dict[str, Tensor]:
        t = uniform_times(len(z), generator, z.device)
        return {"flow_matching": flow_matching(flow, z, noise_like(z, generator), t, cond).mean()}


@dataclass(frozen=True)
class MapObjective:
    """The diagonal, and the Lagrangian identity off it, of a Diamond Map or a flow map.

    Attributes:
        teacher: the frozen model.
        off_diagonal: share of the batch for the Lagrangian identity.
        from_zero: share of that which starts at s = 0.
    """

    teacher: Model
    off_diagonal: float
    from_zero: float

    def __post_init__(self) -> None:
        for name in ("off_diagonal", "from_zero"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: got {share}, expected a share in [0, 1]")

    def __call__(
        self, model: DiamondMap | FlowMap, z: Tensor, cond: Any, generator: torch.Generator
    ) -> dict[str, Tensor]:
        n, off = len(z), round(len(z) * self.off_diagonal)
        problem = self._problem(model, z, cond, generator)
        pairs, single = slice(0, off), slice(off, n)
        s, r = inner_pairs(off, self.from_zero, generator, z.device)
        s = torch.cat([s, uniform_times(n - off, generator, z.device, LATEST)])
        x = problem.start(z, noise_like(z, generator), s)
        terms = {}
        if off:
            part = problem.rows(pairs)
            residuals = lagrangian(part.displace, part.teacher, part.weight, x[pairs], s[pairs], r)
            terms["lagrangian"] = residuals.sum() / n
        if off < n:
            part = problem.rows(single)
            terms["diagonal"] = diagonal(part.slope, part.teacher, part.weight, x[single], s[single]).sum() / n
        return terms

    def _problem(
        self, model: DiamondMap | FlowMap, z: Tensor, cond: Any, generator: torch.Generator
    ) -> PosteriorProblem | FlowProblem:
        if isinstance(model, FlowMap):
            return FlowProblem(model, self.teacher, cond)
        t = uniform_times(len(z), generator, z.device)
        x_t = model.interpolant.interpolate(z, noise_like(z, generator), t)
        return PosteriorProblem(model, self.teacher, x_t, t, cond)


def noise_like(z: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, type and device of `z`."""
    return normal(z.shape, generator, device=z.device, dtype=z.dtype)
