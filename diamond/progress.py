"""Progress bars: in a terminal or a notebook each state takes the place of the one before; in a log file all of them stay."""

from __future__ import annotations

import sys

from collections.abc import Iterable
from typing import Any

__all__ = ["progress_bar", "redrawn"]

OFTEN, SELDOM = 0.1, 10.0  # seconds between two states of a bar, where it is redrawn and where not


def redrawn() -> bool:
    """Whether a bar replaces what it showed before, which it does not where standard error is a file, or closed."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """A bar of tqdm's over `items`, or one moved by hand, with `options` of tqdm's; where its states stay, one each ten
    seconds."""
    from tqdm.auto import tqdm  # which complains in notebooks that lack its widget

    return tqdm(items, dynamic_ncols=True, mininterval=OFTEN if redrawn() else SELDOM, **options)
