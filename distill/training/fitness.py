"""Which events and labels are fit for training.

Events go from noise of unit variance to data: at another scale by far, most times are spent where there is nothing to learn.
"""

from __future__ import annotations

import warnings

from typing import Any

import torch

from torch import Tensor
from torch.utils.data import default_collate

__all__ = ["check_events", "check_labels", "classes_in", "collated", "warn_of_scale"]

LARGEST, WIDEST = 20.0, 10.0  # magnitude and standard deviation beyond which data are taken for pixels from 0 to 255


def collated(items: list) -> Any:
    """Items of a Dataset as one batch.

    Raises:
        ValueError: they do not fit together, or are of a kind that makes no tensors.
    """
    try:
        return default_collate(items)
    except (RuntimeError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"data: its items make no batch ({why}), expected events of one shape, tensors or arrays, or pairs "
            "(event, label)"
        ) from error


def check_events(z: Any) -> None:
    """Refuses `z` unless it is a floating tensor `(N, *event)` of finite numbers.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(z, Tensor):
        raise ValueError(f"data: got items that make a {type(z).__name__}, expected tensors, or pairs (event, label)")
    if not z.is_floating_point() or z.ndim < 2:
        recipe = ", images as images.float() / 127.5 - 1" if z.dtype == torch.uint8 else ""
        raise ValueError(f"data: got {z.dtype} {tuple(z.shape)}, expected a floating tensor (N, *event){recipe}")
    if not bool(z.isfinite().all()):
        raise ValueError("data: got NaN or infinite entries, expected finite numbers")


def warn_of_scale(z: Tensor) -> None:
    """Warns of data `(N, *event)` far from the unit scale of the noise, which images from 0 to 255 are."""
    z = z.detach()  # of codes of an encoder, say
    low, high = (float(end) for end in torch.aminmax(z))
    largest = max(-low, high)
    if largest <= LARGEST:
        return
    spread = largest * float((z / largest).std(correction=0))  # whose squares are finite
    if spread > WIDEST:
        warnings.warn(
            f"data: got entries from {low:g} to {high:g} of standard deviation {spread:.3g}, far from the noise's, which is "
            "1; images are best in [-1, 1], those from 0 to 255 as images / 127.5 - 1",
            stacklevel=6,
        )


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuses `labels` `(N,)` unless they are whole numbers from 0 to `classes` - 1.

    Raises:
        ValueError: they are not.
    """
    expected = f"expected whole numbers from 0 to {classes - 1}, the network's {classes} classes"
    if classes_in(labels, expected) > classes:
        raise ValueError(f"labels: got labels from {int(labels.min())} to {int(labels.max())}, {expected}")


def classes_in(labels: Tensor, expected: str = "expected a tensor (N,) of whole numbers from 0 on") -> int:
    """How many classes there are by `labels` `(N,)`, the largest of which is the last class.

    Raises:
        ValueError: they are no whole numbers from 0 on; it ends in what was `expected`.
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels: got {getattr(labels, 'dtype', type(labels).__name__)}, {expected}")
    if not labels.numel():
        return 0
    low, high = (int(end) for end in torch.aminmax(labels))
    if low < 0:
        raise ValueError(f"labels: got labels from {low} to {high}, {expected}")
    return high + 1
