r"""Noisy measurements: with the log-likelihood of what was measured as reward, the target is the posterior of the
image given the measurement, :math:`p(z) \, p(y \mid z) / p(y)`."""

from __future__ import annotations

import torch

from torch import Tensor

from .composition import RewardModule

__all__ = ["Inpainting"]


class Inpainting(RewardModule):
    r""":math:`-|m (z - y)|^2 / 2 \nu^2`, at most 0: the entries where the mask is 1 were seen with Gaussian noise of
    standard deviation :math:`\nu`. Differentiable.

    Arguments:
        y: what was measured, of the event's shape.
        mask: 1 or True where it was, of the event's shape.
        noise: the noise's standard deviation.
    """

    y: Tensor
    mask: Tensor

    def __init__(self, y: Tensor, mask: Tensor, noise: float) -> None:
        super().__init__()
        if y.shape != mask.shape:
            raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected that of y, {tuple(y.shape)}")
        if not noise > 0:
            raise ValueError(f"noise: got {noise}, expected a positive standard deviation")
        self.register_buffer("y", y)
        self.register_buffer("mask", mask.to(y.dtype))
        self.noise = noise

    def forward(self, z: Tensor) -> Tensor:
        if z.shape[1:] != self.y.shape:
            raise ValueError(f"z: got events of shape {tuple(z.shape[1:])}, expected that of y, {tuple(self.y.shape)}")
        gap = self.mask.to(z) * (z - torch.as_tensor(self.y).to(z))
        return -gap.square().flatten(1).sum(1) / (2 * self.noise**2)
