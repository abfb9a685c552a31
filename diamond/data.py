"""Data sets of small images by name, or from a `.npz` file: all as float32 tensors `(N, C, H, W)` in [-1, 1].

`digits` comes with scikit-learn (1797 grey images, 8x8); `mnist` and `fashion-mnist` (28x28) are read by torchvision,
which downloads them where their files are missing. Digits and files have no split of their own: theirs is fixed by a
seeded permutation, and each part keeps the order of the whole.
"""

from __future__ import annotations

import zipfile

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from torch import Tensor

from .validation import check_choice

__all__ = ["DATA_SETS", "SPLITS", "Data", "load_data"]

DATA_SETS = ("digits", "mnist", "fashion-mnist")
SPLITS = ("train", "held-out")
DIGITS_HELD_OUT = 297


@dataclass(frozen=True, eq=False)
class Data:
    """One part of a data set.

    Attributes:
        images: `(N, C, H, W)`, float32 in [-1, 1].
        labels: `(N,)`, int64 from 0, or None.
        name: what :func:`load_data` was asked for.
    """

    images: Tensor
    labels: Tensor | None
    name: str

    @property
    def classes(self) -> int:
        """One more than the largest label; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1


def load_data(name: str | Path, *, split: str = "train", root: str | Path | None = None) -> Data:
    """A data set.

    Arguments:
        name: "digits", "mnist", "fashion-mnist", or the path of a `.npz` file that holds `images`, `(N, C, H, W)` or
            `(N, H, W)`, uint8 or floating in [-1, 1], and maybe `labels` `(N,)`.
        split: "train" or "held-out". Digits: 1500 and 297; MNIST's own: 60000 and 10000; of a file: nine tenths and
            one tenth.
        root: the folder of the torchvision data sets, `data` in the current folder by default.

    Raises:
        ValueError: an unknown name or split, or a file whose content does not fit.
        FileNotFoundError: there is no such file, or a data set is missing and cannot be downloaded.
    """
    name = str(name)
    check_choice("split", split, SPLITS)
    if name.lower().endswith(".npz"):
        return _part(*_from_file(Path(name)), split, name)
    if name not in DATA_SETS:
        raise ValueError(f"data: got {name!r}, expected one of {', '.join(DATA_SETS)}, or a path that ends in .npz")
    if name == "digits":
        return _part(*_digits(), split, name, DIGITS_HELD_OUT)
    return _from_torchvision(name, split, Path("data" if root is None else root))


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1
    return images, torch.from_numpy(digits.target).long()


def _from_torchvision(name: str, split: str, root: Path) -> Data:
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    try:
        found = kind(root, train=split == "train", download=False)
    except RuntimeError:  # its files are missing
        try:
            found = kind(root, train=split == "train", download=True)
        except (RuntimeError, OSError) as error:
            for folder in (root / kind.__name__ / "raw", root / kind.__name__, root):
                with suppress(OSError):  # made for nothing, unless something is in it
                    folder.rmdir()
            why = str(error).splitlines()[0].rstrip(":")
            raise FileNotFoundError(
                f"data: {name!r} is not in the folder {str(root)!r} and cannot be downloaded there ({why})"
            ) from error
    return Data(_scaled(found.data).unsqueeze(1), found.targets.long(), name)


def _from_file(path: Path) -> tuple[Tensor, Tensor | None]:
    if not path.is_file():
        raise FileNotFoundError(f"data: there is no file {path}, expected a .npz file")
    foreign = f"data: {path} is no readable .npz file of plain arrays"
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(foreign)
        with archive:
            arrays = {key: archive[key] for key in ("images", "labels") if key in archive.files}
            names = archive.files
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{foreign}, expected one with 'images' and maybe 'labels'") from error
    if "images" not in arrays:
        raise ValueError(f"data: {path} holds {', '.join(names) or 'nothing'}, expected an array 'images'")
    images = _checked_images(arrays["images"], path)
    return images, _checked_labels(arrays["labels"], len(images), path) if "labels" in arrays else None


def _checked_images(images: np.ndarray, path: Path) -> Tensor:
    if images.ndim not in (3, 4) or 0 in images.shape or len(images) < 2:
        raise ValueError(
            f"data: 'images' of {path} has shape {images.shape}, expected (N, C, H, W) or (N, H, W) with N at least 2"
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"data: 'images' of {path} has dtype {images.dtype}, expected uint8 or floating numbers")
    scaled = _scaled(torch.from_numpy(np.ascontiguousarray(images)))
    low, high = float(scaled.min()), float(scaled.max())
    if not -1 <= low <= high <= 1:
        raise ValueError(f"data: 'images' of {path} has entries from {low:g} to {high:g}, expected uint8 or [-1, 1]")
    return scaled.unsqueeze(1) if scaled.ndim == 3 else scaled


def _checked_labels(labels: np.ndarray, count: int, path: Path) -> Tensor:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or int(labels.min()) < 0:
        raise ValueError(
            f"data: 'labels' of {path} has shape {labels.shape} and dtype {labels.dtype}, "
            f"expected ({count},) whole numbers from 0"
        )
    return torch.from_numpy(labels.astype(np.int64))


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()


def _part(images: Tensor, labels: Tensor | None, split: str, name: str, held_out: int | None = None) -> Data:
    """The rows of one part: the first of a fixed permutation are for training, the last `held_out` are not."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    first = len(images) - (max(1, len(images) // 10) if held_out is None else held_out)
    rows = (order[:first] if split == "train" else order[first:]).sort().values
    return Data(images[rows], None if labels is None else labels[rows], name)
