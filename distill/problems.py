r"""Two families of flow maps, seen alike by the losses.

A problem binds a student map and its frozen teacher to one batch, and offers: `start`, states at time `s`; `displace`,
the student's :math:`X_{s,r}`; `slope`, its own velocity on the diagonal; `teacher`, the velocity it should have;
and `weight`, the inverse of the scale of an error in that velocity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from torch import Tensor

from diamond.diamond_map import DiamondMap
from diamond.flow_map import FlowMap
from diamond.glass import glass_velocity
from diamond.interpolant import Linear, per_sample
from diamond.model import Model, slice_cond
from diamond.observation import combine_looks

__all__ = ["FlowProblem", "PosteriorProblem", "Problem", "trajectory"]


@dataclass(frozen=True)
class PosteriorProblem:
    """The GLASS posterior flow of `x_t` `(B, *event)` at times `t` `(B,)`, and the Diamond Map that should follow it.

    The inner velocity is `(z - x_bar) / (1 - s)` with an endpoint known up to the noise `sigma(t*)` that is left in both
    looks together. The weight `(1 - s) / sigma(t*)` measures its errors in that unit.
    """

    source: Model
    student: DiamondMap
    x_t: Tensor
    t: Tensor
    cond: Any = None

    def rows(self, rows: slice) -> PosteriorProblem:
        """The problem of some rows of the batch."""
        return replace(self, x_t=self.x_t[rows], t=self.t[rows], cond=slice_cond(self.cond, rows))

    def start(self, z: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        return Linear().interpolate(z, noise, s)

    def displace(self, x: Tensor, s: Tensor, r: Tensor) -> Tensor:
        return self.student.displace(x, s, r, self.x_t, self.t, cond=self.cond)

    def slope(self, x: Tensor, s: Tensor) -> Tensor:
        return self.student.inner_velocity(x, s, self.x_t, self.t, cond=self.cond)

    @torch.no_grad()
    def teacher(self, x: Tensor, s: Tensor) -> Tensor:
        return glass_velocity(self.source.denoise, self.source.interpolant, x, s, self.x_t, self.t, cond=self.cond)

    def weight(self, s: Tensor) -> Tensor:
        path = self.source.interpolant
        looks = combine_looks(path, (path.alpha(self.t), path.sigma(self.t)), (s, 1 - s))
        return ((1 - s) / path.sigma(looks.time).clamp_min(1e-4)).to(s.dtype)


@dataclass(frozen=True)
class FlowProblem:
    """The probability-flow ODE itself, and the flow map that should follow it."""

    source: Model
    student: FlowMap
    cond: Any = None

    def rows(self, rows: slice) -> FlowProblem:
        """The problem of some rows of the batch."""
        return replace(self, cond=slice_cond(self.cond, rows))

    def start(self, z: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        return self.source.interpolant.interpolate(z, noise, s)

    def displace(self, x: Tensor, s: Tensor, r: Tensor) -> Tensor:
        return self.student.displace(x, s, r, cond=self.cond)

    def slope(self, x: Tensor, s: Tensor) -> Tensor:
        return self.student.velocity(x, s, cond=self.cond)

    @torch.no_grad()
    def teacher(self, x: Tensor, s: Tensor) -> Tensor:
        return self.source.velocity(x, s, cond=self.cond)

    def weight(self, s: Tensor) -> Tensor:
        return torch.ones_like(s)


Problem = PosteriorProblem | FlowProblem


@torch.no_grad()
def trajectory(problem: Problem, x: Tensor, grid: Tensor) -> Tensor:
    """The teacher's flow from states `x` `(B, *event)` along each row's own times `grid` `(B, K + 1)`, from 0 to 1:
    `(K + 1, B, *event)`. Heun's method, and Euler's for the last step, whose end the velocity does not reach; two
    evaluations a step."""
    states = [x]
    for k in range(grid.shape[1] - 1):
        s, r = grid[:, k], grid[:, k + 1]
        step = per_sample(r - s, x)
        slope = problem.teacher(x, s)
        if k + 2 < grid.shape[1]:
            slope = (slope + problem.teacher(x + step * slope, r)) / 2
        x = x + step * slope
        states.append(x)
    return torch.stack(states)
