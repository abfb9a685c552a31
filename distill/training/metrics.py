"""What a run tells of itself: one JSON object a line, means over the steps since the last line.

Nothing waits for the device between two lines: the terms of each step are kept where they are, and looked at together.
So a loss that is no longer finite is noticed at the end of its window, and yet told by its exact step; and no state is
saved before the steps that led to it have been looked at.
"""

from __future__ import annotations

import json
import math
import os
import time

from collections.abc import Sequence
from pathlib import Path

import torch

from accelerate import Accelerator
from torch import Tensor

__all__ = ["Metrics"]


class Metrics:
    """The means of a run's terms, over all of its processes.

    Arguments:
        path: the file, or None. Going on from step `first`, lines of later steps are removed.
        first: steps that lie behind.
        steps: steps in all.
        samples: samples of a step.
        accelerator: the processes; the main one writes.
    """

    def __init__(self, path: Path | None, first: int, steps: int, samples: int, accelerator: Accelerator) -> None:
        self.accelerator, self.steps, self.samples = accelerator, steps, samples
        self.names: tuple[str, ...] = ()
        self.pending: list[Tensor] = []
        self.settled = self.first = first
        self.sums, self.count = torch.zeros(()), 0
        rows = _cut(path, first) if path and accelerator.is_main_process else []
        self.file = path.open("a", encoding="utf-8") if path and accelerator.is_main_process else None
        self.began = self.last = time.perf_counter()
        self.before = rows[-1].get("seconds", 0.0) if rows else 0.0

    def add(self, names: Sequence[str], values: Tensor) -> None:
        """Takes the terms of one step, and last the norm of its gradient."""
        self.names = (*names, "gradient_norm")
        self.pending.append(values)

    def settle(self) -> None:
        """Looks at the steps since the last look; called on every process alike.

        Raises:
            FloatingPointError: the loss or its gradient was not finite at one of them.
        """
        if not self.pending:
            return
        table = self.accelerator.reduce(torch.stack(self.pending), "mean").double().cpu()
        bad = (~table.isfinite()).any(1).nonzero().flatten()
        if len(bad):
            row, step = table[bad[0]], self.settled + 1 + int(bad[0])
            loss, norm = float(row[:-1].sum()), float(row[-1])
            what = f"loss: got {loss:g}" if not math.isfinite(loss) else f"loss: got a gradient of norm {norm:g}"
            raise FloatingPointError(f"{what} at step {step}, expected a finite number")
        self.sums, self.count = self.sums + table.sum(0), self.count + len(table)
        self.settled += len(table)
        self.pending.clear()

    def write(self, rate: float) -> dict[str, float]:
        """The line of the steps since the last one; `rate` is the learning rate. Errors as in :meth:`settle`."""
        self.settle()
        now, step = time.perf_counter(), self.settled
        row = dict(zip(self.names, (self.sums / self.count).tolist(), strict=True))
        row["loss"] = sum(value for name, value in row.items() if name != "gradient_norm")
        spent = now - self.began
        row |= {"step": step, "learning_rate": rate, "seconds": self.before + spent}
        row["seconds_left"] = spent / (step - self.first) * (self.steps - step)
        row["samples_per_second"] = self.count * self.samples / (now - self.last)
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        self.sums, self.count, self.last = torch.zeros(()), 0, now
        return row

    def close(self) -> None:
        """Closes the file."""
        if self.file:
            self.file.close()


def _cut(path: Path, first: int) -> list[dict]:
    """Leaves the lines up to step `first` in the file, and returns them; what is no line of ours, as a half-written one,
    is left out."""
    rows: list[dict] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    for line in path.read_bytes().splitlines() if first and path.is_file() else ():
        try:
            row = json.loads(line)
            kept = row["step"] <= first
        except (ValueError, TypeError, KeyError):  # no JSON, no object, or one of another kind
            continue
        if kept:
            rows.append(row)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(draft, path)
    return rows
