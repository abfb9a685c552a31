"""Models that come with the package, each with a card that tells its data, recipe, seed and figures.

`diamond.load("digits")` reads one of them, without a network. A bare name, without a folder or an ending, that is one of
:func:`names` always means the model that ships; a file that is called the same is given as `./digits`, or by its whole
path where a `pathlib.Path` is wanted, which knows no difference between `digits` and `./digits`. The recipes that trained
them are in `examples/recipes`.
"""

from __future__ import annotations

import os

from importlib import resources
from pathlib import Path

__all__ = ["card", "locate", "names"]

ENDING = ".safetensors"


def names() -> tuple[str, ...]:
    """The names of the models that ship, in alphabetical order."""
    return tuple(sorted(file.name.removesuffix(ENDING) for file in _room().iterdir() if file.name.endswith(ENDING)))


def locate(path: str | Path) -> Path:
    """The file of the model that ships by the name `path`; if there is none, `path` itself."""
    name = os.fspath(path)
    return _room() / f"{name}{ENDING}" if name in names() else Path(path)


def card(name: str) -> str:
    """The card of the model that ships by this name, Markdown.

    Raises:
        ValueError: no such model ships.
    """
    if name not in names():
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(names())}")
    return (_room() / f"{name}.md").read_text(encoding="utf-8")


def _room() -> Path:
    return Path(str(resources.files(__name__)))
