r"""Simple rewards on images `(N, C, H, W)` with entries in [-1, 1], all of them differentiable.

With pixels :math:`z_{cij}` and luminance :math:`l_{ij} = 0.299 \, R + 0.587 \, G + 0.114 \, B` (a grey image is its
own): brightness is the mean entry, contrast the standard deviation of :math:`l`, symmetry and colour are minus mean
squares, sparsity is minus a mean absolute distance.

References:
    | Studio encoding parameters of digital television, ITU-R BT.601 (the luminance)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from PIL import ImageColor
from torch import Tensor

from diamond.validation import check_number

from .composition import RewardModule

__all__ = ["Brightness", "Contrast", "MeanColour", "Sparsity", "Symmetry"]

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue


class Brightness(RewardModule):
    """The mean entry, in [-1, 1]; differentiable."""

    def forward(self, z: Tensor) -> Tensor:
        return _precise(z).flatten(1).mean(1)


class Contrast(RewardModule):
    """The standard deviation of an image's luminance over its pixels, in [0, 1]: 1 for black and white in equal parts.
    Differentiable, with a finite gradient even of a flat image. Grey or RGB."""

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 4 or z.shape[1] not in (1, 3):
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected images (N, 1 or 3, H, W)")
        z = _precise(z)
        luminance = z if z.shape[1] == 1 else torch.einsum("nchw,c->nhw", z, z.new_tensor(LUMINANCE))
        return luminance.flatten(1).std(1, correction=0)


class Symmetry(RewardModule):
    """Minus the mean square difference between an image and its left-right mirror, in [-4, 0]; differentiable."""

    def forward(self, z: Tensor) -> Tensor:
        z = _precise(z)
        return -(z - z.flip(-1)).square().flatten(1).mean(1)


class MeanColour(RewardModule):
    """Minus the mean square distance, over red, green and blue, between an image's mean colour and a wanted one, in
    [-4, 0]: it tints the image and leaves its drawing free. Differentiable. RGB alone.

    Arguments:
        colour: the wanted colour: three numbers in [-1, 1], as images have them, or a name or code of the web's,
            "orange" or "#ffa500".
    """

    colour: Tensor

    def __init__(self, colour: str | Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("colour", torch.tensor(_rgb(colour)))

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim == 4 and z.shape[1] == 1:
            raise ValueError(f"z: got grey images of shape {tuple(z.shape)}, expected RGB ones (N, 3, H, W)")
        if z.ndim != 4 or z.shape[1] != 3:
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected RGB images (N, 3, H, W)")
        z = _precise(z)
        return -(z.mean((2, 3)) - self.colour.to(z)).square().mean(1)


class Sparsity(RewardModule):
    """Minus the mean absolute distance of the entries from a background, at most 0, and 0 where there is nothing else:
    in [-2, 0] for the darkest one. Differentiable save at the background itself, where the gradient is taken as zero.

    Arguments:
        background: the entry of an empty pixel, -1 by default: ink on a dark ground.
    """

    def __init__(self, background: float = -1.0) -> None:
        super().__init__()
        self.background = check_number("background", background, "a finite number")

    def forward(self, z: Tensor) -> Tensor:
        return -(_precise(z) - self.background).abs().flatten(1).mean(1)


def _precise(z: Tensor) -> Tensor:
    return z.to(torch.promote_types(z.dtype, torch.float32))


def _rgb(colour: str | Sequence[float]) -> list[float]:
    expected = "expected three numbers in [-1, 1], or a name or code like 'orange' or '#ffa500'"
    if isinstance(colour, str):
        try:
            return [level / 127.5 - 1 for level in ImageColor.getrgb(colour)[:3]]
        except ValueError as error:
            raise ValueError(f"colour: got {colour!r}, {expected}") from error
    try:
        levels = [float(level) for level in colour]
    except (TypeError, ValueError) as error:
        raise ValueError(f"colour: got {colour!r}, {expected}") from error
    if len(levels) != 3 or not all(-1 <= level <= 1 for level in levels):
        raise ValueError(f"colour: got {levels}, {expected}")
    return levels
