r"""A judge: a small convolutional classifier whose last hidden layer is the space in which samples are compared.

Halving blocks (3x3 convolution, normalisation and rectifier, once or several times, then a 2x2 maximum) until the smaller
side is at most four pixels, a last convolution that halves nothing, and one hidden layer: its activations are the
features, `(N, features)`.

References:
    | Gradient-based learning applied to document recognition (LeCun et al., 1998), https://doi.org/10.1109/5.726791
    | Batch Normalization (Ioffe & Szegedy, 2015), https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

import math

from pathlib import Path

import torch

from torch import nn

from ..checkpoint import read_tensors, write_tensors
from ..validation import check_positive
from .classifier import Classifier

__all__ = ["Judge", "read_judge"]

SMALL = 4  # pixels of the smaller side at which halving ends


class Judge(Classifier):
    """A classifier of images `(C, H, W)` in [-1, 1] of one shape.

    Arguments:
        event_shape: the images' shape.
        classes: number of classes, two or more.
        width: channels of the first block; each halving doubles them, up to four times that.
        features: size of the last hidden layer.
        depth: convolutions of a block before its side is halved.

    Attributes:
        metadata: what its file says of its making (JSON values): "name", "data", "accuracy" on held-out data, ...

    Raises:
        ValueError: no image's shape, or sizes that are no whole numbers.
    """

    def __init__(
        self, event_shape: tuple[int, ...], classes: int, width: int = 16, features: int = 64, depth: int = 1
    ) -> None:
        shape = tuple(int(size) for size in event_shape)
        if len(shape) != 3:
            raise ValueError(f"event_shape: got {shape}, expected that of images, (C, H, W)")
        (channels, height, columns), wide = shape, check_positive("width", width)
        check_positive("features", features)
        check_positive("depth", depth)
        blocks: list[nn.Module] = []
        while min(height, columns) > SMALL:
            for _ in range(depth):
                blocks += _block(channels, wide)
                channels = wide
            blocks.append(nn.MaxPool2d(2, ceil_mode=True))
            wide = min(2 * wide, 4 * width)
            height, columns = -(-height // 2), -(-columns // 2)
        blocks += [*_block(channels, wide), nn.Flatten(), nn.Linear(math.prod((wide, height, columns)), features)]
        super().__init__(nn.Sequential(*blocks, nn.ReLU()), shape, features, classes)
        self.width, self.depth = width, depth

    @property
    def origin(self) -> str:
        accuracy = self.metadata.get("accuracy")
        right = f", {accuracy:.2%} right on held-out data" if isinstance(accuracy, float) else ""
        return f"trained on {self.metadata.get('data', 'unknown data')}{right}"

    def save(self, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the judge to one file, for :func:`diamond.judges.load`; weights are rounded to `dtype`.

        Raises:
            ValueError: `metadata` holds what is no JSON value.
        """
        config = {
            "event_shape": list(self.event_shape), "classes": self.classes, "width": self.width, "features": self.size,
            "depth": self.depth,
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
