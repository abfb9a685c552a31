"""The protocol that every model which `align` can drive satisfies, and what the models of this package share."""

from __future__ import annotations

import abc

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from torch import Tensor, nn

from .interpolant import Interpolant
from .randomness import Generator, normal
from .validation import as_times, check_positive, check_state, shared

__all__ = ["Model", "PosteriorSampler", "View", "fold_draws", "repeat_cond", "slice_cond"]


@runtime_checkable
class PosteriorSampler(Protocol):
    """A model of clean data `z` seen through noise, `x_t = alpha(t) z + sigma(t) eps`.

    Times are numbers or tensors `(B,)` in [0, 1], with 0 = noise and 1 = data; `cond` is passed to the network
    untouched and has leading dimension B; `generator` is what :mod:`diamond.randomness` says.
    """

    interpolant: Interpolant
    event_shape: tuple[int, ...]

    def prior(self, n: int, *, generator: Generator = None) -> Tensor:
        """`n` draws of the state at t = 0: `(n, *event)`."""

    def posterior(
        self, x_t: Tensor, t: Tensor | float, n: int = 1, *, cond: Any = None, generator: Generator = None
    ) -> Tensor:
        """`n` draws of `z` given each `x_t` `(B, *event)`: `(n, B, *event)`, differentiable in `x_t`."""

    def transition(
        self,
        x_t: Tensor,
        t: Tensor | float,
        t_next: Tensor | float,
        *,
        rho: Tensor | float | None = None,
        cond: Any = None,
        generator: Generator = None,
    ) -> Tensor:
        """A draw of `x_{t_next}` given each `x_t`, with correlation `rho` (DDPM's by default): `(B, *event)`."""

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The velocity of the probability-flow ODE: `(B, *event)`."""

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The posterior mean `E[z | x_t]`: `(B, *event)`."""


class Model(nn.Module, abc.ABC):
    """What the models of this package share: a path, an event shape, a Gaussian prior, and a count of evaluations.

    Attributes:
        interpolant: the path from noise to data.
        event_shape: the shape of one sample.
        nfe: network forward evaluations so far, counted per sample.
        metadata: anything about the model's making that is worth keeping in its file (JSON values).
    """

    def __init__(self, interpolant: Interpolant, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.interpolant = interpolant
        self.event_shape = tuple(int(size) for size in event_shape)
        self.nfe = 0
        self.metadata: dict = {}
        self.told_of_no_label = False  # by a warning, which comes once: see diamond.labels

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the parameters, and of the samples that start here."""
        return next((p.dtype for p in chain(self.parameters(), self.buffers()) if p.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in chain(self.parameters(), self.buffers())), torch.device("cpu"))

    def prior(self, n: int, *, generator: Generator = None) -> Tensor:
        """`n` standard normal states at t = 0, `(n, *event)`."""
        return normal((check_positive("n", n), *self.event_shape), generator, device=self.device, dtype=self.dtype)

    @abc.abstractmethod
    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The velocity of the probability-flow ODE: `(B, *event)`."""

    @abc.abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The posterior mean `E[z | x_t]`: `(B, *event)`."""

    def score(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The score `grad log p_t(x_t)`, `(B, *event)`; it diverges at t = 1 where data have no density."""
        check_state(x_t, self.event_shape)
        return self.interpolant.score_from_denoiser(x_t, as_times(t, x_t), self.denoise(x_t, t, cond=cond))

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes the model to one file, for :func:`diamond.load`: safetensors with the configuration in its header; its
        parameters rounded to `dtype`, where one is given.

        Raises:
            ValueError: the network or the interpolant is not one of this package, so that no file can describe it.
        """
        from .checkpoint import save

        save(self, path, dtype)


class View(Model):
    """A model that looks at another one, its attribute named `viewed`, and counts its evaluations there."""

    viewed: str

    @property
    def nfe(self) -> int:
        """Network forward evaluations of the model that this is a view of, counted per sample."""
        return getattr(self, self.viewed).nfe

    @nfe.setter
    def nfe(self, value: int) -> None:
        if hasattr(self, self.viewed):  # not yet when a model is made
            getattr(self, self.viewed).nfe = value


def fold_draws(tensor: Tensor, n: int) -> Tensor:
    """`(B, ...)` repeated for `n` draws: `(n * B, ...)`, draw-major. A number expanded over the batch stays one."""
    if shared(tensor) or tensor.shape == (1,):
        return tensor[:1].expand(n * len(tensor))
    return tensor if n == 1 else tensor.repeat(n, *[1] * (tensor.ndim - 1))


def map_cond(function: Callable[[Tensor], Any], cond: Any) -> Any:
    """Conditioning with `function` applied to each of its tensors: a tensor, a dictionary, tuple or list, or None. A list
    of strings is one text a row: what `function` makes of the row numbers is made of them."""
    if cond is None:
        return None
    if isinstance(cond, Tensor):
        return function(cond)
    if isinstance(cond, dict):
        return {key: map_cond(function, value) for key, value in cond.items()}
    if isinstance(cond, (tuple, list)) and cond and all(isinstance(text, str) for text in cond):
        rows = function(torch.arange(len(cond)))
        rows = rows.tolist() if isinstance(rows, Tensor) else rows
        return rows if rows is None else [cond[row] for row in rows]
    if isinstance(cond, (tuple, list)):
        mapped = [map_cond(function, value) for value in cond]
        return type(cond)(*mapped) if hasattr(cond, "_fields") else type(cond)(mapped)  # a tuple may have named fields
    advice = "; numbers make a tensor, like torch.tensor([7])" if isinstance(cond, (int, float)) else ""
    raise ValueError(
        f"cond: got {type(cond).__name__}, expected a tensor, texts, or a dict, tuple or list of them{advice}"
    )


def repeat_cond(cond: Any, n: int, *, interleave: bool = False) -> Any:
    """Conditioning `(B, ...)` for `n` draws of each row: `(n * B, ...)`, draw-major, or row-major with `interleave`."""
    if n == 1:
        return cond
    return map_cond(lambda c: c.repeat_interleave(n, dim=0) if interleave else fold_draws(c, n), cond)


def slice_cond(cond: Any, rows: slice) -> Any:
    """The rows `rows` of conditioning `(B, ...)`."""
    return map_cond(lambda c: c[rows], cond)
