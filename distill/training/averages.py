r"""Moving averages of the weights, of several decays at once.

.. math:: \bar\theta_k = \beta_k \bar\theta_{k-1} + (1 - \beta_k) \theta_k, \qquad
          \beta_k = \min\left(\beta, \frac{1 + k}{10 + k}\right), \qquad \bar\theta_0 = \theta_0 .

Which decay is best is known only after training, and differs from one measure to the next; a second average costs next
to nothing, so that the choice can wait: a run with `ema=(0.999, 0.99)` saves the first in `map.ckpt` and the second in
`map.ema-0.99.ckpt`, and :func:`choose_average` keeps the better one.

References:
    | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2023),
      https://arxiv.org/abs/2312.02696, section 3 (choosing the average after training)
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from torch import Tensor

from diamond.checkpoint import load
from diamond.model import Model

__all__ = ["Averages", "average_path", "choose_average"]


class Averages:
    """Averages of a model's parameters, one a decay. Its buffers are not averaged."""

    def __init__(self, model: Model, decays: Sequence[float]) -> None:
        self.model, self.decays = model, tuple(decays)
        self.names = [name for name, _ in model.named_parameters()]
        self.current: list[Tensor] = [*model.parameters()]  # themselves: what stores them may change
        self.values = [[parameter.detach().clone() for parameter in self.current] for _ in self.decays]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the averages towards the weights that step `step`, counted from 0, has led to."""
        for decay, values in zip(self.decays, self.values, strict=True):
            kept = min(decay, (1 + step) / (10 + step)) if step else 0.0
            torch._foreach_lerp_(values, self.current, 1 - kept)

    @contextmanager
    def applied(self, index: int = 0) -> Iterator[Model]:
        """The model with an average for its weights, in evaluation mode; its own come back at the end."""
        own, training = [parameter.detach().clone() for parameter in self.current], self.model.training
        self._write(self.values[index])
        self.model.eval()
        try:
            yield self.model
        finally:
            self._write(own)
            self.model.train(training)

    def apply(self, index: int = 0) -> None:
        """Makes an average the model's weights for good."""
        self._write(self.values[index])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by index and name."""
        return {
            f"{i}.{name}": value
            for i, values in enumerate(self.values)
            for name, value in zip(self.names, values, strict=True)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what :meth:`state_dict` gave."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.current, list(values))


def average_path(out: str | Path, decay: float) -> Path:
    """Where the average of a further decay stands beside the file `out`: `map.ema-0.99.ckpt` beside `map.ckpt`."""
    out = Path(out)
    decay = decay if isinstance(decay, int) else float(decay)  # a number of numpy's is written otherwise
    return out.with_name(f"{out.stem}.ema-{decay!r}{out.suffix}")


def choose_average(out: str | Path, decays: Sequence[float], score: Callable[[Any], float]) -> tuple[float | None, Any]:
    """Makes the best of the averages that stand beside `out` the model in `out`.

    Arguments:
        out: the file that training wrote.
        decays: those of the further averages, all but the first.
        score: what a model is worth, larger is better.

    Returns:
        The decay of the best average, None where it is the one that `out` held already, and its model.

    Raises:
        FileNotFoundError: an average is missing.
        ValueError: a score is not a number.
    """
    best: tuple[float, float | None, Any] | None = None
    for decay in (None, *decays):
        model = load(out if decay is None else average_path(out, decay))
        worth = float(score(model))
        if math.isnan(worth):
            raise ValueError(f"score: got NaN for the average of decay {decay}, expected a number")
        if best is None or worth > best[0]:
            best = worth, decay, model
    assert best is not None
    if best[1] is not None:
        best[2].save(out)
    return best[1:]
