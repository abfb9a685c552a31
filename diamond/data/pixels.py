"""Numbers of images: one normalisation, one way to a given size, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from torch import Tensor

__all__ = ["checked_images", "checked_labels", "fitted", "scaled"]

MOST_CLASSES = 1000  # by their labels alone, unless there are more images


def scaled(images: Tensor) -> Tensor:
    """Bytes as float32 in [-1, 1], 0 as -1 and 255 as 1; floating numbers as they are, in float32."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()


def fitted(images: Tensor, size: int) -> Tensor:
    """The centre square of images `(..., C, H, W)`, resized to `(..., C, size, size)` by averaging or bilinearly."""
    from torchvision.transforms.v2 import functional

    side = min(images.shape[-2:])
    if images.shape[-2:] != (side, side):
        images = functional.center_crop(images, [side, side])
    return images if side == size else functional.resize(images, [size, size], antialias=True)


def checked_images(images: np.ndarray, name: str, place: object) -> Tensor:
    """Images `(N, C, H, W)` or `(N, H, W)`, bytes or floating numbers, as float32 `(N, C, H, W)` in [-1, 1].

    `name` is what the array is called in `place`. Floating numbers that look as if they were in [0, 1] are taken as they
    are, with a warning.

    Raises:
        ValueError: fewer than two, or none at all; another shape or type; NaN, or numbers outside of [-1, 1].
    """
    what = f"data: {name!r} of {place}"
    if images.ndim not in (3, 4) or 0 in images.shape or len(images) < 2:
        raise ValueError(f"{what} has shape {images.shape}, expected (N, C, H, W) or (N, H, W) with N at least 2")
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] > 4:
        raise ValueError(f"{what} has shape {images.shape}, expected the channels first, (N, C, H, W)")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{what} has dtype {images.dtype}, expected uint8 or floating numbers")
    known = np.uint8 if images.dtype == np.uint8 else np.float32  # torch reads no other byte order, nor long doubles
    result = scaled(torch.from_numpy(np.ascontiguousarray(images, known)))
    finite = result.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        raise ValueError(
            f"{what} has NaN or infinite entries in {int((~finite).sum())} of {len(images)} images, the first of them "
            f"number {int((~finite).nonzero()[0])}; expected finite numbers"
        )
    low, high = float(result.min()), float(result.max())
    if not -1 <= low <= high <= 1:
        raise ValueError(f"{what} has entries from {low:g} to {high:g}, expected uint8 or [-1, 1]")
    if low >= 0 and high > 0.5:
        warnings.warn(
            f"{what} has entries from {low:g} to {high:g}, taken as they are in [-1, 1], where -1 is black; if 0 is, give "
            "uint8 or twice the numbers minus 1",
            stacklevel=4,
        )
    return result.unsqueeze(1) if result.ndim == 3 else result


def checked_labels(labels: np.ndarray, count: int, name: str, place: object, classes: int | None = None) -> Tensor:
    """Labels `(count,)` as int64.

    Raises:
        ValueError: another shape or type; labels below 0, or beyond the `classes` that there are, or, where their
            number is not known, so large that they are no classes.
    """
    what = f"data: {name!r} of {place}"
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{what} has shape {labels.shape} and dtype {labels.dtype}, expected ({count},) whole numbers from 0"
        )
    low, high = int(labels.min()), int(labels.max())
    most = max(count, MOST_CLASSES) if classes is None else classes
    if low < 0 or high >= most:
        raise ValueError(f"{what} has labels from {low} to {high}, expected whole numbers from 0 to {most - 1}")
    return torch.from_numpy(labels.astype(np.int64))
