"""From latents to images, by a pipeline's autoencoder."""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["decode"]


def decode(pipe: Any, z: Tensor, chunk: int | None = None, recompute: bool = True) -> Tensor:
    """Images `(N, 3, H, W)` in [-1, 1], in float32, of latents `(N, C, h, w)`; differentiable.

    The autoencoder computes in its own type, in float32 where it would overflow in float16. Its tiling is its own
    (`pipe.vae.enable_tiling()`).

    Arguments:
        pipe: the pipeline.
        z: latents.
        chunk: latents in one call of the decoder, all at once by default.
        recompute: whether gradients compute each call again instead of keeping what is inside.
    """
    vae, size = pipe.vae, chunk or max(len(z), 1)
    if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
        vae.to(torch.float32)
    parts = []
    for start in range(0, len(z), size):
        part = z[start : start + size]
        again = recompute and torch.is_grad_enabled() and z.requires_grad
        parts.append(checkpoint(_decode, pipe, part, use_reentrant=False) if again else _decode(pipe, part))
    return torch.cat(parts)


def _decode(pipe: Any, z: Tensor) -> Tensor:
    config = pipe.vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    place = pipe._execution_device
    latents = z.to(place)
    if mean is not None and std is not None:
        mean, std = (torch.tensor(value).view(1, -1, 1, 1).to(latents) for value in (mean, std))
        latents = latents * std / config.scaling_factor + mean
    else:
        latents = latents / config.scaling_factor + (config.get("shift_factor") or 0.0)
    images = pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]
    return images.float().clamp(-1, 1).to(z.device)
