r"""From images in [-1, 1] to what a network was trained on, with a derivative.

The steps are those of the processors that work on files: a resize, a crop, and :math:`(x - \mathrm{mean}) / \mathrm{std}`
by channel for :math:`x` in [0, 1]. A resize is one pass along the rows and one along the columns,

.. math:: y_i = \sum_j w_{ij} x_j, \qquad w_{ij} \propto k\big((j + 1/2 - (i + 1/2) s) / \max(s, 1)\big),
   \qquad s = \mathrm{from} / \mathrm{to},

with the cubic kernel :math:`k` of :math:`a = -1/2`, which is widened where the image shrinks (antialiasing). Its
negative lobes overshoot, so each pass ends by cutting off what lies outside, as whole levels of a file must. What is left
between the two is the files' rounding: half a level in each pass.

References:
    | Cubic Convolution Interpolation for Digital Image Processing (Keys, 1981)
    | https://ieeexplore.ieee.org/document/1163711
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torch import Tensor
from torch.nn.functional import interpolate, pad

from diamond.validation import check_choice, check_positive

__all__ = ["CLIP_MEAN", "CLIP_STD", "Preprocessing"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

FITS = ("crop", "pad", "stretch")
ROUNDING = 1e-5  # a thousandth of a level
RESAMPLES = {2: "bilinear", 3: "bicubic"}  # the numbers that Pillow gives them


@dataclass(frozen=True)
class Preprocessing:
    """Images `(N, 3, H, W)` in [-1, 1] to `(N, 3, height, width)`, normalised; differentiable.

    What lies outside [-1, 1] is cut off first, as in a file, and has no gradient.

    Arguments:
        height, width: of what comes out.
        fit: "crop" brings the shorter side to `shorter` and cuts out the centre; "pad" brings the longer side to
            `height`, which `width` then equals, and fills with black; "stretch" changes the aspect ratio.
        shorter: the length of the shorter side before the crop, that of the crop's longer side by default.
        mean, std: of red, green and blue, for entries in [0, 1].
        resample: "bicubic" or "bilinear", antialiased both.

    Raises:
        ValueError: an argument that does not fit.
    """

    height: int
    width: int
    fit: str = "crop"
    shorter: int | None = None
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    resample: str = "bicubic"

    def __post_init__(self) -> None:
        check_positive("height", self.height), check_positive("width", self.width)
        check_choice("fit", self.fit, FITS), check_choice("resample", self.resample, RESAMPLES.values())
        if self.shorter is not None and self.shorter < max(self.height, self.width):
            raise ValueError(
                f"shorter: got {self.shorter}, expected at least the crop's {max(self.height, self.width)}"
            )
        if self.fit == "pad" and self.height != self.width:
            raise ValueError(f"height, width: got {self.height} and {self.width}, expected a square for fit='pad'")
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ValueError(f"mean, std: got {self.mean} and {self.std}, expected three numbers, and three above 0")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """That of an image processor's configuration, as transformers saves it.

        Raises:
            ValueError: one that resizes in another way.
        """
        side, cut = config.get("size", 224), config.get("crop_size", config.get("size", 224))
        size, crop, resample = _sides(side), _sides(cut), RESAMPLES.get(config.get("resample", 3))
        if size is None or crop is None or resample is None or not config.get("do_resize", True):
            raise ValueError(
                f"preprocessor: got size {side}, crop_size {cut} and resample {config.get('resample')}, expected lengths "
                "of sides, and a bilinear or bicubic resize"
            )
        normal = config.get("do_normalize", True)
        mean = tuple(config.get("image_mean", CLIP_MEAN)) if normal else (0.0, 0.0, 0.0)
        std = tuple(config.get("image_std", CLIP_STD)) if normal else (1.0, 1.0, 1.0)
        if config.get("do_center_crop", "crop_size" in config) and _is_one_side(side):
            return cls(crop[0], crop[1], "crop", size[0], mean, std, resample)
        return cls(size[0], size[1], "stretch", None, mean, std, resample)

    def __call__(self, images: Tensor) -> Tensor:
        """What the network sees of `images`, in float32, or float64 where they are."""
        x = images if images.dtype == torch.float64 else images.float()
        x = (self._fitted(_cut_off(x)) + 1) / 2
        return (x - x.new_tensor(self.mean)[:, None, None]) / x.new_tensor(self.std)[:, None, None]

    def _fitted(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        if self.fit == "stretch":
            return self._resized(x, self.height, self.width)
        if self.fit == "pad":
            scale = self.height / max(rows, columns)
            x = self._resized(x, max(round(rows * scale), 1), max(round(columns * scale), 1))
            down, right = self.height - x.shape[2], self.width - x.shape[3]
            return pad(x, (right // 2, right - right // 2, down // 2, down - down // 2), value=-1)
        shorter = self.shorter or max(self.height, self.width)
        longer = int(shorter * max(rows, columns) / min(rows, columns))
        x = self._resized(x, *((shorter, longer) if rows <= columns else (longer, shorter)))
        top, left = (x.shape[2] - self.height) // 2, (x.shape[3] - self.width) // 2
        return x[:, :, top : top + self.height, left : left + self.width]

    def _resized(self, x: Tensor, rows: int, columns: int) -> Tensor:
        for size in ((x.shape[2], columns), (rows, columns)):
            if size != x.shape[2:]:
                x = _cut_off(interpolate(x, size, mode=self.resample, align_corners=False, antialias=True))
        return x


def _cut_off(x: Tensor) -> Tensor:
    """`x` held within [-1, 1], and a little more: at the ends themselves, where pixels often are, it has a gradient."""
    return x.clamp(-1 - ROUNDING, 1 + ROUNDING)


def _is_one_side(size: Any) -> bool:
    return isinstance(size, int) or "shortest_edge" in size


def _sides(size: Any) -> tuple[int, int] | None:
    """Height and width of a configuration's size, which may be a number, one side or two."""
    if isinstance(size, int):
        return size, size
    if not isinstance(size, Mapping):
        return None
    if isinstance(size.get("shortest_edge"), int):
        return size["shortest_edge"], size["shortest_edge"]
    sides = size.get("height"), size.get("width")
    return sides if isinstance(sides[0], int) and isinstance(sides[1], int) else None  # type: ignore[return-value]
