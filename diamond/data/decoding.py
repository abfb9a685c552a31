"""Image files as bytes. Photographs are turned upright as their cameras noted, 16 bits are brought to 8, only the first
frame of an animation is taken, and transparency is dropped. Floating numbers, of whatever scale, are not read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ENDINGS", "Header", "decoded", "read_header"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
FLOATING = "F"  # which PIL would cut off to 0 where they are in [0, 1]
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap the sides
ORIENTATION = 0x0112
BROKEN = (OSError, SyntaxError, ValueError, EOFError)  # what PIL raises of broken files


class Header(NamedTuple):
    """What is known of an image before it is decoded: whether it is grey, and its sides when upright."""

    grey: bool
    height: int
    width: int


def read_header(file: Path) -> Header | None:
    """The header of an image, or None if the file is none."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(FLOATING):
                return None
            width, height = image.size
            turned = Image.Image.getexif(image).get(ORIENTATION) in TURNED  # PNG's own would decode all of it
            return Header(image.mode in GREY, *((width, height) if turned else (height, width)))
    except (*BROKEN, Image.DecompressionBombError):
        return None


def decoded(file: Path, channels: int) -> Tensor | None:
    """An image as bytes `(C, H, W)`, with C of 1 or 3; None if the file cannot be decoded."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            array = _array(ImageOps.exif_transpose(image), channels)
    except (*BROKEN, Image.DecompressionBombError):
        return None
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1).contiguous()


def _array(image: Image, channels: int) -> np.ndarray:
    """Bytes `(H, W)` or `(H, W, 3)`."""
    if image.mode.startswith("I"):  # 16 bits, which PIL would cut off at 255
        grey = (np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8)
        return grey if channels == 1 else grey[..., None].repeat(3, axis=2)
    return np.array(image.convert("L" if channels == 1 else "RGB"))
