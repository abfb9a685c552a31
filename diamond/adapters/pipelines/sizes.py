"""Sizes of latents, and the noise levels that a flow-matching scheduler visits."""

from __future__ import annotations

import copy
import inspect

from typing import Any

from torch import Tensor

__all__ = ["latent_size", "shift_of"]


def latent_size(pipe: Any, height: int | None, width: int | None, usual: int, multiple: int = 1) -> tuple[int, int]:
    """Rows and columns of the latent of an image of `height` by `width` pixels, `usual` latent rows by default.

    Raises:
        ValueError: the sides are no multiples of the autoencoder's factor times `multiple`.
    """
    factor = pipe.vae_scale_factor
    step = factor * multiple
    sides = [usual * factor if side is None else side for side in (height, width)]
    for name, side in zip(("height", "width"), sides, strict=True):
        if isinstance(side, bool) or not isinstance(side, int) or side < step or side % step:
            raise ValueError(f"{name}: got {side!r}, expected a multiple of {step} pixels")
    return sides[0] // factor, sides[1] // factor


def shift_of(scheduler: Any, steps: int, tokens: int, levels: list[float] | None = None) -> Tensor:
    """The times `(steps + 1,)` of a flow-matching scheduler for a picture of so many tokens, in float64: one less its noise
    levels, which it shifts by its own rule. The scheduler is not touched.

    Raises:
        ValueError: a scheduler of another kind, or one that takes other steps, or takes them from data to noise.
    """
    name = type(scheduler).__name__
    if not ("FlowMatch" in name or "FlowMap" in name or scheduler.config.get("use_flow_sigmas")):
        raise ValueError(f"scheduler: got a {name}, expected a flow-matching one")
    own, shift = copy.deepcopy(scheduler), {}
    if own.config.get("use_dynamic_shifting"):
        shift["mu"] = _dynamic_shift(own.config, tokens)
    if levels is not None and not own.config.get("use_flow_sigmas"):
        if "sigmas" not in inspect.signature(own.set_timesteps).parameters:
            raise ValueError(f"scheduler: got a {name}, which takes no noise levels, expected one that does")
        own.set_timesteps(sigmas=levels, device="cpu", **shift)
    else:
        own.set_timesteps(steps, device="cpu", **shift)
    times = 1 - own.sigmas.double()
    if len(times) != steps + 1:
        raise ValueError(f"scheduler: got a {name} that takes {len(times) - 1} steps for {steps}, expected as many")
    if not bool((times.diff() > 0).all()):
        raise ValueError(f"scheduler: got a {name} whose noise levels do not fall, expected one from noise to data")
    return times.clamp(0, 1)


def _dynamic_shift(config: Any, tokens: int) -> float:
    """The logarithm of the shift, linear in the number of tokens (Flux, Stable Diffusion 3.5)."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return least + (most - least) * (tokens - low) / (high - low)
