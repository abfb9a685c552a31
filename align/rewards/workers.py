"""Who asks a judge: a thread for each call, or a child process for each worker.

A thread that is given up goes on until its call returns, and is waited for by nobody, not even at the program's end. A
process that is given up is terminated. Tensors and answers cross to the child as torch's own files, read back with
`weights_only`; only the judge itself is pickled, by name, on the way to the child.
"""

from __future__ import annotations

import io
import multiprocessing
import threading

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

from torch import Tensor

from ..answers import answer_of, checked_numbers

__all__ = ["ProcessWorker", "StartFailure", "ThreadWorker", "check_importable", "described"]

START_SECONDS = 120  # for a child to import torch and the judge
GRACE_SECONDS = 2  # for one to end


class AskError(RuntimeError):
    """What a judge raised in another process, in words."""


class StartFailure(RuntimeError):
    """A process that did not come up."""


def numbers(answer: Any, samples: Tensor) -> Tensor:
    """A judge's answer about samples `(n, *event)`, a tensor, list or array of n numbers, as a CPU tensor `(n,)`.

    Raises:
        ValueError: it is no such thing, or holds NaN or +inf.
    """
    if not isinstance(answer, Tensor):
        try:
            answer = torch.as_tensor(answer, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            came = type(answer).__name__
            raise ValueError(f"ask: it returned {came}, expected {len(samples)} numbers ({error})") from error
    return checked_numbers(answer.detach().cpu(), samples, "ask")


def described(error: BaseException) -> str:
    """An error in one sentence, with its kind where it is not said already."""
    return str(error) if isinstance(error, (AskError, StartFailure)) else f"{type(error).__name__}: {error}"


def answered(ask: Callable[..., Any], samples: Tensor, cond: Any, takes_cond: str) -> Tensor:
    """What the judge answers, checked."""
    return numbers(answer_of(ask, samples, cond=cond, how=takes_cond), samples)


class ThreadWorker:
    """Asks in a thread of this process, one call at a time.

    Attributes:
        thread: that of the last call.
        lost: never.
    """

    thread: threading.Thread
    lost = False

    def __init__(self, ask: Callable[..., Any], takes_cond: str) -> None:
        self.ask, self.takes_cond = ask, takes_cond

    def wait_until_ready(self) -> None:
        """Nothing to wait for."""

    def start(self, samples: Tensor, cond: Any) -> Future:
        """Asks about samples `(n, *event)`; the future holds their rewards `(n,)`, or what went wrong."""
        self.thread, future = _in_thread(lambda: answered(self.ask, samples, cond, self.takes_cond))
        return future

    def stop(self) -> None:
        """Lets go of a call that is still running."""


class ProcessWorker:
    """Asks in a child process, which starts at once and lives until it is stopped; one call at a time.

    Attributes:
        thread: that which waits for the last call.
        lost: whether a call found that the child has ended.
    """

    thread: threading.Thread

    def __init__(self, ask: Callable[..., Any], takes_cond: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, ask, takes_cond), daemon=True)
        self.process.start()
        self.ready = self.lost = False
        theirs.close()  # so that a child that ends is an end of file here

    def wait_until_ready(self) -> None:
        """Waits for the child's imports.

        Raises:
            StartFailure: it has ended, or takes two minutes.
        """
        with suppress(EOFError, OSError):
            if not self.ready and self.connection.poll(START_SECONDS):
                self.connection.recv_bytes()
                self.ready = True
        if self.ready:
            return
        self.stop()
        raise StartFailure(
            "ask: its process did not start, expected an importable callable, and a script that guards what it does "
            "with if __name__ == '__main__'"
        )

    def start(self, samples: Tensor, cond: Any) -> Future:
        """Asks about samples `(n, *event)`; the future holds their rewards `(n,)`, or what went wrong."""

        def call() -> Tensor:
            try:
                self.connection.send_bytes(_packed({"samples": samples, "cond": cond}))
                answer = _unpacked(self.connection.recv_bytes())
            except (EOFError, OSError):
                self.lost = True
                raise
            if "error" in answer:
                raise AskError(answer["error"])
            return answer["rewards"]

        self.thread, future = _in_thread(call)
        return future

    def stop(self) -> None:
        """Ends the child, if it has not ended by itself."""
        if self.lost:
            self.process.join(GRACE_SECONDS)
        self.process.terminate()
        self.process.join(GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def check_importable(ask: Callable[..., Any]) -> None:
    """Refuses a judge that no other process can import.

    Raises:
        ValueError: it is one.
    """
    try:
        ForkingPickler.dumps(ask)
    except Exception as error:
        raise ValueError(
            f"ask: got {getattr(ask, '__qualname__', type(ask).__name__)}, which another process cannot import, "
            f"expected a function or an object of a module for process=True ({error})"
        ) from error


def _in_thread(call: Callable[[], Tensor]) -> tuple[threading.Thread, Future]:
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # whatever it is, it is the future's to tell
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, future


def _serve(connection: Any, ask: Callable[..., Any], takes_cond: str) -> None:
    """The child's whole life."""
    connection.send_bytes(b"ready")
    while True:
        try:
            question = _unpacked(connection.recv_bytes())
        except (EOFError, KeyboardInterrupt):
            return
        try:
            reply: dict[str, Any] = {"rewards": answered(ask, question["samples"], question["cond"], takes_cond)}
        except Exception as error:
            reply = {"error": described(error)}
        connection.send_bytes(_packed(reply))


def _packed(content: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _unpacked(content: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(content), weights_only=True)
