"""Which processes train together, and which share of a batch is whose."""

from __future__ import annotations

import os

import torch

from accelerate import Accelerator

from .schedule import Schedule

__all__ = ["joined", "shares"]


def joined(accelerator: Accelerator | None = None) -> Accelerator:
    """The accelerator that all launched processes share; made here by default, on the CPU where there is nothing else.

    Raises:
        ValueError: it knows of fewer processes than were launched together, or accumulates gradients on its own account.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator is None:  # without being told, accelerate does not join processes on a CPU
        accelerator = Accelerator(cpu=launched > 1 and not torch.accelerator.is_available())
    if accelerator.num_processes != launched and launched > 1:
        raise ValueError(
            f"accelerator: got one of {accelerator.num_processes} processes, but {launched} were launched together; on a "
            "CPU, expected Accelerator(cpu=True)"
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"accelerator: got gradient_accumulation_steps={accelerator.gradient_accumulation_steps}, expected 1, with "
            "the schedule's accumulate in its place"
        )
    return accelerator


def shares(schedule: Schedule, accelerator: Accelerator) -> tuple[int, range]:
    """Into how many equal parts a batch is shared out, and which of them are this process's.

    Raises:
        ValueError: the parts cannot be equal.
    """
    each, processes = schedule.accumulate, accelerator.num_processes
    if schedule.batch % (each * processes):
        raise ValueError(
            f"batch: got {schedule.batch}, expected a multiple of {each * processes}: accumulate={each}, and "
            f"{processes} processes"
        )
    first = accelerator.process_index * each
    return each * processes, range(first, first + each)
