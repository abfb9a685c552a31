"""A reward that someone else gives: a service, a simulator, a program, a person.

The samples are cut into micro-batches, a few of which are out at any time; one that fails or takes too long is asked
about again after a pause, which doubles each time. What was answered is kept, whatever becomes of the rest.
"""

from __future__ import annotations

import heapq
import math
import time
import weakref

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import torch

from torch import Tensor

from diamond.model import map_cond, slice_cond
from diamond.validation import check_number, check_positive

from ..scoring import RewardFailure, Scorer
from .composition import RewardModule
from .workers import ProcessWorker, StartFailure, ThreadWorker, check_importable, described

__all__ = ["External"]


class External(RewardModule):
    """What `ask(samples)` or `ask(samples, cond)` answers, in its own range. Black-box: it has no derivative.

    The rewards stand in the order of the samples, and depend neither on `batch` nor on `workers` if the judge answers
    for each sample by itself.

    Arguments:
        ask: gets a CPU tensor `(n, *event)`, float32 or float64, and rows of `cond` if it takes them; returns n numbers
            in a tensor, a list or an array. Called from several threads at once with `workers` above 1.
        batch: the most samples in a call, all by default.
        timeout: seconds for one call, no limit by default.
        retries: further tries for a call that raised an error, took too long or gave no n numbers.
        workers: the most calls at once.
        process: asks in child processes, one a worker, instead of threads: a call that takes too long is then ended, not
            only left alone. `ask` must be importable, as must the main module without doing anything.
        pause: seconds before the first retry; each further one waits twice as long.

    Raises:
        ValueError: an argument that does not fit.
        RewardFailure: when called, a micro-batch failed at every try; its `rewards` `(N,)` are those that were
            answered, and NaN. Nothing more is asked then, but what is out already is waited for.
    """

    def __init__(
        self,
        ask: Callable[..., Any],
        *,
        batch: int | None = None,
        timeout: float | None = None,
        retries: int = 2,
        workers: int = 1,
        process: bool = False,
        pause: float = 0.1,
    ) -> None:
        super().__init__()
        if not callable(ask):
            raise ValueError(f"ask: got {type(ask).__name__}, expected a callable ask(samples) -> n numbers")
        if batch is not None:
            check_positive("batch", batch)
        if timeout is not None:
            check_number("timeout", timeout, "seconds above 0, or None", lambda seconds: seconds > 0)
        check_number("pause", pause, "seconds from 0", lambda seconds: 0 <= seconds < math.inf)
        check_positive("workers", workers), check_positive("retries", retries, 0)
        if process:
            check_importable(ask)
        # in the scorer even a module is none of this one's: it stays on the CPU
        self._ask = Scorer(ask)
        self.batch, self.timeout, self.retries = batch, timeout, retries
        self.workers, self.process, self.pause = workers, process, pause
        self._idle: list[Any] = []
        weakref.finalize(self, _stop_all, self._idle)

    @torch.no_grad()
    def forward(self, z: Tensor, cond: Any = None) -> Tensor:
        samples = z.detach().to("cpu", torch.float64 if z.dtype == torch.float64 else torch.float32)
        rows = map_cond(lambda c: c.detach().cpu(), cond) if self._ask.takes_cond else None
        size = self.batch or max(len(z), 1)
        calls = [_Call(slice(start, min(start + size, len(z)))) for start in range(0, len(z), size)]
        rewards = samples.new_full((len(z),), math.nan)
        cause = self._ask_all(calls, samples, rows, rewards)
        if cause is not None:
            raise RewardFailure(
                f"reward: {int(rewards.isnan().sum())} of {len(z)} samples have no answer, the last try of "
                f"{self.retries + 1} failed with {described(cause)}",
                rewards.to(z.device),
            ) from cause
        return rewards.to(z.device)

    def close(self) -> None:
        """Ends the child processes, which otherwise wait for the next call; they come back when they are needed."""
        _stop_all(self._idle)

    def _ask_all(self, waiting: list[_Call], samples: Tensor, cond: Any, rewards: Tensor) -> BaseException | None:
        """Fills `rewards` in, and gives back why they are not complete, or None. `waiting` is a heap of what is due."""
        out: dict[Future, _Call] = {}
        cause: BaseException | None = None
        try:
            while out or (waiting and cause is None):
                due = _due(waiting, self.workers - len(out) if cause is None else 0)
                try:
                    self._make_ready(len(due))
                except StartFailure as failure:
                    cause, due = failure, []
                for call in due:
                    out[call.start(self._idle.pop(), samples, cond, self.timeout)] = call
                _sleep(out, waiting[:1] if len(out) < self.workers and cause is None else [])
                for future, call in list(out.items()):
                    if not future.done() and time.monotonic() < call.due:
                        continue
                    del out[future]
                    error = self._error(future, call)
                    if error is None:
                        rewards[call.rows] = future.result()
                    elif call.tries > self.retries:
                        cause = cause or error
                    else:
                        call.due = time.monotonic() + self.pause * 2 ** (call.tries - 1)
                        heapq.heappush(waiting, call)
        finally:
            _stop_all([call.worker for call in out.values()])
        return cause

    def _make_ready(self, count: int) -> None:
        """Has at least `count` workers at leisure: those that there are, and new ones."""
        kind = ProcessWorker if self.process else ThreadWorker
        while len(self._idle) < count:
            self._idle.append(kind(self._ask.reward, self._ask.takes_cond))
        try:
            for worker in self._idle[-count:]:
                worker.wait_until_ready()
        except StartFailure:
            self.close()
            raise

    def _error(self, future: Future, call: _Call) -> BaseException | None:
        """What went wrong with a call that is over, or too late; its worker is at leisure again, or gone."""
        late = not future.done()
        if not late:
            call.worker.thread.join()  # one that outlived the answer could meet the end of the program
        if not late and not call.worker.lost:
            self._idle.append(call.worker)
            return future.exception()
        call.worker.stop()
        if late:
            return TimeoutError(f"it took longer than {self.timeout:g} seconds")
        return ChildProcessError(f"its process ended with exit code {call.worker.process.exitcode}")


@dataclass(eq=False)
class _Call:
    """A micro-batch: its rows, how often it was asked about, when it is due to be asked about or to be answered."""

    rows: slice
    tries: int = 0
    due: float = 0.0
    worker: Any = None

    def __lt__(self, other: _Call) -> bool:
        return (self.due, self.rows.start) < (other.due, other.rows.start)

    def start(self, worker: Any, samples: Tensor, cond: Any, timeout: float | None) -> Future:
        self.worker, self.tries = worker, self.tries + 1
        self.due = math.inf if timeout is None else time.monotonic() + timeout
        # a copy: a judge that works in place changes nothing but its own
        return worker.start(samples[self.rows].clone(), slice_cond(cond, self.rows))


def _due(waiting: list[_Call], most: int) -> list[_Call]:
    """Takes off the heap what is to be asked about now."""
    due: list[_Call] = []
    while len(due) < most and waiting and waiting[0].due <= time.monotonic():
        due.append(heapq.heappop(waiting))
    return due


def _sleep(out: dict[Future, _Call], waiting: list[_Call]) -> None:
    """Until a call that is out is over or too late, or one that waits is due."""
    due = min((call.due for call in (*out.values(), *waiting)), default=0.0)
    seconds = None if due == math.inf else max(due - time.monotonic(), 0.0)
    if out:
        wait(out, seconds, FIRST_COMPLETED)
    else:
        time.sleep(seconds or 0.0)


def _stop_all(workers: list[Any]) -> None:
    while workers:
        workers.pop().stop()
