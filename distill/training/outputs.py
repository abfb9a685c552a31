"""Where a run writes its model, checked before the first step."""

from __future__ import annotations

import json
import os

from pathlib import Path

from diamond.checkpoint import describe_model
from diamond.model import Model

from .schedule import Schedule

__all__ = ["checked_path"]


def checked_path(model: Model, out: str | Path | None, schedule: Schedule) -> Path | None:
    """Where to save, if what is asked for can be.

    Raises:
        ValueError: `out` is no name of a file, or no file can describe the model or hold its metadata; or there are further
            averages and no place for them.
    """
    if out is not None:
        if not isinstance(out, (str, os.PathLike)):
            raise ValueError(f"out: got {out!r}, expected the name of a file")
        if Path(out).is_dir():
            raise ValueError(f"out: got {str(out)!r}, which is a folder, expected the name of a file")
        describe_model(model)
        try:
            json.dumps(model.metadata)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metadata: {error}, expected JSON values") from error
        return Path(out)
    if len(schedule.decays) > 1:
        raise ValueError(f"ema: got {schedule.ema} without out, beside which the further averages would be saved")
    return None
