"""What an interrupted run goes on from: one safetensors file with a JSON header.

It holds the weights, their averages, the optimiser's moments, the weights of the loss where it has some, and the
settings of the run. A state is written beside its place, brought to the disk, and moved there: at every moment the file
that is found is whole, whether the process is killed, the machine loses power or the disk fills up.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil

from pathlib import Path
from typing import Any

import torch

from torch import Tensor, nn

from diamond.checkpoint import read_tensors, write_tensors

from .averages import Averages

__all__ = ["StateFile"]

ANEW = "remove it, or give --no-resume (resume=False), to start anew"


class StateFile:
    """The state of a run, on disk.

    Arguments:
        path: the file of the latest state, `NAME.state`; older ones stand beside it as `NAME.STEP.state`.
        modules: what is trained, by name.
        averages, optimizer: of the same.
        settings: what a run must have in common with one that it resumes, as JSON values.
        further: likewise, but for what a state of an earlier version does not tell.
        keep: how many states to keep.
    """

    def __init__(
        self,
        path: Path,
        modules: dict[str, nn.Module],
        averages: Averages,
        optimizer: torch.optim.Optimizer,
        settings: dict[str, Any],
        further: dict[str, Any] | None = None,
        keep: int = 1,
    ) -> None:
        self.path, self.modules, self.averages, self.optimizer = path, modules, averages, optimizer
        # tuples become lists, as in a file
        self.told: dict[str, Any] = json.loads(json.dumps({"settings": settings, "further": further or {}}))
        self.keep = keep
        self.step: int | None = None  # of the state on disk

    def save(self, step: int) -> None:
        """Writes the state after `step` steps.

        Raises:
            OSError: it cannot be written; the one before it is kept.
        """
        if step == self.step:
            return
        tensors = {f"average.{name}": value for name, value in self.averages.state_dict().items()}
        for kind, module in self.modules.items():
            tensors |= {f"{kind}.{name}": value for name, value in module.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
        beside = self.path.with_name(f"{self.path.name}.next")
        try:
            write_tensors(beside, tensors, {"kind": "training state", "step": step, **self.told})
            self._set_aside()
            os.replace(beside, self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            kept = "no state was saved before" if self.step is None else f"the state of step {self.step} is kept"
            raise OSError(error.errno, f"{error.strerror}; {kept}", str(self.path)) from error
        _to_disk(self.path.parent)
        self.step = step
        self._prune()

    def load(self) -> int:
        """Restores what was saved and returns the step to go on from; 0 where there is no file.

        Raises:
            ValueError: the file is not whole, or belongs to another network or other settings, whose difference is told.
        """
        for draft in self.path.parent.glob(f".{glob.escape(self.path.name)}.next.*.draft"):
            draft.unlink(missing_ok=True)  # of a process that was killed
        self.path.with_name(f"{self.path.name}.next").unlink(missing_ok=True)
        if not self.path.exists():
            return 0
        try:
            tensors, header = read_tensors(self.path)
        except ValueError as error:
            raise ValueError(f"{error}; {ANEW}") from error
        self._check_settings(header)
        parts: dict[str, dict[str, Tensor]] = {"average": {}, "optimizer": {}, **{kind: {} for kind in self.modules}}
        for name, value in tensors.items():
            part, rest = name.split(".", 1)
            parts.setdefault(part, {})[rest] = value
        try:
            for kind, module in self.modules.items():
                module.load_state_dict(parts[kind])
            self.averages.load_state_dict(parts["average"])
        except (RuntimeError, KeyError) as error:
            raise ValueError(
                f"{self.path}: it holds a run of another network, expected one of this model; {ANEW}"
            ) from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, field = name.split(".", 1)
            moments.setdefault(int(i), {})[field] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.step = int(header["step"])
        return self.step

    def remove(self) -> None:
        """Removes all states, once the run has come to its end."""
        for path in (self.path, *self._older().values()):
            path.unlink(missing_ok=True)

    def _check_settings(self, header: dict[str, Any]) -> None:
        if header.get("kind") != "training state":
            raise ValueError(f"{self.path}: it is a {header.get('kind')}, expected a training state; {ANEW}")
        for group, mine in self.told.items():
            found, expected = _flat(header.get(group, mine)), _flat(mine)
            differing = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
            if differing:
                there, here = (", ".join(f"{n}={side.get(n)!r}" for n in differing) for side in (found, expected))
                raise ValueError(f"{self.path}: it holds a run with {there}, expected {here}; {ANEW}")

    def _set_aside(self) -> None:
        """Gives the state that is about to be replaced a second name, where it is to be kept."""
        if self.keep == 1 or self.step is None:
            return
        aside = self.path.with_name(f"{self._stem()}{self.step}.state")
        aside.unlink(missing_ok=True)
        try:
            os.link(self.path, aside)
        except OSError:  # a file system without links
            shutil.copyfile(self.path, aside)

    def _prune(self) -> None:
        """Removes the states set aside but for the latest, and those of later steps, which another run has left."""
        older = self._older()
        kept = [step for step in sorted(older) if step < (self.step or 0)][::-1][: self.keep - 1]
        for step, path in older.items():
            if step not in kept:
                path.unlink(missing_ok=True)

    def _older(self) -> dict[int, Path]:
        """The states set aside, by step."""
        pattern = re.compile(re.escape(self._stem()) + r"(\d+)\.state")
        found = {pattern.fullmatch(path.name): path for path in self.path.parent.glob("*.state")}
        return {int(match[1]): path for match, path in found.items() if match}

    def _stem(self) -> str:
        return self.path.name.removesuffix("state")


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _to_disk(folder: Path) -> None:
    """Waits until what a folder holds has reached the disk, where the system can tell."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # folders cannot be opened everywhere
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
