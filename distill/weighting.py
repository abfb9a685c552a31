r"""How much each sample's loss counts.

Errors at some times are larger than at others by nature, and would drown the rest. Two ways to even them out, of losses
:math:`\ell` at the times :math:`\tau` of their residuals:

.. math::
    \text{adaptive} &: \ell / \mathrm{sg}(\ell + c)^p \\
    \text{learned}  &: e^{-w(\tau)} \, \ell + w(\tau)

The first divides by a power of the loss itself, held fixed: outliers are tamed, by :math:`p = 1/2` as by a Huber loss,
whose gradient has one length for every large error; :math:`p = 1` lets small errors pull the hardest. It moves the
minimiser where a residual keeps a variance that no map can remove, as by data alone, and the more so the larger `p` is.
The second learns the mean loss at each time, its minimiser being :math:`w = \log E[\ell \mid \tau]`; it weighs by the
times alone, so that the minimiser of each stays.

References:
    | Mean Flows (Geng et al., 2025), https://arxiv.org/abs/2505.13447 (adaptive)
    | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2023),
      https://arxiv.org/abs/2312.02696 (learned)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from torch import Tensor, nn

from diamond.nets.embedding import FEATURES, time_features
from diamond.validation import check_choice

__all__ = ["WEIGHTINGS", "Adaptive", "Learned", "Weighting", "make_weighting"]


class Weighting(Protocol):
    """Losses `(B,)` at the times `(s, r, t)` `(B, 3)` of their residuals, to losses `(B,)`."""

    def __call__(self, losses: Tensor, times: Tensor) -> Tensor: ...


class Adaptive:
    """`losses / (losses + floor)^power`, the denominator held fixed."""

    def __init__(self, power: float = 0.5, floor: float = 1e-3) -> None:
        self.power, self.floor = power, floor

    def __call__(self, losses: Tensor, times: Tensor) -> Tensor:
        return losses / (losses.detach() + self.floor) ** self.power


class Learned(nn.Module):
    """`exp(-w) losses + w` with a small network `w` of the times, zero at first, so that training begins unweighted.

    Its parameters are trained with the map's: they reach the trainer as the objective's `module`.

    Arguments:
        width: size of the hidden layer.
        seed: of the weights, which are drawn without the global random state.
    """

    def __init__(self, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.enter = nn.utils.skip_init(nn.Linear, 3 * FEATURES, width)
        self.leave = nn.utils.skip_init(nn.Linear, width, 1)
        with torch.no_grad():
            self.enter.weight.normal_(std=(3 * FEATURES) ** -0.5, generator=generator)
        for parameter in (self.enter.bias, *self.leave.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, losses: Tensor, times: Tensor) -> Tensor:
        features = time_features(times, self.enter.weight.dtype).flatten(-2)
        log_scale = self.leave(nn.functional.silu(self.enter(features))).squeeze(-1)
        return losses * (-log_scale).exp() + log_scale


WEIGHTINGS: dict[str, Callable[[], Weighting]] = {"adaptive": Adaptive, "learned": Learned}


def make_weighting(name: str | None) -> Weighting | None:
    """The weighting of that name; None for none, the plain mean.

    Raises:
        ValueError: no weighting has that name.
    """
    return None if name is None else WEIGHTINGS[check_choice("weighting", name, WEIGHTINGS)]()
