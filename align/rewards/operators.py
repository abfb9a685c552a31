r"""Linear measurements :math:`A z` without their noise, each a module `(N, *event) -> (N, *measurement)`.

* a mask, :math:`(A z)_i = m_i z_i`;
* box averages, :math:`(A z)_{cij} = f^{-2} \sum_{a, b < f} z_{c, fi + a, fj + b}`;
* a blur, the convolution :math:`(A z)_{cij} = \sum_{ab} k_{ab} \, z_{c, i - a, j - b}` with a kernel around 0, the
  same for each channel, on an image that is carried on past its edges;
* any matrix, applied to the flattened event.
"""

from __future__ import annotations

import math

from typing import Any

import torch

from torch import Tensor, nn
from torch.nn import functional

from diamond.validation import check_choice, check_number, check_positive

__all__ = ["PADDINGS", "Blur", "BoxAverage", "Mask", "MatrixProduct", "gaussian_kernel"]

PADDINGS = {"reflect": "reflect", "replicate": "replicate", "circular": "circular", "zeros": "constant"}


class Mask(nn.Module):
    """`m z`: `(N, *event)` to the same shape, 0 where the mask `(*event)` is, whatever the entry."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        _check_tensor("mask", mask)
        self.register_buffer("mask", mask if mask.is_floating_point() else mask.to(torch.get_default_dtype()))

    def forward(self, z: Tensor) -> Tensor:
        if z.shape[1:] != self.mask.shape:
            raise ValueError(
                f"z: got events of shape {tuple(z.shape[1:])}, expected that of the mask, {tuple(self.mask.shape)}"
            )
        mask = self.mask.to(z)
        return torch.where(mask != 0, mask * z, 0.0)


class BoxAverage(nn.Module):
    """The means of squares of `factor` by `factor` pixels: `(N, C, H, W)` to `(N, C, H / factor, W / factor)`."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = check_positive("factor", factor)

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 4 or z.shape[2] % self.factor or z.shape[3] % self.factor:
            raise ValueError(
                f"z: got shape {tuple(z.shape)}, expected images (N, C, H, W) with sides that {self.factor} divides"
            )
        return functional.avg_pool2d(z, self.factor)


class Blur(nn.Module):
    """The convolution of each channel with `kernel` `(h, w)`, of odd sides: `(N, C, H, W)` to the same shape.

    Arguments:
        kernel: any numbers; those of a Gaussian come from :func:`gaussian_kernel`.
        padding: what lies past the edges: "reflect" (the image mirrored at its outermost pixels, the kernel reaching
            less than a side), "replicate" (these pixels themselves), "circular" (the opposite side) or "zeros".
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor, padding: str = "reflect") -> None:
        super().__init__()
        _check_tensor("kernel", kernel)
        if kernel.ndim != 2 or not kernel.shape[0] % 2 or not kernel.shape[1] % 2:
            raise ValueError(f"kernel: got shape {tuple(kernel.shape)}, expected (h, w) with odd sides")
        self.padding = check_choice("padding", padding, PADDINGS)
        self.register_buffer("kernel", kernel if kernel.is_floating_point() else kernel.float())

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 4:
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected images (N, C, H, W)")
        reach = [side // 2 for side in self.kernel.shape]
        spare = {"reflect": -1, "circular": 0}.get(self.padding, math.inf)
        if any(r > side + spare for r, side in zip(reach, z.shape[2:], strict=True)):
            raise ValueError(
                f"kernel: got shape {tuple(self.kernel.shape)} for images of {z.shape[2]} by {z.shape[3]} pixels, "
                f"expected one that padding={self.padding!r} has room for"
            )
        around = (reach[1], reach[1], reach[0], reach[0])
        wide = functional.pad(z.flatten(0, 1)[:, None], around, PADDINGS[self.padding])
        kernel = self.kernel.to(z).flip(0, 1)  # conv2d correlates
        return functional.conv2d(wide, kernel[None, None]).reshape(z.shape)


class MatrixProduct(nn.Module):
    """`matrix @ z`: `(N, *event)` to `(N, M)`, for a matrix `(M, D)` and events of D entries in all."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        _check_tensor("matrix", matrix)
        if matrix.ndim != 2:
            raise ValueError(f"matrix: got shape {tuple(matrix.shape)}, expected (M, D)")
        self.register_buffer("matrix", matrix if matrix.is_floating_point() else matrix.float())

    def forward(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        if flat.shape[1] != self.matrix.shape[1]:
            raise ValueError(
                f"z: got events of {flat.shape[1]} entries, expected {self.matrix.shape[1]}, as matrix has"
            )
        return flat @ self.matrix.to(z).T


def gaussian_kernel(deviation: float) -> Tensor:
    """A Gaussian of standard deviation `deviation` pixels, cut off past three of them, `(h, h)` with sum 1."""
    expected = "a positive standard deviation in pixels, or a tensor"
    deviation = check_number("kernel", deviation, expected, lambda d: 0 < d < math.inf)
    reach = math.ceil(3 * deviation)
    profile = (-torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * deviation**2)).exp()
    return torch.outer(profile, profile) / profile.sum().square()


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: got {type(value).__name__}, expected a tensor")
