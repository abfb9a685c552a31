"""The data sets that have names.

`digits` comes with scikit-learn (1797 grey images, 8x8, in 17 levels). `mnist` and `fashion-mnist` (28x28, grey) and
`cifar10` (32x32, colour) are read by torchvision, which checks their files and downloads them where they are missing.
CIFAR-10 is distributed as pickles, which torchvision opens after it has compared their checksums; a file `cifar10.npz`
in the same folder is read instead of them (:func:`diamond.data.archive.from_archive`), so that who has no network, or
wants no pickles, can put one there.

References:
    | Gradient-based learning applied to document recognition (LeCun et al., 1998), https://doi.org/10.1109/5.726791
    | Fashion-MNIST (Xiao et al., 2017), https://arxiv.org/abs/1708.07747
    | Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from .archive import from_archive
from .part import Data, divide
from .pixels import scaled

__all__ = ["DATA_SETS", "from_name"]

DATA_SETS = ("digits", "mnist", "fashion-mnist", "cifar10")
DIGITS_HELD_OUT = 297
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
FIGURES = tuple("0123456789")


def from_name(name: str, split: str, root: Path) -> Data:
    """A part of one of `DATA_SETS`, its files in the folder `root` if it has any.

    Raises:
        FileNotFoundError: they are missing and cannot be downloaded.
    """
    if name == "digits":
        return _digits(split)
    staged = root / f"{name}.npz"
    if name == "cifar10" and staged.is_file():
        return from_archive(staged, split, name)
    found = _downloaded(name, split, root)
    pixels, labels = torch.as_tensor(found.data), torch.as_tensor(found.targets).long()
    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return Data(scaled(images), labels, name, FIGURES if name == "mnist" else tuple(found.classes))


def _digits(split: str) -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1
    return divide(images, torch.from_numpy(digits.target).long(), split, "digits", FIGURES, DIGITS_HELD_OUT)


def _downloaded(name: str, split: str, root: Path) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    try:
        return kind(root, train=split == "train", download=False)
    except RuntimeError:  # its files are missing
        pass
    try:
        return kind(root, train=split == "train", download=True)
    except (RuntimeError, OSError) as error:
        for folder in (root / kind.__name__ / "raw", root / kind.__name__, root):
            with suppress(OSError):  # made for nothing, unless something is in it
                folder.rmdir()
        why = str(error).splitlines()[0].rstrip(":")
        raise FileNotFoundError(
            f"data: {name!r} is not in the folder {str(root)!r} and cannot be downloaded there ({why})"
        ) from error
