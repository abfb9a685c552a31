"""One population over several processes.

Each process moves and scores its own members, with noise of its own. What couples them is global: weights are gathered,
ancestors are drawn from all members by a generator that every process holds in the same state, and a member whose
ancestor lives elsewhere receives it. So the law of the result, and its evidence, are those of one population of all
members together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch import Tensor

__all__ = ["Processes"]

GeneratorOrMany = torch.Generator | Sequence[torch.Generator]


class Processes:
    """The processes of an accelerator, or this one alone.

    Arguments:
        accelerator: an `accelerate.Accelerator`, or None.

    Attributes:
        count, index: how many there are, and which this is.
    """

    def __init__(self, accelerator: Any = None) -> None:
        self.count = 1 if accelerator is None else accelerator.num_processes
        self.index = 0 if accelerator is None else accelerator.process_index
        self.device = torch.device("cpu") if accelerator is None else accelerator.device

    def share(self, size: int) -> int:
        """How many of `size` members each process holds.

        Raises:
            ValueError: they cannot be shared equally.
        """
        if size % self.count:
            raise ValueError(f"particles: got {size} for {self.count} processes, expected a multiple of these")
        return size // self.count

    def split(self, generator: GeneratorOrMany) -> tuple[GeneratorOrMany, GeneratorOrMany]:
        """From the first process's generator, or one a population: one of this process alone, and one that all share."""
        if self.count == 1:
            return generator, generator
        many = [generator] if isinstance(generator, torch.Generator) else generator
        seeds = torch.stack([torch.randint(2**62, (2,), generator=g, device=g.device).cpu() for g in many])
        from accelerate.utils import broadcast

        seeds = broadcast(seeds.to(self.device)).tolist()
        own = [torch.Generator(g.device).manual_seed(pair[0] + self.index) for g, pair in zip(many, seeds, strict=True)]
        shared = [torch.Generator(g.device).manual_seed(pair[1]) for g, pair in zip(many, seeds, strict=True)]
        return (own[0], shared[0]) if isinstance(generator, torch.Generator) else (own, shared)

    def gather(self, x: Tensor, dim: int = 0) -> Tensor:
        """Every process's `x`, joined along `dim` in the order of the processes."""
        if self.count == 1:
            return x
        from accelerate.utils import gather

        return gather(x.movedim(dim, 0).contiguous()).movedim(0, dim)

    def sum(self, number: int) -> int:
        """The sum of every process's number."""
        if self.count == 1:
            return number
        return int(self.gather(torch.tensor([number], device=self.device)).sum())
