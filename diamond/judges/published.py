"""Published weights: arrays by name in a `.npz` or a `.safetensors` file. Nothing in them is ever unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..data.archive import BROKEN

__all__ = ["is_published", "read_arrays"]

ARCHIVE = b"PK\x03\x04"  # how numpy's archives begin


def is_published(path: str | Path) -> bool:
    """Whether a file is one for :func:`read_arrays`: a `.npz` file, another archive, or safetensors without a header of
    this package's."""
    if _is_archive(Path(path)):
        return True
    try:
        with safe_open(path, framework="pt") as file:
            return "diamond" not in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_arrays(path: str | Path) -> dict[str, Tensor]:
    """The arrays of numbers in a file, by name, those of floating type in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or foreign, or holds pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file, expected published weights")
    arrays = _from_archive(path) if _is_archive(path) else _from_safetensors(path)
    return {name: array.float() if array.is_floating_point() else array for name, array in arrays.items()}


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".npz" or _begins(path)


def _begins(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ARCHIVE)) == ARCHIVE


def _from_archive(path: Path) -> dict[str, Tensor]:
    try:
        if not _begins(path):
            raise ValueError("it is no archive")  # of which numpy would say that it is a pickle
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if any(name.endswith(".pkl") for name in archive.files):
                raise ValueError("torch has put a pickle into it")
            return {name: _tensor(archive[name]) for name in archive.files}
    except BROKEN as error:
        pickled = "pickle" in str(error)
        what = "holds pickled objects, which are never loaded" if pickled else "is truncated, damaged or foreign"
        raise ValueError(f"{path}: it {what}, expected a .npz file of plain arrays") from error


def _tensor(array: np.ndarray) -> Tensor:
    """An array of whatever byte order; what is no array comes from numpy as bytes."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError("it holds other things than numbers")
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: it is truncated, damaged or foreign, expected a safetensors file") from error
