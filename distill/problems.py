r"""Two families of flow maps, seen alike by the losses.

A problem binds a student map, and a frozen teacher where there is one, to one batch, and offers: `start`, states at
time `s`, and `conditional`, their velocity given the data and the noise that they are made of; `displace`, the student's
:math:`X_{s,r}`; `slope`, its own velocity on the diagonal; `mean_velocity`, for maps of this package's own form, which
gives both in one call; `velocity`, the one that the slope should be, which is the teacher's, or without a teacher its own
as it stands (self-distillation); `weight`, the inverse of the scale of an error in that velocity; and `times`, the place of
a residual.

**Mean velocities** :math:`U_{s,r}(x) = (X_{s,r}(x) - x) / (r - s)` need no quotient of two small numbers. A Diamond Map goes
the share :math:`(r - s) / (1 - s)` of the way to its endpoint :math:`Z`, hence :math:`U = (Z - x) / (1 - s)`; a flow map on
the linear path does the same with :math:`Z = x + (1 - s) F`, hence :math:`U = F`, the network's output. Either holds for
every :math:`r \ge s`, and is the slope at :math:`r = s`.

References:
    | How to build a consistency model (Boffi et al., 2025), https://arxiv.org/abs/2505.18825 (self-distillation)
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

    source: Model | None
    student: DiamondMap
    x_t: Tensor
    t: Tensor
    cond: Any = None

    def rows(self, rows: slice) -> PosteriorProblem:
        """The problem of some rows of the batch."""
        return replace(self, x_t=self.x_t[rows], t=self.t[rows], cond=slice_cond(self.cond, rows))

    def start(self, z: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        return Linear().interpolate(z, noise, s)

    def conditional(self, z: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        return z - noise

    def displace(self, x: Tensor, s: Tensor, r: Tensor) -> Tensor:
        return self.student.displace(x, s, r, self.x_t, self.t, cond=self.cond)

    def slope(self, x: Tensor, s: Tensor) -> Tensor:
        return self.student.inner_velocity(x, s, self.x_t, self.t, cond=self.cond)

    @property
    def tells_mean_velocity(self) -> bool:
        return type(self.student) is DiamondMap  # others may displace in another way

    def mean_velocity(self, x: Tensor, s: Tensor, r: Tensor) -> Tensor:
        return self.student.mean_velocity(x, s, r, self.x_t, self.t, cond=self.cond)

    @torch.no_grad()
    def velocity(self, x: Tensor, s: Tensor) -> Tensor:
        if self.source is None:
            return self.slope(x, s)
        return glass_velocity(self.source.denoise, self.source.interpolant, x, s, self.x_t, self.t, cond=self.cond)

    def weight(self, s: Tensor) -> Tensor:
        path = self.student.interpolant
        looks = combine_looks(path, (path.alpha(self.t), path.sigma(self.t)), (s, 1 - s))
        return ((1 - s) / path.sigma(looks.time).clamp_min(1e-4)).to(s.dtype)

    def times(self, s: Tensor, r: Tensor) -> Tensor:
        return torch.stack([s, r, self.t], dim=-1)


@dataclass(frozen=True)
class FlowProblem:
    """The probability-flow ODE itself, and the flow map that should follow it."""

    source: Model | None
    student: FlowMap
    cond: Any = None

    def rows(self, rows: slice) -> FlowProblem:
        """The problem of some rows of the batch."""
        return replace(self, cond=slice_cond(self.cond, rows))

    def start(self, z: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        return self.student.interpolant.interpolate(z, noise, s)

    def conditional(self, z: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        path = self.student.interpolant
        return per_sample(path.alpha_dot(s), z) * z + per_sample(path.sigma_dot(s), z) * noise

    def displace(self, x: Tensor, s: Tensor, r: Tensor) -> Tensor:
        return self.student.displace(x, s, r, cond=self.cond)

    def slope(self, x: Tensor, s: Tensor) -> Tensor:
        return self.student.velocity(x, s, cond=self.cond)

    @property
    def tells_mean_velocity(self) -> bool:
        return type(self.student) is FlowMap and type(self.student.interpolant) is Linear

    def mean_velocity(self, x: Tensor, s: Tensor, r: Tensor) -> Tensor:
        self.student.nfe += len(x) * getattr(self.student.net, "evaluations", 1)
        return self.student.net(x, s, self.cond, times=(r,))

    @torch.no_grad()
    def velocity(self, x: Tensor, s: Tensor) -> Tensor:
        if self.source is None:
            return self.slope(x, s)
        return self.source.velocity(x, s, cond=self.cond)

    def weight(self, s: Tensor) -> Tensor:
        return torch.ones_like(s)

    def times(self, s: Tensor, r: Tensor) -> Tensor:
        return torch.stack([s, r, torch.zeros_like(s)], dim=-1)


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
        slope = problem.velocity(x, s)
        if k + 2 < grid.shape[1]:
            slope = (slope + problem.velocity(x + step * slope, r)) / 2
        x = x + step * slope
        states.append(x)
    return torch.stack(states)
