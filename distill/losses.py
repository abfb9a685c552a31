r"""What a network is trained to satisfy.

The flow maps :math:`X_{s,r}` of the ODE :math:`\dot x = u_r(x)` are the only family of maps with :math:`X_{s,s}(x) = x`
that obeys any one of

.. math::
    \partial_r X_{s,r}(x) &= u_r(X_{s,r}(x))                            &&\text{Lagrangian: where the path ends} \\
    \partial_s X_{s,r}(x) + J_x X_{s,r}(x) \, u_s(x) &= 0               &&\text{Eulerian: where it starts} \\
    X_{s,r} = X_{m,r} \circ X_{s,m}, \quad \partial_r X_{s,r}|_{r=s} &= u_s &&\text{semigroup and tangent}

and the *tangent* on its diagonal :math:`s = r` is all that data or a teacher need to say: the rest is consistency. Each
loss here is the mean square of one identity's residual, given as callables, so that the same lines distil the
deterministic flow map and the Diamond Map.

**Gradients.** A velocity :math:`u` is never differentiated, whether a teacher gives it or the map's own diagonal does,
and neither is the point that it is asked at. The Lagrangian and the Eulerian loss differentiate the student's whole
derivative; the progressive and the MeanFlow loss regress the map on what it says itself elsewhere, held fixed. All keep
their zero.

**Units.** `weight` is the inverse of the scale of an error in the velocity; every residual is an error of a velocity, so
that one weight serves all: displacements are divided by the time that they take.

Where the teacher's ODE has been integrated, its trajectory is the map: a plain regression of :math:`X_{s,r}(x_s)` on
:math:`x_r` needs no derivative of the student.

References:
    | Flow Matching (Lipman et al., 2022), https://arxiv.org/abs/2210.02747
    | Flow Map Matching (Boffi et al., 2024), https://arxiv.org/abs/2406.07507 (Lagrangian, Eulerian, semigroup)
    | How to build a consistency model (Boffi et al., 2025), https://arxiv.org/abs/2505.18825 (the same by data alone)
    | Mean Flows (Geng et al., 2025), https://arxiv.org/abs/2505.13447
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993 (GLASS teacher)
    | Meta Flow Maps (Potaptchik et al., 2026), https://arxiv.org/abs/2601.14430 (stochastic maps by each identity)
    | Knowledge Distillation in Iterative Generative Models (Luhman & Luhman, 2021), https://arxiv.org/abs/2101.02388
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch import Tensor

from diamond.flow import Flow
from diamond.interpolant import per_sample

from .pushforward import pushforward

__all__ = ["diagonal", "endpoint", "eulerian", "flow_matching", "lagrangian", "mean_flow", "two_hops"]

Displace = Callable[[Tensor, Tensor, Tensor], Tensor]  # X_{s,r}(x): (x, s, r) -> (B, *event)
Velocity = Callable[[Tensor, Tensor], Tensor]  # u_s(x): (x, s) -> (B, *event)
Weight = Callable[[Tensor], Tensor]  # w(s): (s) -> (B,)


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


def diagonal(slope: Velocity, weight: Weight, x: Tensor, s: Tensor, target: Tensor) -> Tensor:
    """`|w(s) (d/dr X_{s,r}(x)|_{r=s} - target)|^2` `(B,)`: the map's own velocity `slope` against a teacher's `u_s(x)`,
    or against the velocity of a path given the data that it leads to (flow matching). The latter's mean given `x` is
    `u_s(x)`, so that both losses differ by what no map can change, and have the same gradient in the mean."""
    return mean_square(per_sample(weight(s), x) * (slope(x, s) - target))


def lagrangian(displace: Displace, velocity: Velocity, weight: Weight, x: Tensor, s: Tensor, r: Tensor) -> Tensor:
    """`|w(r) (d/dr X_{s,r}(x) - u_r(X_{s,r}(x)))|^2` `(B,)`, the derivative by forward-mode differentiation (LSD). The
    velocity is asked where the map leads, and held fixed (Flow Map Matching, Lagrangian distillation)."""
    moved, slope = pushforward(lambda r: displace(x, s, r), (r,), (torch.ones_like(r),))
    with torch.no_grad():
        target = velocity(moved.detach(), r)
    return mean_square(per_sample(weight(r), x) * (slope - target))


def eulerian(displace: Displace, weight: Weight, x: Tensor, s: Tensor, r: Tensor, velocity: Tensor) -> Tensor:
    """`|w(s) (d/ds X_{s,r}(x) + J_x X_{s,r}(x) u_s(x))|^2` `(B,)` (ESD), both terms by one forward-mode derivative along
    `(u_s(x), 1)`, with `velocity` `u_s(x)` held fixed and the derivative itself differentiated in full (Flow Map
    Matching, Eulerian distillation). The velocity must be the mean one: noise in it would be charged to `J_x X`."""
    return mean_square(per_sample(weight(s), x) * _along_path(displace, x, s, r, velocity)[1])


def mean_flow(displace: Displace, weight: Weight, x: Tensor, s: Tensor, r: Tensor, velocity: Tensor) -> Tensor:
    r"""`|w(s) (U_{s,r}(x) - target)|^2` `(B,)` for the mean velocity `U = (X_{s,r}(x) - x) / (r - s)`, at `s < r`.

    On a path `x_s` of the ODE, `X_{s,r}(x_s) = x_s + (r - s) U_{s,r}(x_s)` stays where it is while `s` grows, hence

    .. math:: 0 = u_s - U + (r - s) \frac{dU}{ds}, \qquad
              U_{s,r}(x) = u_s(x) + (r - s) \left( \partial_s U + J_x U \, u_s(x) \right),

    with a plus because here the end is fixed and the start moves forwards, towards it (Mean Flows counts time from the
    data, fixes the end at the earlier time, and has a minus). The right-hand side is the target, held fixed. In terms of the
    map it is `U + d/ds X_{s,r}(x_s)`: the residual is the Eulerian one, differentiated through `U` alone.

    The target is linear in `velocity`, so this may be the mean `u_s(x)` or the velocity of a path given its data.
    """
    moved, rate = _along_path(displace, x, s, r, velocity)
    average = (moved - x) / per_sample(r - s, x)
    return mean_square(per_sample(weight(s), x) * (average - (average + rate).detach()))


@torch.no_grad()
def two_hops(displace: Displace, x: Tensor, s: Tensor, m: Tensor, r: Tensor) -> Tensor:
    """`X_{m,r}(X_{s,m}(x))` `(B, *event)` at `s <= m <= r`, the target that :func:`endpoint` compares one hop with: two hops,
    held fixed (PSD, semigroup). No derivative of the map. Any flow obeys the semigroup law, and only the diagonal tells
    which flow it shall be."""
    return displace(displace(x, s, m), m, r)


def endpoint(
    moved: Tensor,
    weight: Weight,
    s: Tensor,
    r: Tensor,
    target: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor] | None = None,
    ends: Tensor | None = None,
) -> Tensor:
    """`|w(s) (X_{s,r}(x) - target) / (r - s)|^2` `(B,)`, for states `moved`, `X_{s,r}(x)`, and targets on one trajectory
    at `s < r`: the error of the mean velocity between them. At the rows `ends`, all those where the trajectory ends by
    default, at `r = 1`, a further `distance` of clean samples `(B,)` may be added to the square, in the same unit."""
    scale = weight(s) / (r - s)
    losses = mean_square(per_sample(scale, moved) * (moved - target))
    if distance is None:
        return losses
    ends = (r == 1).nonzero().squeeze(1) if ends is None else ends
    if not len(ends):
        return losses
    return losses.index_add(0, ends, scale[ends].square() * distance(moved[ends], target[ends]))


def _along_path(displace: Displace, x: Tensor, s: Tensor, r: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """`X_{s,r}(x)` and its derivative along the path through `x`: `d/ds X + J_x X velocity`, each `(B, *event)`."""
    direction = (velocity.detach(), torch.ones_like(s))
    return pushforward(lambda x, s: displace(x, s, r), (x, s), direction)
