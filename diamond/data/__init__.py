"""Data sets of images by name, from a folder, or from a `.npz` file: float32 tensors `(N, C, H, W)` in [-1, 1].

All of a part is held in memory, at 4 bytes a number: an image of 64 x 64 pixels in colour takes 49 kB, so that 20,000 of
them fit in a gigabyte. For folders that do not fit, :class:`ImageFolder` is a torch Dataset that decodes on demand.
"""

from __future__ import annotations

from pathlib import Path

from ..validation import check_choice, check_positive
from .archive import from_archive
from .folder import ImageFolder, from_folder
from .named import DATA_SETS, from_name
from .part import SPLITS, Data
from .pixels import fitted

__all__ = ["DATA_SETS", "SPLITS", "Data", "ImageFolder", "load_data"]


def load_data(
    name: str | Path, *, split: str = "train", root: str | Path | None = None, size: int | None = None
) -> Data:
    """A data set, or a part of one.

    Arguments:
        name: "digits", "mnist", "fashion-mnist" or "cifar10"; or the path of a `.npz` file
            (:func:`diamond.data.archive.from_archive`); or that of a folder of images, whose sub-folders are classes
            (:class:`ImageFolder`). A folder that is called like a data set is given as `./mnist`.
        split: "train" or "held-out". Digits: 1500 and 297; of MNIST, Fashion-MNIST and CIFAR-10, and of files with
            `train_images` and `test_images`, their own; of others, nine tenths and one tenth, by a permutation that is
            fixed by their number.
        root: the folder of the data sets that are no part of a library, `data` in the current folder by default.
        size: crop the images' centres to squares, and resize these to `size` pixels a side; as they are by default.

    Raises:
        ValueError: an unknown name or split, or a file or folder whose content does not fit.
        FileNotFoundError: there is no such file, or a data set is missing and cannot be downloaded.
    """
    if not isinstance(name, (str, Path)) or not str(name):
        raise ValueError(f"data: got {name!r}, expected one of {', '.join(DATA_SETS)}, or the path of a file or folder")
    known = str(name) in DATA_SETS
    check_choice("split", split, SPLITS)
    if size is not None:
        check_positive("size", size)
    if known:
        part = from_name(str(name), split, Path("data" if root is None else root))
    elif str(name).lower().endswith(".npz"):
        part = from_archive(Path(name), split)
    elif Path(name).is_dir():
        return from_folder(Path(name), split, size)
    else:
        raise ValueError(
            f"data: got {str(name)!r}, expected one of {', '.join(DATA_SETS)}, a path that ends in .npz, or a folder"
        )
    return part if size is None else Data(fitted(part.images, size), part.labels, part.name, part.class_names)
