"""Pictures of what a map or flow draws while it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

__all__ = ["SampleGrid"]

SIDE = 8  # images in a row and in a column


class SampleGrid:
    """Draws the same noises again and again, and lays the samples out as one PNG file a call.

    Arguments:
        folder: where the files go, one a step.
        model: what is sampled, of image events `(C, H, W)` with one or three channels, in [-1, 1].
        classes: number of classes; the columns go through them in turn.

    Raises:
        ValueError: the events are no images.
    """

    def __init__(self, folder: Path, model: Any, classes: int = 0) -> None:
        shape = model.event_shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ValueError(f"sample_every: got events of shape {tuple(shape)}, expected images of 1 or 3 channels")
        self.folder, self.model, self.classes = folder, model, classes

    @torch.no_grad()
    def write(self, step: int) -> Path:
        """Writes the grid of the model as it is now."""
        from torchvision.utils import save_image

        generator = torch.Generator().manual_seed(0)  # for pictures of the same noises
        cond = None
        if self.classes:
            cond = (torch.arange(SIDE**2) % SIDE % self.classes).to(self.model.device)
        counted = self.model.nfe
        images = self.model.sample(SIDE**2, cond=cond, generator=generator)
        self.model.nfe = counted
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:07d}.png"
        save_image(images.float().cpu(), path, nrow=SIDE, normalize=True, value_range=(-1, 1), padding=1)
        return path
