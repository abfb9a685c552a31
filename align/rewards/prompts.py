"""What a reward of images and prompts is given: colour images `(N, 3, H, W)`, and one prompt each."""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

__all__ = ["check_images", "check_prompt", "prompts_for", "to_levels"]


def check_images(images: Tensor) -> None:
    """Refuses `images` unless they are a floating tensor `(N, 3, H, W)` that holds numbers.

    Raises:
        ValueError: they are not.
    """
    expected = "expected RGB images (N, 3, H, W) in [-1, 1]"
    if not isinstance(images, Tensor):
        raise ValueError(f"images: got {type(images).__name__}, {expected}")
    if images.ndim == 4 and images.shape[1] == 1:
        raise ValueError(f"images: got grey ones of shape {tuple(images.shape)}, {expected}")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"images: got shape {tuple(images.shape)}, {expected}")
    if not images.is_floating_point():
        raise ValueError(f"images: got dtype {images.dtype}, {expected}, of a floating type")
    if images.is_meta:
        raise ValueError(
            "images: got a tensor on the meta device, which holds no numbers, expected one on a real device"
        )


def check_prompt(prompt: str | None) -> None:
    """Refuses what is neither one prompt nor None.

    Raises:
        ValueError: it is neither.
    """
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(
            f"prompt: got {type(prompt).__name__}, expected one text for all images, or None and a list of them in cond"
        )


def prompts_for(n: int, prompt: str | None, cond: Any) -> list[str]:
    """The prompts of `n` images: `prompt` for all of them, or where it is None those in `cond`, a list or tuple.

    Raises:
        ValueError: there are none, `cond` is another thing, or it holds another number of them.
    """
    if prompt is not None:
        return [prompt] * n
    if cond is None:
        raise ValueError("prompt: got None and no cond, expected one prompt for all images, or a list of them in cond")
    if not isinstance(cond, (list, tuple)) or not all(isinstance(text, str) for text in cond):
        came = (
            type(cond).__name__ if not isinstance(cond, (list, tuple)) else f"a {type(cond).__name__} of other things"
        )
        raise ValueError(f"cond: got {came}, expected a list of prompts, one text an image")
    if len(cond) != n:
        raise ValueError(f"cond: got {len(cond)} prompts for {n} images, expected one prompt an image")
    return list(cond)


def to_levels(images: Tensor) -> Tensor:
    """Images in [-1, 1] as the levels 0 to 255 that a file of them has: uint8, on the CPU."""
    levels = (images.detach().to("cpu", torch.float32) + 1) * 127.5
    return levels.round().clamp(0, 255).to(torch.uint8)
