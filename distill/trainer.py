r"""One training loop, for teachers and maps alike.

Everything random in step `k` comes from a generator seeded with `(seed, k, process)`, so that the step is a function
of the weights, the optimiser's state and `k` alone. A run that was killed and resumed from its state file therefore
ends with bitwise the weights of a run that was not.

The state file is safetensors with a JSON header; like every file here it is written beside its place and moved there,
so that what is found is always whole.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from diamond.checkpoint import describe_model, read_tensors, write_tensors
from diamond.model import Model
from diamond.validation import check_positive

from .batches import Batches
from .objectives import Objective

__all__ = ["Schedule", "train"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        batch: samples per step and process.
        learning_rate: AdamW's, after a linear warm-up of `warmup` steps, falling to zero by a half cosine.
        ema: decay of the moving average of the weights, which is what training returns; it is smaller at first,
            (1 + k) / (10 + k) at step k.
        clip: largest norm of the gradient.
        seed: of everything random.
    """

    steps: int
    batch: int = 256
    learning_rate: float = 1e-3
    warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            check_positive(name, getattr(self, name))
        check_positive("warmup", self.warmup, least=0)
        if not (self.learning_rate > 0 and self.clip > 0):
            raise ValueError(f"learning_rate, clip: got {self.learning_rate}, {self.clip}, expected positive numbers")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: got {self.ema}, expected a decay in [0, 1)")

    def rate(self, step: int) -> float:
        """The learning rate of step `step`."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class _Step(nn.Module):
    """The loss as a module around the model, so that a wrapper for many processes sees one forward call."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, prepared: Any, generator: torch.Generator) -> dict[str, Tensor]:
        return self.objective(self.model, prepared, generator)


def train(
    model: Model,
    objective: Objective,
    batches: Batches,
    schedule: Schedule,
    *,
    out: str | Path | None = None,
    resume: bool = True,
    save_every: int = 1000,
    log_every: int = 50,
    progress: bool = True,
    description: str = "train",
    accelerator: Accelerator | None = None,
) -> Model:
    """Minimises `objective` and returns `model` with the moving average of its weights, in evaluation mode.

    Arguments:
        model: what is trained, in place.
        objective: gives the terms by name, scalars, whose sum is minimised: see :mod:`distill.objectives`.
        batches: where `z` and `cond` come from.
        schedule: how long and how fast.
        out: the file to save the model in. Beside it stand `NAME.metrics.jsonl`, one object a line, and `NAME.state`,
            from which an interrupted run goes on; the latter is removed when the model is saved.
        resume: whether to go on from a state file that is there.
        save_every, log_every: steps between two states, and between two lines of metrics.
        progress: whether to show a bar.
        description: the bar's label.
        accelerator: where and in which precision to train; made here by default.

    Raises:
        ValueError: the state file belongs to other settings, or another network; or no file can describe the model.
        KeyboardInterrupt: at the end of the step in which Ctrl-C came, with a state saved.
        FloatingPointError: the loss is not finite; the last state is kept.
    """
    if out is not None:
        describe_model(model)  # refuses now what could not be saved then
    accelerator = accelerator or Accelerator()
    model.train()
    step_module = _Step(model, objective).to(accelerator.device)
    average = AveragedModel(model, multi_avg_fn=_ema(schedule.ema))
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    step_module, optimizer = accelerator.prepare(step_module, optimizer)
    settings = {**asdict(schedule), "objective": objective.settings, "data": batches.settings}
    state = None if out is None else _StateFile(Path(f"{out}.state"), model, average, optimizer, settings)
    first = state.load() if state and resume else 0
    metrics = _Metrics(None if out is None else Path(f"{out}.metrics.jsonl"), first, accelerator.is_main_process)
    generator = torch.Generator(accelerator.device)
    bar = tqdm(
        total=schedule.steps, initial=first, desc=description, unit="step", dynamic_ncols=True,
        disable=not (progress and accelerator.is_local_main_process),
    )  # fmt: skip
    prepared, done = None, first
    try:
        for step in _until_interrupted(range(first, schedule.steps)):
            if prepared is None or step % objective.reuse == 0:
                # seeded by the step that opens the block: a run resumed inside one prepares the same
                opened = step - step % objective.reuse
                generator.manual_seed(_seed(schedule.seed, -1 - opened, accelerator.process_index))
                prepared = objective.prepare(model, *batches.draw(schedule.batch, generator), generator)
            generator.manual_seed(_seed(schedule.seed, step, accelerator.process_index))
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            terms = step_module(prepared, generator)
            total = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad()
            accelerator.backward(total)
            norm = accelerator.clip_grad_norm_(model.parameters(), schedule.clip)
            optimizer.step()
            average.update_parameters(model)
            done = step + 1
            bar.update()
            metrics.add(terms, norm)
            if done % log_every == 0 or done == schedule.steps:
                samples = schedule.batch * accelerator.num_processes
                shown = metrics.write(done, schedule.rate(step), samples)
                bar.set_postfix(loss=f"{shown['loss']:.4f}", samples_per_s=f"{shown['samples_per_second']:.0f}")
            if state and accelerator.is_main_process and done % save_every == 0 and done < schedule.steps:
                state.save(done)
    except KeyboardInterrupt:
        if state and accelerator.is_main_process:
            state.save(done)
        raise
    finally:
        bar.close()
        metrics.close()
    model.load_state_dict(average.module.state_dict())
    model.nfe = 0
    model.eval()
    if state and out is not None and accelerator.is_main_process:
        model.save(out)
        state.path.unlink(missing_ok=True)
    return model


def _until_interrupted(steps: range) -> Iterator[int]:
    """The steps, with Ctrl-C held back until the one under way has ended: no half step is ever saved."""
    if threading.current_thread() is not threading.main_thread():
        yield from steps
        return
    came: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        for step in steps:
            yield step
            if came:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, usual)


def _seed(seed: int, step: int, process: int) -> int:
    """A seed for each (run, step, process); the multipliers are odd, so that no two small triples meet."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + process * 0x8CB92BA72F3D8DD7) % 2**63


def _ema(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        for average, weight in zip(averages, current, strict=True):
            average.lerp_(weight, 1 - kept)

    return update


class _Metrics:
    """Means over the steps since the last line, written as JSON lines."""

    def __init__(self, path: Path | None, step: int, writes: bool) -> None:
        if path and writes:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a" if step else "w") if path and writes else None
        self.began = self.last = time.perf_counter()
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: dict[str, Tensor], norm: Tensor) -> None:
        for name, value in {**terms, "gradient_norm": norm}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.count += 1

    def write(self, step: int, rate: float, batch: int) -> dict[str, float]:
        now = time.perf_counter()
        row = {name: float(value) / self.count for name, value in self.sums.items()}
        row["loss"] = sum(value for name, value in row.items() if name != "gradient_norm")
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(f"loss: got {row['loss']} near step {step}, expected a finite number")
        row |= {"step": step, "learning_rate": rate, "seconds": now - self.began}
        row["samples_per_second"] = self.count * batch / (now - self.last)
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        self.sums, self.count, self.last = {}, 0, now
        return row

    def close(self) -> None:
        if self.file:
            self.file.close()


class _StateFile:
    """Weights, their average and the optimiser's moments, in one safetensors file."""

    def __init__(self, path: Path, model: Model, average: AveragedModel, optimizer: Any, settings: dict) -> None:
        self.path, self.model, self.average, self.optimizer = path, model, average, optimizer
        self.settings = settings

    def save(self, step: int) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
        write_tensors(self.path, tensors, {"kind": "training state", "step": step, "settings": self.settings})

    def load(self) -> int:
        """Restores what was saved and returns the step to go on from; 0 where there is no file."""
        if not self.path.exists():
            return 0
        tensors, header = read_tensors(self.path)
        if header.get("kind") != "training state" or header["settings"] != self.settings:
            raise ValueError(
                f"{self.path}: it holds a run with settings {header.get('settings')}, expected {self.settings}; "
                "remove it to start anew"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, rest = name.split(".", 1)
            parts[part][rest] = value
        try:
            self.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            raise ValueError(
                f"{self.path}: it holds a run of another network, expected one of this model; remove it to start anew"
            ) from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, field = name.split(".", 1)
            moments.setdefault(int(i), {})[field] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        return int(header["step"])
