r"""One training loop, for teachers and maps alike, on any number of processes.

**A step** looks at `batch` samples, whatever the number of processes. They are drawn from a generator seeded with
`(seed, step)`, and shared out into equal parts: a process has `accumulate` of them, one after the other. Whatever else
is random in a part comes from a generator seeded with `(seed, step, part)`. The gradient is the mean of the parts', hence
that of the batch; two processes take the very steps that one process takes in two parts.

**Going on.** A step is a function of the weights, the optimiser's state and its number alone. A run that was killed and
resumed from its state file therefore ends with bitwise the weights of a run that was not: see :mod:`distill.training.state`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import Tensor, nn

from diamond.model import Model, slice_cond
from diamond.validation import check_positive

from ..fingerprints import described
from ..objectives import Objective
from .averages import Averages, average_path
from .batches import Batches
from .muon import Muon, matrices_of
from .outputs import checked_path
from .precision import compiled_networks, half_precision, networks_of, precision_of
from .processes import joined, shares
from .reports import Reports, Wishes
from .schedule import Schedule
from .state import StateFile
from .stopping import Stopping

__all__ = ["Schedule", "train"]

AnyModel = TypeVar("AnyModel", bound=Model)


def train(
    model: AnyModel,
    objective: Objective,
    batches: Batches,
    schedule: Schedule,
    *,
    out: str | Path | None = None,
    resume: bool = True,
    save_every: int = 1000,
    keep: int = 1,
    log_every: int = 50,
    log_with: str | GeneralTracker | Sequence[str | GeneralTracker] | None = None,
    sample_every: int | None = None,
    compiled: bool = False,
    progress: bool = True,
    description: str = "train",
    accelerator: Accelerator | None = None,
) -> AnyModel:
    """Minimises `objective` and returns `model` with the moving average of its weights, in evaluation mode.

    Arguments:
        model: what is trained, in place.
        objective: gives the terms by name, scalars, whose sum is minimised: see :mod:`distill.objectives`.
        batches: where `z` and `cond` come from.
        schedule: how long and how fast.
        out: the file to save the model in. Beside it stand `NAME.metrics.jsonl`, one object a line, and `NAME.state`,
            from which an interrupted run goes on; the latter is removed when the model is saved. Averages of further
            decays are saved where :func:`distill.training.averages.average_path` says.
        resume: whether to go on from a state file that is there.
        save_every, log_every: steps between two states, and between two lines of metrics.
        keep: how many states to keep while the run lasts, older ones as `NAME.STEP.state`.
        log_with: where metrics go besides: "tensorboard" (the folder `NAME.logs`), "wandb", or trackers of accelerate's.
        sample_every: steps between two pictures of samples of the average, in the folder `NAME.samples`; None for none.
        compiled: whether `torch.compile` takes on the networks, the teacher's among them. On a CPU it gains little or
            nothing, and it begins with minutes of work.
        progress: whether to show a bar.
        description: the bar's label.
        accelerator: devices and processes; made here by default.

    Raises:
        ValueError: the state file belongs to other settings, or another network; no file can describe the model; or an
            option cannot be used.
        KeyboardInterrupt: at the end of the step in which Ctrl-C or a request to terminate came, with a state saved.
        FloatingPointError: the loss or its gradient is not finite; the last state is kept.
        OSError: a state or the model cannot be written; the last state is kept.
    """
    for name, value in {"save_every": save_every, "keep": keep}.items():
        check_positive(name, value)
    accelerator = joined(accelerator)
    path = checked_path(model, out, schedule)
    wishes = Wishes(path, description, progress, log_every, log_with, sample_every)
    run = _Run(model, objective, batches, schedule, accelerator)
    state = run.state_file(Path(f"{path}.state"), keep) if path else None
    reports = Reports(wishes, schedule, run.averages, batches.classes, run.settings, accelerator)
    with ExitStack() as stack:
        stack.callback(reports.close)
        first = state.load() if state and resume else 0
        run.start(first, compiled, stack)
        reports.start(first)
        stopping = stack.enter_context(Stopping(accelerator))
        _loop(run, range(first, schedule.steps), reports, stopping, state, save_every)
    run.finish(path if accelerator.is_main_process else None)
    if state and accelerator.is_main_process:
        state.remove()
    accelerator.wait_for_everyone()
    return model


def _loop(
    run: _Run, steps: range, reports: Reports, stopping: Stopping, state: StateFile | None, save_every: int
) -> None:
    def save() -> None:
        reports.metrics.settle()  # no state of a loss that is not finite
        if state and run.accelerator.is_main_process:
            state.save(done)

    done = steps.start
    try:
        for step in steps:
            terms = run.step(step)
            done = step + 1
            reports.add(done, *terms)
            if done % save_every == 0 and done < steps.stop:
                save()
            stopping.check(done)
    except KeyboardInterrupt:
        save()
        raise
    except FloatingPointError as error:
        kept = f"; the state of step {state.step} is kept in {state.path}" if state and state.step else ""
        raise FloatingPointError(f"{error}{kept}") from None


class _Step(nn.Module):
    """The loss as a module around the model, so that a wrapper for many processes sees one forward call."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective, self.weighting = model, objective, getattr(objective, "module", None)

    def forward(self, prepared: Any, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.autocast(generator.device.type, enabled=False):  # accelerate's would span the losses
            return self.objective(self.model, prepared, generator)


class _Run:
    """What a run moves from step to step."""

    def __init__(
        self, model: Model, objective: Objective, batches: Batches, schedule: Schedule, accelerator: Accelerator
    ) -> None:
        self.model, self.objective, self.batches, self.schedule = model, objective, batches, schedule
        self.accelerator, self.device = accelerator, accelerator.device
        self.precision = precision_of(schedule.precision, accelerator)
        self.parts, self.own = shares(schedule, accelerator)
        self.module: nn.Module = _Step(model, objective).to(self.device)
        model.train()
        self.parameters = list(self.module.parameters())
        self.averages = Averages(model, schedule.decays)
        self.optimizer: Any = self._optimizer()
        self.generator = torch.Generator(self.device)
        self.prepared: list[Any] = []

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must have in common with one that it resumes."""
        plan = {**asdict(self.schedule), "precision": self.precision}
        plan["processes * accumulate"] = plan.pop("accumulate") * self.accelerator.num_processes
        return {**plan, "objective": self.objective.settings, "data": self.batches.settings}

    def _optimizer(self) -> torch.optim.Optimizer:
        options: dict[str, Any] = {
            "lr": self.schedule.learning_rate, "betas": (0.9, 0.99), "weight_decay": 0.0,
            "fused": self.device.type in ("cpu", "cuda"),
        }  # fmt: skip
        if self.schedule.optimizer == "adamw":
            return torch.optim.AdamW(self.parameters, **options)
        matrices = matrices_of(self.model)
        known = {id(matrix) for matrix in matrices}
        return Muon(matrices, [other for other in self.parameters if id(other) not in known], **options)

    def state_file(self, path: Path, keep: int) -> StateFile:
        """Where this run's state goes."""
        weighting = getattr(self.objective, "module", None)
        modules = {"model": self.model} | ({"objective": weighting} if weighting is not None else {})
        source = getattr(self.objective, "source", None)
        further: dict[str, Any] = {
            "model": described(self.model),
            "teacher": None if source is None else described(source),
        }
        if self.batches.streamed:
            further["workers"] = self.batches.workers  # among whom a stream may share itself out
        return StateFile(path, modules, self.averages, self.optimizer, self.settings, further, keep)

    def start(self, first: int, compiled: bool, stack: ExitStack) -> None:
        """Makes ready for step `first`; what must be undone at the end goes on the stack."""
        self.module, self.optimizer = self.accelerator.prepare(self.module, self.optimizer)
        teacher, reuse = getattr(self.objective, "teacher", None), self.objective.reuse
        if isinstance(teacher, Model) and teacher.device != self.device:
            stack.callback(teacher.to, teacher.device)
            teacher.to(self.device)
        networks = networks_of(self.model, teacher)
        if self.precision == "bf16":
            stack.enter_context(half_precision(networks, self.device.type))
        if compiled:
            stack.enter_context(compiled_networks(networks))
        blocks = range(first // reuse, -(-self.schedule.steps // reuse))
        size = self.schedule.batch // self.parts
        rows = slice(self.own.start * size, self.own.stop * size)
        self.drawn = self.batches.sequence(
            self.schedule.batch, rows, lambda block: self.schedule.seed_of(-1 - block * reuse, -1), blocks
        )

    def step(self, step: int) -> tuple[list[str], Tensor]:
        """Takes a step; returns the names of the terms, and their values with the norm of the gradient at the end."""
        if not self.prepared or step % self.objective.reuse == 0:
            self._prepare(step - step % self.objective.reuse)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(step)
        self.optimizer.zero_grad()
        names: list[str] = []
        parts: list[Tensor] = []
        for part, prepared in zip(self.own, self.prepared, strict=True):
            self.generator.manual_seed(self.schedule.seed_of(step, part))
            last = part == self.own[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                terms = self.module(prepared, self.generator)
                names, values = list(terms), torch.stack(list(terms.values())) / len(self.own)
                self.accelerator.backward(values.sum())
            parts.append(values.detach())
        norm = nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip, foreach=True)
        self.optimizer.step()
        self.averages.update(step)
        return names, torch.cat([torch.stack(parts).sum(0), norm.detach().reshape(1)])

    def _prepare(self, opened: int) -> None:
        """Draws and prepares the parts for the block of steps from `opened` on: a run resumed inside one prepares the
        same."""
        z, cond = next(self.drawn)
        z, cond = self._moved(z).to(self.model.dtype), None if cond is None else self._moved(cond)
        size = self.schedule.batch // self.parts
        self.prepared = []
        for i, part in enumerate(self.own):
            rows = slice(i * size, (i + 1) * size)
            self.generator.manual_seed(self.schedule.seed_of(-1 - opened, part))
            self.prepared.append(self.objective.prepare(self.model, z[rows], slice_cond(cond, rows), self.generator))

    def _moved(self, values: Tensor) -> Tensor:
        """Values of a batch where the model is; a GPU fetches them while the last step's work still goes on."""
        if self.device.type == "cuda" and values.device.type == "cpu":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)

    def finish(self, path: Path | None) -> None:
        """Leaves the first average in the model, and saves all of them."""
        self.model.eval()
        self.model.nfe = 0
        for index in reversed(range(len(self.schedule.decays))):
            self.averages.apply(index)
            if path is not None:
                self.model.save(average_path(path, self.schedule.decays[index]) if index else path)
