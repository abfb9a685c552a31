"""A small classifier, trained on the spot: the reward `class:3` needs one, and a few seconds make it.

It sees images with a little noise added, so that its gradients mean something beside the data.
"""

from __future__ import annotations

import math

import torch

from torch import nn

from diamond.data import Data
from diamond.randomness import seeded

__all__ = ["train_classifier"]

NOISE = 0.2


def train_classifier(data: Data, steps: int = 600, batch: int = 256, width: int = 128, seed: int = 0) -> nn.Module:
    """A perceptron from images `(N, C, H, W)` to logits `(N, classes)`, on the CPU, in evaluation mode and frozen.

    Raises:
        ValueError: the data hold no labels.
    """
    if data.labels is None:
        raise ValueError(f"data: {data.name} holds no labels, expected some to train a classifier on")
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed), torch.enable_grad():
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(data.images.shape[1:]), width), nn.SiLU(), nn.Linear(width, width),
            nn.SiLU(), nn.Linear(width, data.classes),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.randint(len(data.images), (batch,), generator=generator)
            images = data.images[rows]
            images = images + NOISE * torch.randn(images.shape, generator=generator)
            loss = nn.functional.cross_entropy(net(images), data.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
    return net.eval().requires_grad_(False)
