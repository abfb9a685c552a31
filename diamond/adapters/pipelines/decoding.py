"""From latents to images, by a pipeline's autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from torch import Tensor

from .half_gradients import HalfGradients

__all__ = ["decode"]


def decode(pipe: Any, z: Tensor, chunk: int | None = None, recompute: bool = True) -> Tensor:
    """Images `(N, 3, H, W)` in [-1, 1], in float32, of latents `(N, C, h, w)`; differentiable.

    The autoencoder computes in its own type, in float32 where it would overflow in float16, and is left in its own. Its
    tiling is its own (`pipe.vae.enable_tiling()`).

    Arguments:
        pipe: the pipeline.
        z: latents.
        chunk: latents in one call of the decoder, all at once by default.
        recompute: whether gradients compute each call again instead of keeping what is inside; they do so in any case
            where the autoencoder's type changes for the call.
    """
    parts = []
    for part in z.split(chunk or max(len(z), 1)):
        again = (recompute or _overflows(pipe.vae)) and torch.is_grad_enabled() and z.requires_grad
        parts.append(_Recomputed.apply(part, pipe) if again else _decode(pipe, part))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Recomputed(torch.autograd.Function):
    """Images of latents, made again where their gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, pipe: Any) -> Tensor:
        ctx.pipe = pipe
        ctx.save_for_backward(z)
        return _decode(pipe, z)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (z,), again = ctx.saved_tensors, torch.is_grad_enabled()
        with torch.enable_grad(), _wide(ctx.pipe.vae):
            return torch.autograd.grad(_decode(ctx.pipe, z), z, slope, create_graph=again)[0], None


def _decode(pipe: Any, z: Tensor) -> Tensor:
    config = pipe.vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    gradients = HalfGradients(torch.float32 if _overflows(pipe.vae) else pipe.vae.dtype)
    latents = gradients.enter(z.to(pipe._execution_device))
    if mean is not None and std is not None:
        mean, std = (torch.tensor(value).view(1, -1, 1, 1).to(latents) for value in (mean, std))
        latents = latents * std / config.scaling_factor + mean
    else:
        latents = latents / config.scaling_factor + (config.get("shift_factor") or 0.0)
    with _wide(pipe.vae):
        images = pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]
    return gradients.leave(images.float()).clamp(-1, 1).to(z.device)


def _overflows(vae: Any) -> bool:
    return vae.dtype == torch.float16 and bool(vae.config.get("force_upcast"))


@contextmanager
def _wide(vae: Any) -> Iterator[None]:
    """An autoencoder that would overflow is in float32 meanwhile."""
    if not _overflows(vae):
        yield
        return
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(torch.float16)
