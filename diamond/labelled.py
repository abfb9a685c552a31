"""A conditional model with its labels filled in, for computations that know of none."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .model import Model

__all__ = ["Labelled"]


class Labelled(Model):
    """`model` on states whose B rows have the classes `labels` `(B,)`.

    A call on n * B rows, draw-major as :func:`diamond.model.fold_draws` lays them, repeats the labels n times.
    """

    labels: Tensor

    def __init__(self, model: Any, labels: Tensor) -> None:
        super().__init__(model.interpolant, model.event_shape)
        self.model: Any = model
        self.register_buffer("labels", labels)
        self.metadata = model.metadata

    def _cond(self, x: Tensor) -> Tensor:
        copies, rest = divmod(len(x), len(self.labels))
        if rest:
            raise ValueError(f"x_t: got {len(x)} states, expected a multiple of the {len(self.labels)} labelled ones")
        return self.labels.repeat(copies)

    def posterior(self, x_t: Tensor, t: Tensor | float, n: int = 1, *, cond: None = None, **more: Any) -> Tensor:
        """Draws `(n, B, *event)` of the model, given the labels."""
        return self.model.posterior(x_t, t, n, cond=self._cond(x_t), **more)

    def transition(
        self, x_t: Tensor, t: Tensor | float, t_next: Tensor | float, *, cond: None = None, **more: Any
    ) -> Tensor:
        """A transition `(B, *event)` of the model, given the labels."""
        return self.model.transition(x_t, t, t_next, cond=self._cond(x_t), **more)

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: None = None) -> Tensor:
        """The velocity `(B, *event)` of the model, given the labels."""
        return self.model.velocity(x_t, t, cond=self._cond(x_t))

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: None = None) -> Tensor:
        """The posterior mean `(B, *event)` of the model, given the labels."""
        return self.model.denoise(x_t, t, cond=self._cond(x_t))
