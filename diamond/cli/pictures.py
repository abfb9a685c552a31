"""Aligned samples as one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from align import Alignment

__all__ = ["is_image", "picture", "shown_samples"]

COLUMNS = 8
ROWS = 16
LEAST_SIDE = 64  # pixels; smaller images are enlarged


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether events of this shape can be shown: `(1 or 3, H, W)`."""
    return len(event_shape) == 3 and event_shape[0] in (1, 3)


def shown_samples(result: Alignment, by: str) -> Tensor:
    """The samples worth showing, `(rows, columns, *event)`.

    Each population has a row of at most 8, and a single one fills 8 rows: the best first (`by="reward"`), drawn by
    weight (`by="weight"`), or the first ones as they came (`by="order"`).
    """
    import torch

    count = result.samples.shape[1]
    columns = min(COLUMNS, count)
    n = columns if len(result.samples) > 1 else columns * max(1, min(count, COLUMNS**2) // columns)
    if by == "weight":
        chosen = result.resample(n, generator=torch.Generator().manual_seed(0))
    elif by == "reward":
        order = result.rewards.argsort(dim=1, descending=True)[:, :n]
        chosen = result.samples[torch.arange(len(order), device=order.device)[:, None], order]
    else:
        chosen = result.samples[:, :n]
    return chosen[:ROWS].reshape(-1, columns, *result.samples.shape[2:])


def picture(samples: Tensor) -> Image:
    """A grid of images `(rows, columns, C, H, W)` in [-1, 1], small ones enlarged without smoothing."""
    from torch.nn.functional import interpolate
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    columns = samples.shape[1]
    images = (samples.flatten(0, 1).float().cpu().clamp(-1, 1) + 1) / 2
    scale = max(1, -(-LEAST_SIDE // min(images.shape[-2:])))
    enlarged = interpolate(images, scale_factor=scale, mode="nearest")
    return to_pil_image(make_grid(enlarged, nrow=columns, padding=4, pad_value=1.0))
