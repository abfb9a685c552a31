"""What is to be seen of a run while it lasts: a bar, lines of metrics, trackers, and pictures of samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import Tensor

from diamond.progress import progress_bar, redrawn
from diamond.validation import check_positive

from .averages import Averages
from .metrics import Metrics
from .samples import SampleGrid
from .schedule import Schedule
from .trackers import Trackers

__all__ = ["Reports", "Wishes"]


@dataclass(frozen=True)
class Wishes:
    """What to report, and how often: see :func:`distill.training.trainer.train`.

    Raises:
        ValueError: a number that does not fit, or pictures without a place.
    """

    path: Path | None
    description: str
    progress: bool
    log_every: int
    log_with: str | GeneralTracker | Sequence[str | GeneralTracker] | None
    sample_every: int | None

    def __post_init__(self) -> None:
        check_positive("log_every", self.log_every)
        if self.sample_every is not None:
            check_positive("sample_every", self.sample_every)
            if self.path is None:
                raise ValueError(
                    f"sample_every: got {self.sample_every} without out, beside which the pictures would stand"
                )


class Reports:
    """The reports of one run, from step `first` on."""

    def __init__(
        self,
        wishes: Wishes,
        schedule: Schedule,
        averages: Averages,
        classes: int,
        settings: dict[str, Any],
        accelerator: Accelerator,
    ) -> None:
        self.wishes, self.schedule, self.averages, self.accelerator = wishes, schedule, averages, accelerator
        path, main = wishes.path, accelerator.is_main_process
        self.grid = SampleGrid(Path(f"{path}.samples"), averages.model, classes) if wishes.sample_every else None
        if not main:
            self.grid = None
        self.trackers = Trackers(wishes.log_with, wishes.description, Path(f"{path or 'train'}.logs"), settings)
        self.stack = ExitStack()
        self.stack.callback(self.trackers.close)

    def start(self, first: int) -> None:
        """Opens what is written to, going on from `first` steps."""
        path, schedule = self.wishes.path, self.schedule
        file = Path(f"{path}.metrics.jsonl") if path else None
        self.metrics = Metrics(file, first, schedule.steps, schedule.batch, self.accelerator)
        self.stack.callback(self.metrics.close)
        self.bar = progress_bar(
            total=schedule.steps, initial=first, desc=self.wishes.description, unit="step",
            disable=not (self.wishes.progress and self.accelerator.is_local_main_process),
        )  # fmt: skip
        self.stack.callback(self.bar.close)

    def add(self, done: int, names: Sequence[str], values: Tensor) -> None:
        """Takes the terms of the step that made `done` of them.

        Raises:
            FloatingPointError: the loss or its gradient was not finite at a step since the last line.
        """
        self.metrics.add(names, values)
        self.bar.update()
        ended = done == self.schedule.steps
        if done % self.wishes.log_every == 0 or ended:
            row = self.metrics.write(self.schedule.rate(done - 1))
            self.trackers.log(row)
            self.bar.set_postfix(
                loss=f"{row['loss']:.4f}", samples_per_s=f"{row['samples_per_second']:.0f}", refresh=redrawn()
            )
        if self.grid and (done % (self.wishes.sample_every or 1) == 0 or ended):
            with self.averages.applied():
                self.grid.write(done)

    def close(self) -> None:
        """Closes everything."""
        self.stack.close()
