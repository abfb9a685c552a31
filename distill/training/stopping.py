"""Steps that end whole: Ctrl-C, and a request to terminate, are held back until the one under way is done."""

from __future__ import annotations

import signal
import threading

from typing import Any

import torch

from accelerate import Accelerator

__all__ = ["Stopping"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 8  # steps between two moments at which processes agree to stop


class Stopping:
    """While this context is open, signals are noted, and :meth:`check` says whether one came to any of the processes.

    They all stop after the same step, for none could go on alone; several of them agree every eighth step. Only the main
    thread can note signals.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.came = False
        self.usual: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self.usual = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.usual.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def check(self, done: int) -> None:
        """Called on every process after `done` steps.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        stops = self.came
        if self.accelerator.num_processes > 1:
            if done % TOGETHER:
                return
            flag = torch.tensor([float(self.came)], device=self.accelerator.device)
            stops = bool(self.accelerator.reduce(flag, "sum") > 0)
        if stops:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: object) -> None:
        self.came = True
