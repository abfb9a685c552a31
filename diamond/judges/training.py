r"""How a judge is made: cross-entropy on the training split, a few passes, each image shifted and a little noisy.

Shifts of up to a fourteenth of the side and noise of standard deviation :math:`\sigma` uniform in [0, 0.2] let it look
at digits, not at their pixels: samples are judged whose pixels are never quite those of data.
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor, nn

from ..data import Data
from ..progress import progress_bar
from ..randomness import normal, seeded, uniform
from ..validation import check_positive
from .classifier import Classifier
from .judge import Judge

__all__ = ["accuracy", "train_judge"]

NOISE = 0.2
DECAY = 1e-2


def train_judge(
    data: Data,
    held_out: Data,
    *,
    name: str | None = None,
    epochs: int = 6,
    batch: int = 128,
    learning_rate: float = 4e-3,
    width: int = 16,
    features: int = 64,
    depth: int = 1,
    flip: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Judge:
    """A judge trained on `data`, frozen, in evaluation mode, with its figures in its metadata.

    Arguments:
        data: the training part, with labels.
        held_out: what its accuracy is measured on; nothing is chosen by it.
        name: what it is called, the data's name by default.
        epochs: passes over the data.
        batch: images a step.
        learning_rate: AdamW's largest; it rises and falls once.
        width, features, depth: of :class:`~diamond.judges.Judge`.
        flip: every image is also seen mirrored, left to right: for photographs, not for digits.
        seed: of the weights, the order, the shifts, the mirroring and the noise.
        device: where to train.
        progress: shows a bar.

    Raises:
        ValueError: data without labels or of two shapes, labels that training lacks, or settings that do not fit.
    """
    images, labels = _checked(data, held_out)
    batch = min(check_positive("batch", batch), len(images))
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed), torch.enable_grad():
        judge = Judge(tuple(images.shape[1:]), data.classes, width, features, depth).to(device).train()
        steps = check_positive("epochs", epochs) * (len(images) // batch)
        optimizer = torch.optim.AdamW(judge.parameters(), lr=learning_rate, weight_decay=DECAY)
        plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.2)
        bar: Any = progress_bar(total=steps, desc="judge", unit="step", disable=not progress)
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for rows in order[: len(order) // batch * batch].split(batch):
                seen = _disturbed(images[rows], flip, generator).to(device)
                loss = nn.functional.cross_entropy(judge(seen), labels[rows].to(device), label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                plan.step()
                bar.update()
        bar.close()
    judge.eval().requires_grad_(False)
    judge.metadata = {
        "name": name or data.name, "data": data.name, "accuracy": accuracy(judge, held_out), "images": len(images),
        "held_out": len(held_out.images), "epochs": epochs, "batch": batch, "learning_rate": learning_rate,
        "flip": flip, "seed": seed,
    }  # fmt: skip
    return judge


@torch.no_grad()
def accuracy(judge: Classifier, data: Data) -> float:
    """The share of `data` whose label is the likeliest class.

    Raises:
        ValueError: data without labels, or images of another shape.
    """
    if data.labels is None:
        raise ValueError(f"data: {data.name} holds no labels, expected some to judge by")
    device = judge.head.weight.device
    return float((judge.labels(data.images.to(device)).cpu() == data.labels).double().mean())


def _checked(data: Data, held_out: Data) -> tuple[Tensor, Tensor]:
    if data.labels is None or held_out.labels is None:
        name, part = ("data", data) if data.labels is None else ("held_out", held_out)
        raise ValueError(f"{name}: {part.name} holds no labels, expected some to train a judge on")
    if held_out.images.shape[1:] != data.images.shape[1:] or held_out.classes > data.classes:
        raise ValueError(
            f"held_out: got images {tuple(held_out.images.shape[1:])} of {held_out.classes} classes, "
            f"expected the shape and classes of data, {tuple(data.images.shape[1:])} and {data.classes}"
        )
    return data.images, data.labels


def _disturbed(images: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Images `(N, C, H, W)`, each shifted by its own whole number of pixels, its edges repeated, with its own noise;
    with `flip`, each is mirrored by the toss of a coin."""
    count, height, width = len(images), *images.shape[2:]
    reach = max(1, min(height, width) // 14)
    padded = nn.functional.pad(images, (reach,) * 4, mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2 reach + 1, 2 reach + 1, H, W)
    down, right = torch.randint(2 * reach + 1, (2, count), generator=generator)
    shifted = windows[torch.arange(count), :, down, right]
    if flip:
        mirrored = uniform((count, 1, 1, 1), generator) < 0.5
        shifted = torch.where(mirrored, shifted.flip(-1), shifted)
    scale = NOISE * uniform((count, 1, 1, 1), generator)
    return shifted + scale * normal(images.shape, generator)
