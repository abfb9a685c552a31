"""How well an image compresses: the black-box reward that every method without gradients can be tried on."""

from __future__ import annotations

import io

import torch

from PIL import Image
from torch import Tensor

from diamond.validation import check_positive

from .composition import RewardModule
from .prompts import to_levels

__all__ = ["JPEGSize"]


class JPEGSize(RewardModule):
    """Minus the size of the image's JPEG file in kilobytes, below 0: simple images score high, and one that holds NaN has
    NaN. Black-box: it has no derivative.

    Arguments:
        quality: JPEG quality, 1 to 95.
    """

    def __init__(self, quality: int = 90) -> None:
        super().__init__()
        if check_positive("quality", quality) > 95:
            raise ValueError(f"quality: got {quality}, expected 1 to 95")
        self.quality = quality

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 4 or z.shape[1] not in (1, 3):
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected images (N, 1 or 3, H, W)")
        pixels = to_levels(z).permute(0, 2, 3, 1).numpy()
        sizes = [self._size(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in pixels]
        rewards = -torch.tensor(sizes, device=z.device, dtype=torch.float32) / 1000
        unknown = z.isnan().flatten(1).any(1)  # whose file, of black pixels, would be a small one
        return rewards.masked_fill(unknown, torch.nan)

    def _size(self, image) -> int:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=self.quality)
        return file.tell()
