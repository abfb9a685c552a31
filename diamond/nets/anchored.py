r"""A map's network that contains the teacher's.

The output is :math:`F(x_*, t_*) + \kappa \, G(x_*, t_*; \kappa n, s, r, t)`, with :math:`F` the teacher's network,
frozen, :math:`G` a network of its kind that sees the further states and times, and :math:`\kappa = (r - s) / (1 - s)`.
On the diagonal :math:`\kappa = 0`, so the map's velocity and posterior mean *are* the teacher's, for good. What is
learned is the departure from it alone: a network that also has to remember the mean forgets some of it, and an error
in the mean is what a narrow posterior forgives least.
"""

from __future__ import annotations

import copy

import torch

from torch import Tensor

from .network import Network

__all__ = ["Anchored"]


class Anchored(Network):
    """The network of a flow, grown to that of a map.

    Arguments:
        trunk: the teacher's network; its weights are copied and take no gradient.
        branch: a network with further states and times.
    """

    def __init__(self, trunk: Network, branch: Network) -> None:
        super().__init__()
        self.trunk, self.branch = copy.deepcopy(trunk).requires_grad_(False), branch
        self.event_shape = branch.event_shape
        self.config = {"trunk": self.trunk, "branch": branch}

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor | None = None,
        states: tuple[Tensor, ...] = (),
        times: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """The network's output `(B, *event)`; `times` is `(s, r, t)` for a Diamond Map, `(r,)` for a flow map at t."""
        s, r = times[:2] if len(times) > 1 else (t, times[0])
        share = torch.where(s < 1, (r - s) / torch.where(s < 1, 1 - s, 1.0), 0.0).to(x.dtype)
        departure = self.branch(x, t, cond, states, times)
        return self.trunk(x, t, cond) + share.reshape(-1, *[1] * (x.ndim - 1)) * departure
