"""What a perceptual distance looks with: the convolutions of a small classifier, trained for a minute on the training split.

It is another network than the judges of :mod:`diamond.judges`: without normalisation or pooling, its features those of
every convolution, on images with noise up to half their range, so that it can look at unfinished samples.
"""

from __future__ import annotations

from pathlib import Path

import torch

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diamond.data import Data
from diamond.randomness import normal, seeded, uniform

__all__ = ["Features", "features_of"]

STEPS, BATCH, RATE, NOISE = 900, 128, 2e-3, 0.5
CHANNELS = (24, 48, 64)


class Features(nn.Module):
    """The features of images `(B, C, H, W)` after each of three convolutions, at a half, a quarter and an eighth of the
    side."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        sizes = zip((channels, *CHANNELS), CHANNELS, (5, 3, 3), strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(one, other, k, stride=2, padding=k // 2) for one, other, k in sizes)
        self.classify = nn.LazyLinear(classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        found = []
        for layer in self.layers:
            images = nn.functional.gelu(layer(images))
            found.append(images)
        return found

    def scores(self, images: Tensor) -> Tensor:
        """Of the classes, `(B, classes)`."""
        return self.classify(self(images)[-1].flatten(1))


def features_of(data: Data, path: Path, seed: int = 0) -> Features:
    """The features of a classifier of `data`, frozen; read from `path`, or trained and kept there."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        model = Features(data.images.shape[1], data.classes)
        model.scores(data.images[:1])
        if path.is_file():
            model.load_state_dict(load_file(path))
        else:
            _train(model, data, generator)
            save_file(model.state_dict(), path)
    return model.eval().requires_grad_(False)


def _train(model: Features, data: Data, generator: torch.Generator) -> None:
    assert data.labels is not None
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        rows = torch.randint(len(data.images), (BATCH,), generator=generator)
        images = data.images[rows]
        level = NOISE * uniform((BATCH, 1, 1, 1), generator)
        noisy = images + level * normal(images.shape, generator)
        loss = nn.functional.cross_entropy(model.scores(noisy), data.labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
