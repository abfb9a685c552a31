"""Metrics that go to TensorBoard or Weights & Biases as well, through accelerate's trackers."""

from __future__ import annotations

import importlib.util

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from diamond.validation import check_choice

__all__ = ["Trackers"]

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}


class Trackers:
    """Some trackers, told alike; each of them writes on the main process only.

    Arguments:
        wanted: "tensorboard", "wandb", a tracker of accelerate's kind, several of these, or None.
        name: the run's name.
        folder: where those that write files write them.
        settings: what the run was made with, told once.

    Raises:
        ValueError: an unknown name, or one whose package is not installed.
    """

    def __init__(
        self,
        wanted: str | GeneralTracker | Sequence[str | GeneralTracker] | None,
        name: str,
        folder: Path,
        settings: dict[str, Any],
    ) -> None:
        several = wanted if isinstance(wanted, (list, tuple)) else [] if wanted is None else [wanted]
        self.trackers = [one if isinstance(one, GeneralTracker) else _made(one, name, folder) for one in several]
        for tracker in self.trackers:
            getattr(tracker, "start", bool)()  # earlier versions of accelerate start at once
            tracker.store_init_configuration({key: _plain(value) for key, value in settings.items()})

    def log(self, row: dict[str, float]) -> None:
        """Passes a line of metrics on."""
        for tracker in self.trackers:
            tracker.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))

    def close(self) -> None:
        """Ends what was started."""
        for tracker in self.trackers:
            tracker.finish()


def _made(kind: Any, name: str, folder: Path) -> GeneralTracker:
    packages = PACKAGES[check_choice("log_with", kind, PACKAGES)]
    if not any(importlib.util.find_spec(package) for package in packages):
        raise ValueError(f"log_with: got {kind!r}, which is not installed; `pip install {packages[0]}` adds it")
    maker: Any = LOGGER_TYPE_TO_CLASS[kind]
    return maker(name, logging_dir=folder) if maker.requires_logging_directory else maker(name)


def _plain(value: Any) -> bool | str | float | int | None:
    return value if value is None or isinstance(value, (bool, str, float, int)) else str(value)
