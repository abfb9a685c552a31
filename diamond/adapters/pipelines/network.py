r"""The network of a text-to-image pipeline as a velocity on latents.

Here, and nowhere else, is decided for all families of pipelines: time (theirs counts noise down, ours data up:
:mod:`diamond.adapters.diffusers_path`), the prompts, classifier-free guidance, number types and micro-batches. A family
says only how a prompt is embedded, how its network is asked, and which noise levels its own sampler visits.

**Prompts** are embedded once, when the model is made; conditioning is the *number* of a prompt, `(B,)`, like a class
label, so that particles never carry copies of embeddings.

**Guidance.** With a scale `w > 1` the network is asked with the prompt and without, in one call,
:math:`F = F_- + w (F_+ - F_-)`; it is affine in the velocity, so guiding the output guides the velocity. Networks that
were trained on their guidance (Flux, Sana-Sprint, latent consistency models) are told the scale instead.

**Number types.** States are float32 throughout, the network computes in its own type, and what it returns is float32
again. Its weights are frozen: gradients are those of states, kept in range where the network computes in float16
(:mod:`~diamond.adapters.pipelines.half_gradients`).
"""

from __future__ import annotations

import abc
import functools
import inspect
import math

from collections.abc import Sequence
from typing import Any

import torch

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...interpolant import Linear, per_sample
from ...nets import Network
from ...validation import check_positive
from ..diffusers_path import TrainedPath
from .encoding import check_embeddings, check_encoding, one_each
from .half_gradients import HalfGradients

__all__ = ["LatentNetwork"]


class LatentNetwork(Network, abc.ABC):
    """A pipeline's network with its prompts. A subclass is a family: it defines `_shape`, `_embed`, `_ask` and `_grid`.

    Arguments:
        pipe: the pipeline, which stays as it is but for its weights being frozen. Its own offloading is respected.
        prompts: one or more.
        negative_prompts: as many, or one for all; used where there is classifier-free guidance.
        guidance_scale: None for the pipeline's usual one.
        height, width: of the images, in pixels; the pipeline's usual ones by default.
        chunk: rows of states in one call of the network, all at once by default.
        checkpoint: whether gradients recompute each call of the network, so that no more than one micro-batch's
            activations are kept.
        encoding: further arguments of the pipeline's `encode_prompt`, such as `max_sequence_length` or `prompt_2`.

    Attributes:
        prompts: the prompts; `cond` is their numbers.
        guided: whether each sample costs two evaluations.
        path: the path that the network was trained on.
        network_dtype: the type that the network computes in.

    Raises:
        ValueError: negative prompts of another number, a size that does not fit, or what is no argument of `encode_prompt`.
    """

    backbone: str = "transformer"
    states_dtype: Tensor

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[str],
        negative_prompts: Sequence[str] | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        *,
        chunk: int | None = None,
        checkpoint: bool = True,
        **encoding: Any,
    ) -> None:
        super().__init__()
        # a float32 buffer of nothing: it tells where states live and in which type; the pipeline is not a part of this
        self.register_buffer("states_dtype", torch.empty(0, device=pipe._execution_device), persistent=False)
        self.pipe, self.prompts = pipe, list(prompts)
        self.guidance_scale = self._usual("guidance_scale") if guidance_scale is None else _finite(guidance_scale)
        self.chunk = None if chunk is None else check_positive("chunk", chunk)
        self.checkpoint = checkpoint
        self.network_dtype = self.network.dtype
        self.event_shape = self._shape(height, width)
        self.guided = self._guides()
        self.evaluations = 2 if self.guided else 1
        self.path = self._path()
        if negative_prompts is not None and not self.guided:
            raise ValueError(
                f"negative_prompt: got {list(negative_prompts)}, but at guidance_scale={self.guidance_scale:g} this "
                f"{type(pipe).__name__} is not asked without the prompt, expected none"
            )
        count = len(self.prompts)
        encoding = check_encoding(pipe, encoding, count, self.guided)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
        with torch.no_grad():
            given = self._embed(self.prompts, one_each("negative_prompt", negative_prompts, count), **encoding)
        self.embeddings = check_embeddings(pipe, given, count)

    # ---------------------------------------------------------------- what a family says

    @abc.abstractmethod
    def _shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """The shape of a latent for images of that size."""

    @abc.abstractmethod
    def _embed(self, prompts: list[str], negative: list[str] | None, **encoding: Any) -> dict[str, Tensor]:
        """Embeddings of the prompts, `(P, ...)` each, and where the model is guided of the negative ones, the pipeline's
        usual ones for None, each of the same name with "negative_" before it."""

    @abc.abstractmethod
    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor]) -> Tensor:
        """The network's output `(B, C, H, W)` for its own states `x` and steps `(B,)`, in its own type."""

    @abc.abstractmethod
    def _grid(self, steps: int) -> Tensor:
        """Our times `(K + 1,)` at which the pipeline's own sampler stands, rising, in float64, ending at 1."""

    def _guides(self) -> bool:
        return self.guidance_scale > 1

    def _path(self) -> TrainedPath:
        return TrainedPath(Linear(), "flow", steps=int(self.pipe.scheduler.config.get("num_train_timesteps", 1000)))

    def _usual(self, parameter: str) -> Any:
        """The default of the pipeline's own call."""
        return inspect.signature(type(self.pipe).__call__).parameters[parameter].default

    # ---------------------------------------------------------------- what all families share

    @property
    def network(self) -> Any:
        """The pipeline's transformer or U-Net."""
        return getattr(self.pipe, self.backbone)

    @property
    def device(self) -> torch.device:
        """Where the pipeline executes; what is kept here follows it there. It is looked up when a walk starts from the
        prior, and when states come from elsewhere."""
        device = self.pipe._execution_device
        if self.states_dtype.device != device:
            self.states_dtype = self.states_dtype.to(device)
            self.embeddings = {name: table.to(device) for name, table in self.embeddings.items()}
        return device

    def _apply(self, *args: Any, **options: Any) -> LatentNetwork:
        """Nothing, for `to` and its like: the pipeline says where it executes, and states are float32."""
        return self

    def times(self, steps: int) -> Tensor:
        """The times `(K + 1,)` from noise to data that the pipeline's own sampler visits, in float64; K is `steps`, but for
        schedulers that stand at more."""
        return self._grid(check_positive("steps", steps))

    def begin(self, noise: Tensor, steps: int) -> Tensor:
        """The state at the first time of the pipeline's grid of so many steps, from standard normal `noise` `(B, *event)`,
        as the pipeline has it."""
        return noise

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None, times: tuple[Tensor, ...] = ()) -> Tensor:
        """The velocity `(B, C, H, W)` on the linear path, of states `(B, C, H, W)` at times `t` `(B,)`, given prompts by
        number `(B,)`; further `times` are for networks of two times, and else ignored."""
        numbers = self.prompt_numbers(len(x), cond)
        again = self.checkpoint and torch.is_grad_enabled() and x.requires_grad
        ask = functools.partial(checkpoint, self._velocity, use_reentrant=False) if again else self._velocity
        if self.chunk is None or len(x) <= self.chunk:
            return ask(x, t, numbers, times)
        parts = []
        for start in range(0, len(x), self.chunk):
            rows = slice(start, start + self.chunk)
            numbered = None if numbers is None else numbers[rows]
            parts.append(ask(x[rows], t[rows], numbered, tuple(time[rows] for time in times)))
        return torch.cat(parts)

    def prompt_numbers(self, rows: int, cond: Tensor | None) -> Tensor | None:
        """The prompts of a batch, `(rows,)`, or None where there is only one.

        Raises:
            ValueError: no number for each row, a number without a prompt, or none where there are several prompts.
        """
        expected = f"expected the numbers of prompts, whole numbers ({rows},) from 0 to {len(self.prompts) - 1}"
        if cond is None:
            if len(self.prompts) == 1:
                return None
            raise ValueError(
                f"cond: got None for a model of {len(self.prompts)} prompts, {expected}: pass cond=model.cond and "
                f"batch={len(self.prompts)}"
            )
        whole = isinstance(cond, Tensor) and not cond.is_floating_point() and cond.dtype != torch.bool
        if not whole or cond.shape != (rows,):
            came = f"{cond.dtype} {tuple(cond.shape)}" if isinstance(cond, Tensor) else type(cond).__name__
            raise ValueError(f"cond: got {came}, {expected}")
        if len(cond) and not 0 <= int(cond.min()) <= int(cond.max()) < len(self.prompts):
            raise ValueError(f"cond: got numbers from {int(cond.min())} to {int(cond.max())}, {expected}")
        return None if len(self.prompts) == 1 else cond

    def _velocity(self, x: Tensor, t: Tensor, numbers: Tensor | None, times: tuple[Tensor, ...]) -> Tensor:
        device, dtype = self.states_dtype.device, self.network_dtype
        if x.device != device:  # only then, for the pipeline looks through all its modules to tell
            device = self.device
        scaled, t = x.to(device, torch.float32), t.to(device, torch.float32)
        place = None
        if self.path.prediction == "flow":  # the network's own path is this one
            step = (1 - t) * self.path.steps
        else:
            place = self.path.place(t)
            scaled, step = scaled / per_sample(place.size, scaled), place.step
        gradients = HalfGradients(dtype)
        given, step = gradients.enter(scaled).to(dtype), gradients.enter(self._told(step, times))
        if self.guided:
            given, step = torch.cat([given, given]), torch.cat([step, step])
        output = self._ask(given, step, self._rows(len(x), numbers))
        if output.shape[1] > self.event_shape[0]:  # variances behind
            output = output[:, : self.event_shape[0]]
        output = output.float()
        if self.guided:
            without, output = output.chunk(2)
            output = torch.lerp(without, output, self.guidance_scale)
        output = gradients.leave(output)
        velocity = -output if place is None else self.path.velocity(scaled, output, t, place)
        return velocity.to(x.device, x.dtype)

    def _told(self, step: Tensor, times: tuple[Tensor, ...]) -> Tensor:
        return step

    def _rows(self, count: int, numbers: Tensor | None) -> dict[str, Tensor]:
        """The embeddings of a batch; with guidance the negative ones first, `(2 count, ...)`."""
        rows = self.embeddings
        if numbers is not None:
            rows = {name: table[numbers.to(table.device)] for name, table in rows.items()}
        elif count > 1:
            rows = {name: table.expand(count, *table.shape[1:]) for name, table in rows.items()}
        if not self.guided:
            return rows
        names = [name for name in rows if not name.startswith("negative_")]
        return {name: torch.cat([rows[f"negative_{name}"], rows[name]]) for name in names}


def _finite(scale: float) -> float:
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise ValueError(f"guidance_scale: got {scale!r}, expected a finite number")
    return float(scale)
