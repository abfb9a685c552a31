"""One training by the clock, and what it leaves.

A stage that was killed goes on where it was; one whose time is up saves the moving average of the weights as they are, and
goes on from there when it is started again.
"""

from __future__ import annotations

import json
import time

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from torch import Tensor

import diamond

from diamond.checkpoint import read_tensors

from .budget import Deadline, planned_steps

__all__ = ["Run", "Stage", "machine"]


@dataclass(frozen=True)
class Run:
    """Where and how long a recipe runs.

    Attributes:
        out: the folder of the models, their plans, states and metrics.
        seconds: for all stages together.
        steps: of the teacher, of the map and of the rounds that refine it; None, and for rounds left out, as many as fit.
        seed: of everything random.
        progress: whether to show bars.
    """

    out: Path
    seconds: float
    steps: tuple[int | None, ...] = (None, None)
    seed: int = 0
    progress: bool = True


@dataclass(frozen=True)
class Stage:
    """One training, and what it leaves in `NAME.ckpt`.

    Attributes:
        name: of the file.
        train: trains a model, given `steps`, `metadata`, `out` and `progress`.
        empty: makes such a model with any weights.
        metadata: what the file notes.
    """

    name: str
    train: Callable[..., Any]
    empty: Callable[[], Any]
    metadata: dict[str, Any]

    def model(self, run: Run, seconds: float, steps: int | None, settled: bool = False) -> Any:
        """The model, trained in `steps` steps, or in as many as fit into the time; or read, if it is there and `settled`,
        or trained to the end."""
        out, began = run.out / f"{self.name}.ckpt", time.perf_counter()
        state = Path(f"{out}.state")
        if out.is_file() and (settled or not state.is_file()):
            return self._timed(diamond.load(out), out)
        limit: Any = nullcontext()
        if steps is None:
            steps = planned_steps(out.with_suffix(".plan.json"), seconds, self._tried)
            limit = Deadline(max(1.0, seconds - (time.perf_counter() - began)))
        try:
            with limit:
                model = self.train(steps=steps, out=out, metadata=self.metadata, progress=run.progress)
        except KeyboardInterrupt:
            if not getattr(limit, "passed", False):
                raise
            if not state.is_file() and not out.is_file():
                raise SystemExit(f"{self.name}: time is up before its first step; give more --minutes") from None
            model = self._salvaged(state) if state.is_file() else diamond.load(out)
        return self._timed(model, out)

    def _tried(self, steps: int, timed: int) -> float:
        """Trains a model for some steps, and gives the seconds that the last of them took."""
        with TemporaryDirectory() as folder:
            out = Path(folder) / f"{self.name}.ckpt"
            self.train(steps=steps, out=out, progress=False, log_every=steps - timed)
            return _seconds_of(out) - _seconds_of(out, 0)

    def _timed(self, model: Any, out: Path) -> Any:
        """The model in `out`, which notes how long it took and where, even if a kill came before that was written."""
        if "minutes" not in model.metadata:
            model.metadata |= {"minutes": round(_seconds_of(out) / 60, 1), "machine": machine()}
            model.save(out)
        return diamond.load(out)

    def _salvaged(self, state: Path) -> Any:
        """A model with the first moving average in the state of a run whose time is up."""
        tensors, header = read_tensors(state)
        weights: dict[str, Tensor] = {}
        for start in ("model.", "average.0."):
            weights |= {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        model, settings = self.empty(), header["settings"]
        model.load_state_dict(weights)
        done = {"steps": header["step"], "planned_steps": settings["steps"], "seed": settings["seed"]}
        model.metadata = {**self.metadata, **done}
        print(f"{self.name}: time is up after {header['step']} of {settings['steps']} steps", flush=True)
        return model


def _seconds_of(out: Path, line: int = -1) -> float:
    """How long a model was trained, over all starts, as a line of its metrics tells; 0 where time was up before the first."""
    rows = Path(f"{out}.metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(rows[line])["seconds"] if rows else 0.0


def machine() -> str:
    """What kind of machine this is, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}"
