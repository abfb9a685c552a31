"""What a run costs: evaluations and reward calls, each counted once.

Models count their own evaluations, rewards their own calls. An account notes where the counts stand when it is opened.
A view of a model (:class:`diamond.model.View`) counts on what it looks at, so that a flow that is met twice, as the model
and in a value function, is counted once.
"""

from __future__ import annotations

import time

from typing import Any

from diamond.model import View

from .scoring import Scorer

__all__ = ["Account"]


class Account:
    """The cost of a run of `model` with a reward, and with whatever else counts.

    Arguments:
        model: its evaluations count.
        scorer: its calls count.
        besides: a value function: so do those of its model and its own calls, where it counts them.

    Attributes:
        backward: evaluations that an algorithm has differentiated through.
    """

    def __init__(self, model: Any, scorer: Scorer, besides: Any = None) -> None:
        self.backward = 0
        self._models: dict[int, tuple[Any, int]] = {}
        self._askers: dict[int, tuple[Any, int]] = {id(scorer): (scorer, scorer.calls)}
        self._guides: dict[int, tuple[Any, int]] = {}
        self._open(model)
        self._guided = bool(self._guides)
        self._open(besides)
        self._open(getattr(besides, "model", None))
        self._began = time.perf_counter()

    def _open(self, counter: Any) -> None:
        spent, source, guided = getattr(counter, "nfe", None), counter, False
        while True:
            if hasattr(source, "nfe_backward") and not guided:  # the outermost: it goes through what is inside
                guided = True
                self._guides.setdefault(id(source), (source, source.nfe_backward))
            if hasattr(source, "calls"):  # of a reward of its own
                self._askers.setdefault(id(source), (source, source.calls))
            if not isinstance(source, View):
                break
            source = getattr(source, source.viewed)
        if spent is not None:
            self._models.setdefault(id(source), (counter, spent))

    @property
    def counts(self) -> bool:
        """Whether any model counts its evaluations."""
        return bool(self._models)

    def evaluations(self) -> int:
        """Network forward evaluations so far."""
        return sum(model.nfe - before for model, before in self._models.values())

    def differentiated(self) -> int:
        """Of these, those that were differentiated through, each once."""
        within = sum(guide.nfe_backward - before for guide, before in self._guides.values())
        # a model that counts these itself has counted what gradients of the value went through
        return within if self._guided else within + self.backward

    def calls(self) -> int:
        """Samples scored so far."""
        return sum(asker.calls - before for asker, before in self._askers.values())

    def seconds(self) -> float:
        """Wall-clock time since the account was opened."""
        return time.perf_counter() - self._began
