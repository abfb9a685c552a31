"""Training by the clock: how many steps fit into a time, and an end when it is up."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

from collections.abc import Callable
from pathlib import Path

__all__ = ["Deadline", "planned_steps"]

BLOCK = 8  # steps of one preparation of trajectories: whole blocks cost what they will
TRIED, TIMED = 3 * BLOCK, 2 * BLOCK  # steps of a trial, and those at its end that are timed
SHARE = 0.9  # of the time is planned for, as a machine may slow down


def planned_steps(plan: Path, seconds: float, trial: Callable[[int, int], float]) -> int:
    """The number of steps that fit into `seconds`; kept in the file `plan`, so that an interrupted run goes on with as many
    as it began with.

    `trial(steps, timed)` takes some steps and gives the seconds that the last of them took. Whatever else a trial spends
    its time on, like compiling networks, the run itself will spend once more.
    """
    if plan.is_file():
        return int(json.loads(plan.read_text(encoding="utf-8"))["steps"])
    began = time.perf_counter()
    each = trial(TRIED, TIMED) / TIMED
    spent = time.perf_counter() - began
    left = SHARE * seconds - spent - max(0.0, spent - TRIED * each)
    steps = max(BLOCK, int(left / each) // BLOCK * BLOCK)
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps({"steps": steps, "seconds": seconds, "seconds_per_step": each}) + "\n", encoding="utf-8")
    return steps


class Deadline:
    """While this context is open and when its time is up, the main thread is interrupted as by Ctrl-C: training ends its
    step and leaves a state.

    Attributes:
        passed: whether that happened.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        os.kill(os.getpid(), signal.SIGINT)
