"""Where a command writes: checked before the work starts, whole at its end."""

from __future__ import annotations

import json
import math
import os

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

__all__ = ["check_file", "check_folder", "drafted", "say_wrote", "write_json"]


def check_file(path: Path, name: str = "out", *inputs: Path) -> Path:
    """`path`, if a file can be written there that is none of `inputs`. Nothing is made yet.

    Raises:
        ValueError: it is a folder or an input, or lies in a place that is no folder or closed to us.
    """
    if path.is_dir():
        raise ValueError(f"{name}: got {str(path)!r}, which is a folder, expected the name of a file")
    if any(path.resolve() == other.resolve() for other in inputs):
        raise ValueError(f"{name}: got {str(path)!r}, which is an input of this command, expected another file")
    _check_place(path.parent, name, path)
    return path


def check_folder(path: Path, name: str = "out") -> Path:
    """`path`, if it is a folder to write in, or can be made. Nothing is made yet.

    Raises:
        ValueError: it is a file, or lies in a place that is no folder or closed to us.
    """
    _check_place(path, name, path)
    return path


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A place beside `path` to write at. What stands there at the end becomes `path` at once; after an error nothing is
    left of it, and `path` is as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON, whole or not at all; numbers that JSON has not (infinities) become null."""
    with drafted(path) as draft:
        draft.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def say_wrote(*paths: Path) -> None:
    """Prints where the outputs are, one a line."""
    for path in paths:
        typer.echo(f"wrote {path}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_place(folder: Path, name: str, given: Path) -> None:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"{name}: got {str(given)!r}, but {str(place)!r} is a file, expected a folder there")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{name}: got {str(given)!r}, but the folder {str(place)!r} is closed to writing")
