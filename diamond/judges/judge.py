r"""A judge: a small convolutional classifier whose last hidden layer is the space in which samples are compared.

Halving blocks (3x3 convolution, normalisation, rectifier, 2x2 maximum) until the smaller side is at most four pixels,
a last block that halves nothing, and one hidden layer: its activations are the features, `(N, features)`.

References:
    | Gradient-based learning applied to document recognition (LeCun et al., 1998), https://doi.org/10.1109/5.726791
    | Batch Normalization (Ioffe & Szegedy, 2015), https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

import math

from pathlib import Path
from typing import Any

import torch

from torch import Tensor, nn

from ..checkpoint import read_tensors, write_tensors
from ..validation import check_positive, check_state

__all__ = ["Judge", "read_judge"]

SMALL = 4  # pixels of the smaller side at which halving ends
CHUNK = 1024  # images that go through the network at once


class Judge(nn.Module):
    """A classifier of images `(C, H, W)` in [-1, 1] of one shape.

    Arguments:
        event_shape: the images' shape.
        classes: number of classes, two or more.
        width: channels of the first block; each halving doubles them, up to four times that.
        features: size of the last hidden layer.

    Attributes:
        metadata: what its file says of its making (JSON values): "name", "data", "accuracy" on held-out data, ...

    Raises:
        ValueError: no image's shape, or sizes that are no whole numbers.
    """

    def __init__(self, event_shape: tuple[int, ...], classes: int, width: int = 16, features: int = 64) -> None:
        super().__init__()
        self.event_shape = tuple(int(size) for size in event_shape)
        if len(self.event_shape) != 3:
            raise ValueError(f"event_shape: got {self.event_shape}, expected that of images, (C, H, W)")
        self.classes, self.size = check_positive("classes", classes, 2), check_positive("features", features)
        self.width = check_positive("width", width)
        self.metadata: dict[str, Any] = {}
        (channels, height, columns), wide = self.event_shape, width
        blocks: list[nn.Module] = []
        while min(height, columns) > SMALL:
            blocks += [*_block(channels, wide), nn.MaxPool2d(2, ceil_mode=True)]
            channels, wide = wide, min(2 * wide, 4 * width)
            height, columns = -(-height // 2), -(-columns // 2)
        blocks += [*_block(channels, wide), nn.Flatten(), nn.Linear(math.prod((wide, height, columns)), features)]
        self.body = nn.Sequential(*blocks, nn.ReLU())
        self.head = nn.Linear(features, classes)

    def features(self, z: Tensor) -> Tensor:
        """The last hidden layer's activations `(N, features)` for images `(N, C, H, W)` in [-1, 1].

        Raises:
            ValueError: images of another shape.
        """
        check_state(z, self.event_shape, "z")
        return torch.cat([self.body(part) for part in z.to(self.head.weight.dtype).split(CHUNK)])

    def forward(self, z: Tensor) -> Tensor:
        """Logits `(N, classes)`; errors as in :meth:`features`."""
        return self.head(self.features(z))

    def log_probabilities(self, z: Tensor) -> Tensor:
        """Log-probabilities of the classes, `(N, classes)`; errors as in :meth:`features`."""
        return self(z).log_softmax(-1)

    def labels(self, z: Tensor) -> Tensor:
        """The likeliest class of each image, `(N,)`; errors as in :meth:`features`."""
        return self(z).argmax(-1)

    @property
    def title(self) -> str:
        """Who judges, in one line: name, data and accuracy."""
        known = self.metadata
        accuracy = known.get("accuracy")
        right = f", {accuracy:.2%} right on held-out data" if isinstance(accuracy, float) else ""
        return f"judge {known.get('name', 'unnamed')!r} (trained on {known.get('data', 'unknown data')}{right})"

    def save(self, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the judge to one file, for :func:`diamond.judges.load`; weights are rounded to `dtype`.

        Raises:
            ValueError: `metadata` holds what is no JSON value.
        """
        config = {
            "event_shape": list(self.event_shape), "classes": self.classes, "width": self.width, "features": self.size,
        }  # fmt: skip
        tensors = {name: v.to(dtype) if v.is_floating_point() else v for name, v in self.state_dict().items()}
        write_tensors(path, tensors, {"kind": "Judge", "config": config, "metadata": self.metadata})


def read_judge(path: str | Path, device: str | torch.device = "cpu") -> Judge:
    """The judge in a file that :meth:`Judge.save` wrote, in float32, frozen and in evaluation mode on `device`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    tensors, header = read_tensors(path)
    if header.get("kind") != "Judge":
        raise ValueError(f"{path}: it is of kind {header.get('kind')!r}, expected 'Judge'")
    try:
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced
            judge = Judge(**header["config"])
        judge.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: its tensors do not fit the Judge that its header describes") from error
    judge.metadata = header.get("metadata", {})
    return judge.to(device).eval().requires_grad_(False)


def _block(channels: int, wide: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()
