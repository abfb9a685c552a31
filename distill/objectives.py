r"""What one training step looks at: times and noises drawn, and the residuals of :mod:`distill.losses` there.

An objective first prepares a batch, with the teacher's help and without the student's weights, and then gives its terms
by name, scalars to be added, for as many steps as it says a preparation is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from torch import Tensor

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.model import Model
from diamond.randomness import normal, uniform
from diamond.validation import check_choice

from .losses import diagonal, endpoint, flow_matching, lagrangian
from .problems import FlowProblem, PosteriorProblem, Problem, trajectory
from .times import LATEST, inner_grid, inner_pairs, uniform_times

__all__ = ["FlowObjective", "MapObjective", "Objective"]


class Objective(Protocol):
    """What the trainer minimises."""

    @property
    def reuse(self) -> int:
        """For how many steps one preparation serves."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must have in common with one that it resumes, as JSON values."""

    def prepare(self, model: Any, z: Tensor, cond: Any, generator: torch.Generator) -> Any:
        """Whatever of a step does not depend on the student's weights."""

    def __call__(self, model: Any, prepared: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the loss by name."""


@dataclass(frozen=True)
class FlowObjective:
    """Flow matching at uniform times."""

    reuse: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        return {"loss": "flow matching"}

    def prepare(self, model: Flow, z: Tensor, cond: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        return z, cond

    def __call__(self, model: Flow, prepared: tuple[Tensor, Any], generator: torch.Generator) -> dict[str, Tensor]:
        z, cond = prepared
        t = uniform_times(len(z), generator, z.device)
        return {"flow_matching": flow_matching(model, z, noise_like(z, generator), t, cond).mean()}


class Prepared(NamedTuple):
    """A batch `z` with its problem; and, where wanted, the teacher's trajectories `(K + 1, B, *event)` on `(B, K + 1)`."""

    problem: Problem
    z: Tensor
    grid: Tensor | None = None
    states: Tensor | None = None


@dataclass(frozen=True)
class MapObjective:
    """The diagonal of a Diamond Map or a flow map, and what holds off it.

    Attributes:
        teacher: the frozen model.
        loss: "lsd", the Lagrangian identity; or "trajectory", a regression on the teacher's ODE, integrated once for
            `reuse` steps of the student.
        off_diagonal: share of the batch that goes off the diagonal: by default half, or nine tenths for trajectories,
            which hold short steps as well.
        from_zero: share of that which starts at s = 0.
        points: steps of the teacher's ODE.
    """

    teacher: Model
    loss: str = "lsd"
    off_diagonal: float | None = None
    from_zero: float = 0.8
    points: int = 8
    reuse: int = field(init=False, default=1)

    LOSSES = ("lsd", "trajectory")

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, self.LOSSES)
        if self.off_diagonal is None:
            object.__setattr__(self, "off_diagonal", {"lsd": 0.5, "trajectory": 0.9}[self.loss])
        for name in ("off_diagonal", "from_zero"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: got {share}, expected a share in [0, 1]")
        object.__setattr__(self, "reuse", 8 if self.loss == "trajectory" else 1)

    @property
    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("loss", "off_diagonal", "from_zero", "points")}

    def prepare(self, model: DiamondMap | FlowMap, z: Tensor, cond: Any, generator: torch.Generator) -> Prepared:
        problem = self._problem(model, z, cond, generator)
        if self.loss == "lsd":
            return Prepared(problem, z)
        rows = slice(0, self._split(z))
        grid = inner_grid(rows.stop, self.points, generator, z.device)
        return Prepared(problem, z, grid, trajectory(problem.rows(rows), noise_like(z[rows], generator), grid))

    def __call__(
        self, model: DiamondMap | FlowMap, prepared: Prepared, generator: torch.Generator
    ) -> dict[str, Tensor]:
        z, n, off = prepared.z, len(prepared.z), self._split(prepared.z)
        terms = {}
        if off:
            part = prepared.problem.rows(slice(0, off))
            residuals = self._along(part, prepared, generator) if prepared.states is not None else None
            if residuals is None:
                residuals = self._lagrangian(part, z[:off], generator)
            terms[self.loss] = residuals.sum() / n
        if off < n:
            part = prepared.problem.rows(slice(off, n))
            s = uniform_times(n - off, generator, z.device, LATEST)
            x = part.start(z[off:], noise_like(z[off:], generator), s)
            terms["diagonal"] = diagonal(part.slope, part.teacher, part.weight, x, s).sum() / n
        return terms

    def _split(self, z: Tensor) -> int:
        return round(len(z) * (self.off_diagonal or 0.0))

    def _problem(
        self, model: DiamondMap | FlowMap, z: Tensor, cond: Any, generator: torch.Generator
    ) -> PosteriorProblem | FlowProblem:
        if isinstance(model, FlowMap):
            return FlowProblem(self.teacher, model, cond)
        t = uniform_times(len(z), generator, z.device)
        x_t = model.interpolant.interpolate(z, noise_like(z, generator), t)
        return PosteriorProblem(self.teacher, model, x_t, t, cond)

    def _lagrangian(self, part: Problem, z: Tensor, generator: torch.Generator) -> Tensor:
        s, r = inner_pairs(len(z), self.from_zero, generator, z.device)
        x = part.start(z, noise_like(z, generator), s)
        return lagrangian(part.displace, part.teacher, part.weight, x, s, r)

    def _along(self, part: Problem, prepared: Prepared, generator: torch.Generator) -> Tensor:
        """Pairs of points on each row's trajectory: from any to any later one, or from the first, or the first and last."""
        assert prepared.states is not None and prepared.grid is not None
        states, grid = prepared.states, prepared.grid
        n, last = len(grid), grid.shape[1] - 1
        row = torch.arange(n, device=grid.device)
        draws = uniform((3, n), generator, device=grid.device, batch_axis=1)
        one, other = (draws[:2] * last).long()
        i, j = torch.minimum(one, other), torch.maximum(one, other) + 1
        i = torch.where(draws[2] < self.from_zero, 0, i)
        j = torch.where(draws[2] < self.from_zero / 2, last, j)
        return endpoint(part.displace, part.weight, states[i, row], grid[row, i], grid[row, j], states[j, row])


def noise_like(z: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, type and device of `z`."""
    return normal(z.shape, generator, device=z.device, dtype=z.dtype)
