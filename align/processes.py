"""One population over several processes.

Each process moves and scores its own members, with noise of its own. What couples them is global: weights are gathered,
ancestors are drawn from all members by a generator that every process holds in the same state, and a member whose
ancestor lives elsewhere receives it. So the law of the result, and its evidence, are those of one population of all
members together.

Whatever the processes exchange they gather, at meetings that all of them attend in the same order. Each tells first
whether it is well and what it brings. So an error in one process is raised in all of them instead of leaving the others
waiting, and calls that differ between processes are refused.
"""

from __future__ import annotations

import functools
import zlib

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch

from torch import Tensor

__all__ = ["ProcessFailure", "Processes", "failing_together"]

GeneratorOrMany = torch.Generator | Sequence[torch.Generator]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LETTERS = 400  # bytes of an error's sentence that reach the other processes


class ProcessFailure(RuntimeError):
    """An algorithm that could not go on in this process because of another one."""


class Processes:
    """The processes of an accelerator, or this one alone.

    Arguments:
        accelerator: an `accelerate.Accelerator`, or None.

    Attributes:
        count, index: how many there are, and which this is.
        device: where they exchange tensors.

    Raises:
        ValueError: it is neither of these.
    """

    def __init__(self, accelerator: Any = None) -> None:
        if accelerator is not None and not hasattr(accelerator, "num_processes"):
            raise ValueError(
                f"accelerator: got {type(accelerator).__name__}, expected an accelerate.Accelerator, or None"
            )
        self.count = 1 if accelerator is None else accelerator.num_processes
        self.index = 0 if accelerator is None else accelerator.process_index
        self.device = torch.device("cpu") if accelerator is None else accelerator.device

    def share(self, size: int) -> int:
        """How many of `size` members each process holds.

        Raises:
            ValueError: they cannot be shared equally.
        """
        if size % self.count:
            raise ValueError(
                f"accelerator: got {self.count} processes for {size} particles, expected a number of processes that "
                "divides these"
            )
        return size // self.count

    def split(self, generator: GeneratorOrMany) -> tuple[GeneratorOrMany, GeneratorOrMany]:
        """From the first process's generator, or one a population: one of this process alone, where the generator
        lives, and one that all share, on the CPU. What the others' generators hold does not matter.

        Raises:
            ProcessFailure: see :meth:`gather`.
        """
        if self.count == 1:
            return generator, generator
        many = [generator] if isinstance(generator, torch.Generator) else generator
        drawn = torch.stack([torch.randint(2**62, (2,), generator=g, device=g.device).cpu() for g in many])
        seeds = self.gather(drawn[None])[0].tolist()
        own = [torch.Generator(g.device).manual_seed(pair[0] + self.index) for g, pair in zip(many, seeds, strict=True)]
        shared = [torch.Generator().manual_seed(pair[1]) for pair in seeds]
        return (own[0], shared[0]) if isinstance(generator, torch.Generator) else (own, shared)

    def gather(self, x: Tensor, dim: int = 0) -> Tensor:
        """Every process's `x`, joined along `dim` in the order of the processes.

        Raises:
            ProcessFailure: another process failed or is gone, or brings a tensor of another shape or number type.
        """
        if self.count == 1:
            return x
        self._meet(f"{x.dtype} of shape {tuple(x.shape)}")
        return self._exchange(x.movedim(dim, 0)).movedim(0, dim).contiguous()

    def sum(self, number: int) -> int:
        """The sum of every process's number; errors as in :meth:`gather`."""
        return number if self.count == 1 else int(self.gather(torch.tensor([number])).sum())

    def most(self, number: float) -> float:
        """The largest of every process's number; errors as in :meth:`gather`."""
        return number if self.count == 1 else float(self.gather(torch.tensor([number], dtype=torch.float64)).max())

    def announce(self, error: Exception) -> None:
        """Tells the others, at their next meeting, of an error that this process is about to raise."""
        if self.count == 1:
            return
        try:
            self._meet("an error", f"{type(error).__name__}: {error}")
        except ProcessFailure:  # they are gone themselves
            pass

    def _meet(self, brought: str, error: str | None = None) -> None:
        status = torch.tensor([[error is not None, zlib.crc32(brought.encode())]], dtype=torch.int64)
        failed, kinds = self._exchange(status).T.tolist()
        if any(failed):
            letters = (error or "").encode()[:LETTERS].ljust(LETTERS)
            sentences = self._exchange(torch.tensor([list(letters)], dtype=torch.uint8)).tolist()
            if error is None:
                first = failed.index(1)
                told = bytes(sentences[first]).decode(errors="ignore").strip()
                raise ProcessFailure(f"accelerator: process {first} of {self.count} failed with {told}")
        elif len(set(kinds)) > 1:
            raise ProcessFailure(
                f"accelerator: process {self.index} of {self.count} brought {brought}, another one something else, "
                "expected the same call with the same arguments in each of them"
            )

    def _exchange(self, x: Tensor) -> Tensor:
        from accelerate.utils import gather

        try:
            return gather(x.to(self.device).contiguous()).to(x.device)
        except RuntimeError as error:
            raise ProcessFailure(f"accelerator: process {self.index} of {self.count} lost another one") from error


def failing_together(algorithm: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """An algorithm with a keyword `accelerator` whose error in one process is raised in all of them: there as it is, and
    as a :class:`ProcessFailure` where the algorithm waits for that process."""

    @functools.wraps(algorithm)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        processes = Processes(options.get("accelerator"))
        try:
            return algorithm(*arguments, **options)
        except ProcessFailure:
            raise
        except Exception as error:
            processes.announce(error)
            raise

    return run
