"""Training that the user may stop: where it goes on from, what Ctrl-C leaves, and how it ended."""

from __future__ import annotations

import glob
import json
import os
import time

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from .outputs import say_wrote

__all__ = ["resumable"]


@contextmanager
def resumable(out: Path, resume: bool) -> Iterator[None]:
    """Surrounds training that writes `out`: says which state it goes on from, and what it wrote where; the first of
    several processes speaks for all.

    Raises:
        KeyboardInterrupt: as it came, with a sentence on the state that was saved.
    """
    speaks = os.environ.get("RANK", "0") == "0"
    began = time.time()
    state, metrics = Path(f"{out}.state"), Path(f"{out}.metrics.jsonl")
    if resume and speaks and state.is_file():
        from diamond.checkpoint import read_header

        with suppress(ValueError):  # a file that is no state is the trainer's to refuse
            typer.echo(f"found {state}, left at step {read_header(state).get('step')}")
    try:
        yield
    except KeyboardInterrupt:
        if not state.is_file():
            raise
        again = "the same command goes on from it" if resume else "the same command without --no-resume goes on from it"
        raise KeyboardInterrupt(f"interrupted; a resumable state was saved in {state}: {again}") from None
    if not speaks:
        return
    last = _last_line(metrics)
    if last:
        typer.echo(f"trained {last['step']:g} steps, loss {last['loss']:.4g}")
    beside = out.parent.glob(f"{glob.escape(out.stem)}.ema-*{glob.escape(out.suffix)}")
    averages = sorted(path for path in beside if path.stat().st_mtime >= began)
    pictures = Path(f"{out}.samples")
    say_wrote(out, *averages, metrics, *[pictures] if pictures.is_dir() else [])


def _last_line(metrics: Path) -> dict[str, float]:
    try:
        return json.loads(metrics.read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, IndexError, json.JSONDecodeError):
        return {}
