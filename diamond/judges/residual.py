r"""A published classifier as a judge: the residual network of CIFAR-10, with the weights of whoever trained it.

A convolution to 16 channels, three stages of n blocks with 16, 32 and 64 channels, the mean over all pixels, and a
linear head: 6n + 2 layers. A block adds to its input what two 3x3 convolutions make of it,

.. math:: x \mapsto \mathrm{relu}\big(s(x) + \mathrm{bn}(w_2 * \mathrm{relu}(\mathrm{bn}(w_1 * x)))\big),

where :math:`s` is the identity; at the start of the second and the third stage, whose first convolution has stride 2, it
takes every second pixel and pads the new channels with zeros, half of them on each side (option A, without parameters).
The means of the last stage's channels are the features, `(N, 64)`.

References:
    | Deep Residual Learning for Image Recognition (He et al., 2016), section 4.2, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

import re

from pathlib import Path

import torch

from torch import Tensor, nn
from torch.nn import functional as F

from ..validation import check_positive
from .classifier import Classifier
from .published import read_arrays

__all__ = ["ResidualJudge", "read_residual"]

EVENT_SHAPE = (3, 32, 32)
CHANNELS = (16, 32, 64)  # of the stages
MEAN, STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of red, green and blue in [0, 1], as published weights expect
COUNTER = "num_batches_tracked"  # of training alone: files may hold it or not


class ResidualJudge(Classifier):
    """A classifier of CIFAR's images `(3, 32, 32)` in [-1, 1], which it normalises itself.

    Arguments:
        blocks: n, the blocks of each stage.
        classes: number of classes, two or more.

    Raises:
        ValueError: sizes that are no whole numbers.
    """

    def __init__(self, blocks: int = 3, classes: int = 10) -> None:
        super().__init__(_Body(check_positive("blocks", blocks)), EVENT_SHAPE, CHANNELS[-1], classes)
        self.blocks = blocks

    @property
    def network(self) -> str:
        """What its like is called in print: ResNet-20 for three blocks a stage."""
        return f"ResNet-{6 * self.blocks + 2}"

    @property
    def origin(self) -> str:
        return f"a {self.network}" + (" of the published weights in that file" if "name" in self.metadata else "")


def read_residual(path: str | Path, device: str | torch.device = "cpu") -> ResidualJudge:
    """The judge with the weights in a `.npz` or `.safetensors` file, frozen, in float32 and evaluation mode on `device`.

    They are called as usual: `conv1.weight`, `bn1.*`, `layer1.0.conv1.weight`, ..., `linear.weight`, `linear.bias`. The
    blocks of a stage follow from these names, and the classes from the shape of `linear.weight`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or its names or shapes are those of another network.
    """
    path = Path(path)
    arrays = {_own(name): array for name, array in read_arrays(path).items() if not name.endswith(COUNTER)}
    head = arrays.get("head.weight")
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced
        judge = ResidualJudge(_blocks(arrays), max(2, len(head)) if head is not None and head.ndim else 10)
    _check_fit(path, arrays, judge)
    judge.load_state_dict(arrays, strict=False)  # but for the counters
    judge.metadata = {"name": path.stem, "network": judge.network}
    return judge.to(device).eval().requires_grad_(False)


class _Block(nn.Module):
    def __init__(self, channels: int, planes: int) -> None:
        super().__init__()
        self.widens = planes != channels
        self.conv1 = nn.Conv2d(channels, planes, 3, stride=2 if self.widens else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        change = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.widens:
            padding = (change.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, padding, padding))
        return F.relu(x + change)


class _Body(nn.Module):
    """Images in [-1, 1] to features; its parts are called as in published files."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(EVENT_SHAPE[0], CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS[0])
        first, second, third = CHANNELS
        self.layer1 = _stage(first, first, blocks)
        self.layer2 = _stage(first, second, blocks)
        self.layer3 = _stage(second, third, blocks)

    def forward(self, z: Tensor) -> Tensor:
        mean, std = (z.new_tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
        x = F.relu(self.bn1(self.conv1(((z + 1) / 2 - mean) / std)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


def _stage(channels: int, planes: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_Block(channels, planes), *(_Block(planes, planes) for _ in range(blocks - 1)))


def _own(name: str) -> str:
    """What this package calls the array of a published name."""
    kind, _, rest = name.partition(".")
    return f"head.{rest}" if kind == "linear" else f"body.{name}"


def _published(name: str) -> str:
    kind, _, rest = name.partition(".")
    return f"linear.{rest}" if kind == "head" else rest


def _blocks(arrays: dict[str, Tensor]) -> int:
    """The blocks of the stage that names most of them, or one."""
    found = {match.groups() for name in arrays if (match := re.match(r"body\.(layer[123])\.(\d+)\.", name))}
    return max((sum(stage == other for other, _ in found) for stage, _ in found), default=1)


def _check_fit(path: Path, arrays: dict[str, Tensor], judge: ResidualJudge) -> None:
    expected = {name: value.shape for name, value in judge.state_dict().items() if not name.endswith(COUNTER)}
    for verb, names in (("lacks", expected.keys() - arrays.keys()), ("holds", arrays.keys() - expected.keys())):
        if names:
            first, *others = sorted(map(_published, names))
            more = f" and {len(others)} more" if others else ""
            raise ValueError(
                f"{path}: it {verb} {first!r}{more}, expected the weights of a {judge.network} of CIFAR: "
                "'conv1.weight', 'bn1.*', 'layer1.0.conv1.weight', ..., 'linear.weight', 'linear.bias'"
            )
    for name, shape in expected.items():
        array = arrays[name]
        finite = bool(array.isfinite().all())
        if array.shape != shape or not array.is_floating_point() or not finite:
            came = f"{array.dtype} of shape {tuple(array.shape)}{'' if finite else ', not finite'}"
            raise ValueError(f"{path}: {_published(name)!r} is {came}, expected finite floats of shape {tuple(shape)}")
