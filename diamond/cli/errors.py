"""What the user sees of an error: one sentence on stderr and an exit code, no traceback.

Bad input (`ValueError`, files that are missing or closed to us, and packages that are not installed) ends with code 2,
numbers that ran away with 1, and Ctrl-C with 130. Anything else is a bug, and shows its traceback. A warning is one
sentence too.
"""

from __future__ import annotations

import warnings

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from typer.core import TyperGroup

__all__ = ["Door"]

CODES: dict[type[BaseException], int] = {
    ValueError: 2,
    OSError: 2,
    ImportError: 2,
    FloatingPointError: 1,
    KeyboardInterrupt: 130,
}


class Door(TyperGroup):
    """A group of commands whose errors and warnings are sentences. `--traceback` lets them through as they are."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            with _plain_warnings(not ctx.params.get("traceback")):
                return super().invoke(ctx)
        except tuple(CODES) as error:
            if isinstance(error, BrokenPipeError) or ctx.params.get("traceback"):
                raise
            typer.echo(_sentence(error), err=True)
            raise typer.Exit(next(code for kind, code in CODES.items() if isinstance(error, kind))) from error


@contextmanager
def _plain_warnings(plain: bool) -> Iterator[None]:
    """Prints warnings without the line of code that they came from; who records them sees no difference."""
    usual = warnings.formatwarning
    if plain:
        warnings.formatwarning = lambda message, *_, **__: f"Warning: {' '.join(str(message).split())}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return text or "interrupted"
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror.lower()}"
    return f"Error: {text or type(error).__name__}"
