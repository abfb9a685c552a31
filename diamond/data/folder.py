"""Folders of images, whose sub-folders are classes if they have any.

A file that is called like an image but cannot be read is skipped, and one warning counts such files and names the first
of them. They keep their place in the split, which thus does not depend on what can be read.
"""

from __future__ import annotations

import warnings

from collections.abc import Sequence
from pathlib import Path

import torch

from torch import Tensor
from torch.utils.data import Dataset

from ..validation import check_choice, check_positive
from .decoding import ENDINGS, Header, decoded, read_header
from .part import SPLITS, Data, rows_of
from .pixels import fitted, scaled

__all__ = ["ImageFolder", "from_folder"]

SHOWN = 5  # names of unreadable files in a warning


class ImageFolder(Dataset):
    """The images of a folder as a map-style Dataset, each decoded when it is asked for; only headers are read before.

    Items are images `(C, H, W)`, float32 in [-1, 1], or pairs (image, label) where sub-folders are classes, in the order
    of their names. C is 1 if every image is grey, and 3 otherwise.

    Arguments:
        path: the folder. Images stand in it, or in its sub-folders at any depth; what is hidden, other files, and
            sub-folders without images do not count.
        split: "train" or "held-out": nine tenths and one tenth of the files.
        size: crop the images' centres to squares, and resize these to `size` pixels a side; needed where the images
            are of several sizes.
        warn: whether to warn of files that were left out.

    Attributes:
        files: those of this part, in the order of their names.
        labels: their classes `(N,)`, or None.
        class_names: the names of the sub-folders.
        event_shape: the shape of one image.
        skipped: files that were left out.

    Raises:
        ValueError: fewer than two images, several sizes without `size`, or images both beside and in sub-folders.
    """

    def __init__(self, path: str | Path, *, split: str = "train", size: int | None = None, warn: bool = True) -> None:
        check_choice("split", split, SPLITS)
        self.path, self.size = Path(path), size if size is None else check_positive("size", size)
        files, self.class_names = _listed(self.path)
        self.split, self.count = split, len(files)
        headers = [read_header(file) for file in files]
        self.event_shape = self._shape_of([header for header in headers if header is not None])
        self.skipped = [file for file, header in zip(files, headers, strict=True) if header is None]
        rows = rows_of(len(files), split).tolist()
        self._keep([files[row] for row in rows if headers[row] is not None])
        if warn:
            self.warn_of_skipped(stacklevel=2)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        """The image, and its label if there are any.

        Raises:
            ValueError: the file cannot be decoded.
        """
        pixels = self.pixels(index)
        if pixels is None:
            raise ValueError(f"data: {self.files[index]} cannot be decoded, expected an image")
        return scaled(pixels) if self.labels is None else (scaled(pixels), int(self.labels[index]))

    def pixels(self, index: int) -> Tensor | None:
        """The image as bytes `(C, H, W)`, or None if the file cannot be decoded."""
        image = decoded(self.files[index], self.event_shape[0])
        return image if image is None or self.size is None else fitted(image, self.size)

    def warn_of_skipped(self, stacklevel: int = 2) -> None:
        """One warning for all files that were skipped, if any were."""
        if not self.skipped:
            return
        names = ", ".join(str(file.relative_to(self.path)) for file in self.skipped[:SHOWN])
        more = f" and {len(self.skipped) - SHOWN} more" if len(self.skipped) > SHOWN else ""
        warnings.warn(
            f"data: skipped {len(self.skipped)} of {self.count} files of the folder {self.path} that cannot be read: "
            f"{names}{more}",
            stacklevel=stacklevel + 1,
        )

    def read(self) -> Data:
        """All images in memory; those whose pixels cannot be decoded are skipped too.

        Raises:
            ValueError: none is left.
        """
        pixels = torch.empty(len(self), *self.event_shape, dtype=torch.uint8)
        bad: list[Path] = []
        good: list[Path] = []
        for index, file in enumerate(self.files):
            image = self.pixels(index)
            if image is None:
                bad.append(file)
            else:
                pixels[len(good)] = image
                good.append(file)
        self.skipped = sorted([*self.skipped, *bad])
        self._keep(good)
        return Data(scaled(pixels[: len(good)]), self.labels, str(self.path), self.class_names)

    def _keep(self, files: list[Path]) -> None:
        if not files:
            raise ValueError(
                f"data: none of the {self.split} images of the folder {self.path} can be read, expected one at least"
            )
        self.files, self.labels = files, None
        if self.class_names:
            numbers = {name: number for number, name in enumerate(self.class_names)}
            self.labels = torch.tensor([numbers[file.relative_to(self.path).parts[0]] for file in files])

    def _shape_of(self, headers: Sequence[Header]) -> tuple[int, int, int]:
        if len(headers) < 2:
            raise ValueError(
                f"data: of {self.count} files of the folder {self.path}, {len(headers)} can be read as images, expected 2 "
                "or more"
            )
        sides = {(header.height, header.width) for header in headers}
        if self.size is None and len(sides) > 1:
            low, high = ("x".join(map(str, end)) for end in (min(sides), max(sides)))
            raise ValueError(
                f"size: got None, but the images of {self.path} have {len(sides)} sizes, from {low} to {high} pixels; "
                "expected the size to crop and resize them to"
            )
        channels = 1 if all(header.grey for header in headers) else 3
        return (channels, *(sides.pop() if self.size is None else (self.size, self.size)))


def from_folder(path: Path, split: str, size: int | None) -> Data:
    """The images of a folder in memory, and their labels if it has sub-folders; arguments and errors as of
    :class:`ImageFolder`."""
    folder = ImageFolder(path, split=split, size=size, warn=False)
    try:
        return folder.read()
    finally:
        folder.warn_of_skipped(stacklevel=3)


def _listed(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The files that are called like images, in the order of their names, and the sub-folders that hold any."""
    if not path.is_dir():
        raise ValueError(f"data: got {str(path)!r}, expected a folder of images")
    files, depths = [], set()
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if file.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in parts) and file.is_file():
            files.append(file)
            depths.add(len(parts) > 1)
    if not files:
        raise ValueError(f"data: the folder {path} holds no images, expected files that end in {', '.join(ENDINGS)}")
    if len(depths) == 2:
        raise ValueError(
            f"data: the folder {path} holds images both beside its sub-folders and in them, expected all in sub-folders, "
            "which are classes, or none"
        )
    classes = {file.relative_to(path).parts[0] for file in files} if True in depths else set()
    return files, tuple(sorted(classes))
