r"""What a network is trained to satisfy.

A flow map :math:`X_{s,r}` of the ODE :math:`\dot x = u_r(x)` is the only family of maps with :math:`X_{s,s}(x) = x`
that obeys the *Lagrangian* identity

.. math:: \partial_r X_{s,r}(x) = u_r(X_{s,r}(x)),

and the *tangent* of the family on its diagonal is :math:`\partial_r X_{s,r}|_{r=s} = u_s`. Each loss here is the mean
square of one identity's residual, given as callables, so that the same lines distil the deterministic flow map and
the Diamond Map. Where a teacher gives :math:`u`, it is not differentiated, and neither is the point that it is asked
at: both sides keep their zero, and the gradient is that of a regression.

Where the teacher's ODE has been integrated, its trajectory is the map: a plain regression of :math:`X_{s,r}(x_s)` on
:math:`x_r` needs no derivative of the student.

References:
    | Flow Matching (Lipman et al., 2022), https://arxiv.org/abs/2210.02747
    | Flow Map Matching (Boffi et al., 2024), https://arxiv.org/abs/2406.07507 (Lagrangian distillation)
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993 (GLASS teacher)
    | Knowledge Distillation in Iterative Generative Models (Luhman & Luhman, 2021), https://arxiv.org/abs/2101.02388
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch import Tensor

from diamond.flow import Flow
from diamond.interpolant import per_sample

__all__ = ["diagonal", "endpoint", "flow_matching", "lagrangian"]

Displace = Callable[[Tensor, Tensor, Tensor], Tensor]  # X_{s,r}(x): (x, s, r) -> (B, *event)
Velocity = Callable[[Tensor, Tensor], Tensor]  # u_s(x): (x, s) -> (B, *event)


def mean_square(residual: Tensor) -> Tensor:
    """The mean over each event's entries, `(B,)`."""
    return residual.square().flatten(1).mean(1)


def flow_matching(flow: Flow, z: Tensor, noise: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
    """`|F(x_t, t) - target|^2` `(B,)` for data `z` and `noise` `(B, *event)` at times `t` `(B,)`; the target, given z
    and noise, is the derivative of the path, the data or the noise, as `flow.prediction` says. Its minimiser is the
    target's mean given `x_t`."""
    path = flow.interpolant
    x_t = path.interpolate(z, noise, t)
    target = {
        "velocity": lambda: per_sample(path.alpha_dot(t), z) * z + per_sample(path.sigma_dot(t), z) * noise,
        "denoiser": lambda: z,
        "noise": lambda: noise,
    }[flow.prediction]()
    output = flow.net(x_t, t) if cond is None else flow.net(x_t, t, cond)
    return mean_square(output - target)


def diagonal(slope: Velocity, teacher: Velocity, weight: Callable[[Tensor], Tensor], x: Tensor, s: Tensor) -> Tensor:
    """`|w(s) (d/dr X_{s,r}(x)|_{r=s} - u_s(x))|^2` `(B,)`: the map's own velocity `slope` against the teacher's."""
    with torch.no_grad():
        target = teacher(x, s)
    return mean_square(per_sample(weight(s), x) * (slope(x, s) - target))


def lagrangian(
    displace: Displace, teacher: Velocity, weight: Callable[[Tensor], Tensor], x: Tensor, s: Tensor, r: Tensor
) -> Tensor:
    """`|w(r) (d/dr X_{s,r}(x) - u_r(X_{s,r}(x)))|^2` `(B,)`, the derivative by forward-mode differentiation (LSD)."""
    moved, slope = torch.func.jvp(lambda r: displace(x, s, r), (r,), (torch.ones_like(r),))  # type: ignore[misc]
    with torch.no_grad():
        target = teacher(moved.detach(), r)
    return mean_square(per_sample(weight(r), x) * (slope - target))


def endpoint(
    displace: Displace, weight: Callable[[Tensor], Tensor], x: Tensor, s: Tensor, r: Tensor, target: Tensor
) -> Tensor:
    """`|w(s) (X_{s,r}(x) - target) / (r - s)|^2` `(B,)`, for states and targets on one trajectory at `s < r`: the error
    of the mean velocity between them."""
    return mean_square(per_sample(weight(s) / (r - s), x) * (displace(x, s, r) - target))
