"""What a perceptual distance looks with: the convolutions of a small classifier, trained for a minute on the training split.

It is another network than the judges of :mod:`diamond.judges`: without normalisation, its features those of its
convolutions, on images with noise up to half their range, so that it can look at unfinished samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diamond.data import Data
from diamond.randomness import normal, seeded, uniform

__all__ = ["Features", "features_of"]

STEPS, BATCH, RATE, NOISE = 900, 128, 2e-3, 0.5
WIDTHS = (24, 48, 64)


class Features(nn.Module):
    """The features of images `(B, C, H, W)` at a half of the side, a quarter, an eighth and so on.

    Arguments:
        channels: of the images.
        classes: that it learns to tell.
        widths: channels at each side.
        depth: convolutions at each.
        pooled: whether to tell classes from the last features' means over the image, which are features then as well.
    """

    def __init__(
        self, channels: int, classes: int, widths: tuple[int, ...] = WIDTHS, depth: int = 1, pooled: bool = False
    ) -> None:
        super().__init__()
        self.depth, self.pooled = depth, pooled
        layers: list[nn.Conv2d] = []
        for width in widths:
            side = 3 if layers else 5
            layers.append(nn.Conv2d(channels, width, side, stride=2, padding=side // 2))
            layers += [nn.Conv2d(width, width, 3, padding=1) for _ in range(depth - 1)]
            channels = width
        if depth > 1:  # signals fade in a deep network of torch's own initial weights
            for layer in layers:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.layers = nn.ModuleList(layers)
        self.classify = nn.LazyLinear(classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self.layers):
            images = nn.functional.gelu(layer(images))
            if (index + 1) % self.depth == 0:
                found.append(images)
        return [*found, images.mean((2, 3))] if self.pooled else found

    def scores(self, images: Tensor) -> Tensor:
        """Of the classes, `(B, classes)`."""
        return self.classify(self(images)[-1].flatten(1))


def features_of(
    data: Data,
    path: Path,
    seed: int = 0,
    *,
    steps: int | None = None,
    batch: int = BATCH,
    flip: bool = False,
    **sizes: Any,
) -> Features:
    """The features of a classifier of `data`, frozen; read from `path`, or trained and kept there.

    Arguments:
        data: with labels.
        path: of the file.
        seed: of the weights and batches.
        steps, batch: of the training.
        flip: whether to mirror images at random.
        sizes: of :class:`Features`.
    """
    with seeded(seed):
        model = Features(data.images.shape[1], data.classes, **sizes)
        model.scores(data.images[:1])
        if path.is_file():
            model.load_state_dict(load_file(path))
        else:
            _train(model, data, STEPS if steps is None else steps, batch, flip, seed)
            save_file({name: weights.cpu() for name, weights in model.state_dict().items()}, path)
    return model.cpu().eval().requires_grad_(False)


def _train(model: Features, data: Data, steps: int, batch: int, flip: bool, seed: int) -> None:
    assert data.labels is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(seed)
    model.to(device)
    known, labels = data.images.to(device), data.labels.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for _ in range(steps):
        rows = torch.randint(len(known), (batch,), generator=generator, device=device)
        images = known[rows]
        if flip:
            mirrored = uniform((batch, 1, 1, 1), generator, device=device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        level = NOISE * uniform((batch, 1, 1, 1), generator, device=device)
        noisy = images + level * normal(images.shape, generator, device=device)
        loss = nn.functional.cross_entropy(model.scores(noisy), labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
