"""Data sets in one `.npz` file of plain arrays: nothing in it is ever unpickled."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

from pathlib import Path

import numpy as np
import torch

from torch import Tensor

from .part import Data, divide
from .pixels import checked_images, checked_labels

__all__ = ["from_archive"]

OWN_SPLIT = {"train": "train_", "held-out": "test_"}
BROKEN = (  # what numpy and zipfile raise of broken files, and of encrypted ones
    ValueError, OSError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def from_archive(path: Path, split: str, name: str | None = None) -> Data:
    """A part of the data in a `.npz` file.

    It holds `images`, `(N, C, H, W)` or `(N, H, W)`, uint8 or floating in [-1, 1], and maybe `labels` `(N,)`, whole
    numbers from 0; or, with a split of its own, `train_images`, `test_images`, and maybe labels likewise. `class_names`
    `(K,)` are optional, and then a label is one of K.

    Raises:
        ValueError: the file is foreign or truncated, or what it holds does not fit.
        FileNotFoundError: there is no such file.
    """
    arrays = _read(path)
    names = _names(arrays.get("class_names"), path)
    own = OWN_SPLIT[split] if "train_images" in arrays else ""
    for wanted in ("train_images", "test_images") if own else ("images",):
        if wanted not in arrays:
            raise ValueError(f"data: {path} holds {', '.join(arrays) or 'nothing'}, expected an array {wanted!r}")
    if own:
        _check_pair(arrays, path)
    images = checked_images(arrays[f"{own}images"], f"{own}images", path)
    labels = _labels(arrays, own, len(images), names, path)
    if not own:
        return divide(images, labels, split, name or str(path), names)
    if labels is not None and not names:  # the classes of both parts
        counted = [(part, len(arrays[f"{part}images"])) for part in OWN_SPLIT.values()]
        both = torch.cat([checked_labels(arrays[f"{part}labels"], n, f"{part}labels", path) for part, n in counted])
        names = tuple(map(str, range(int(both.max()) + 1)))
    return Data(images, labels, name or str(path), names)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"data: there is no file {path}, expected a .npz file")
    foreign = f"data: {path} is no readable .npz file of plain arrays"
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(foreign)
        with archive:
            return {key: archive[key] for key in archive.files}
    except BROKEN as error:
        raise ValueError(f"{foreign}, expected one with 'images' and maybe 'labels'") from error


def _names(names: np.ndarray | None, path: Path) -> tuple[str, ...]:
    if names is None:
        return ()
    if names.ndim != 1 or not len(names) or names.dtype.kind != "U":
        raise ValueError(
            f"data: 'class_names' of {path} has shape {names.shape} and dtype {names.dtype}, expected (K,) strings"
        )
    return tuple(names.tolist())


def _check_pair(arrays: dict[str, np.ndarray], path: Path) -> None:
    one, other = (arrays[f"{part}images"].shape for part in OWN_SPLIT.values())
    if one[1:] != other[1:]:
        raise ValueError(f"data: the images of {path} have shapes {one} and {other}, expected two parts of one kind")
    if ("train_labels" in arrays) != ("test_labels" in arrays):
        raise ValueError(f"data: {path} holds labels of one part, expected those of both or of none")


def _labels(arrays: dict[str, np.ndarray], own: str, count: int, names: tuple[str, ...], path: Path) -> Tensor | None:
    key = f"{own}labels"
    if key not in arrays:
        return None
    return checked_labels(arrays[key], count, key, path, len(names) or None)
