"""Further inputs for a network of diffusers, silent at the start, so that the network of a flow becomes that of a map.

Its first convolution takes further states as further channels. Its embedding of labels takes the further times beside
the label, packed into one tensor `(B, 1 + times)` by :func:`pack_labels`, because diffusers hands on whatever it is given
as labels. Thus nothing but two kinds of layer changes, and nothing is kept from call to call.
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor, nn

from ..nets.embedding import FEATURES, silent_branch, time_features

__all__ = ["Gain", "pack_labels", "widen"]


def widen(model: Any, states: int, times: int) -> None:
    """Gives a `UNet2DModel` or `DiTTransformer2DModel` that many further inputs, in place."""
    if type(model).__name__ == "UNet2DModel":
        if states:
            model.conv_in = _WideEntrance(model.conv_in, states)
        if times:
            width = model.time_embedding.linear_2.out_features
            model.class_embedding = _LabelsAndTimes(model.class_embedding, times, width)
        return
    if states:
        model.pos_embed.proj = _WideEntrance(model.pos_embed.proj, states)
    for block in model.transformer_blocks if times else ():
        block.norm1.emb.class_embedder = _LabelsAndTimes(block.norm1.emb.class_embedder, times, model.inner_dim)


def pack_labels(labels: Tensor | None, times: tuple[Tensor, ...]) -> Tensor | None:
    """Labels `(B,)`, if any, and times `(B,)` in one tensor `(B, 1 + times)`; the labels alone without times."""
    if not times:
        return labels
    first = torch.zeros_like(times[0]) if labels is None else labels.to(times[0].dtype)
    return torch.stack([first, *times], dim=-1)


class Gain(nn.Module):
    """A gain for each channel of each further state, `(B, states * channels)`, from `t` and the further times; zero at
    the start."""

    def __init__(self, channels: int, states: int, times: int) -> None:
        super().__init__()
        self.layers = silent_branch(FEATURES * (1 + times), 64, states * channels)

    def forward(self, t: Tensor, times: tuple[Tensor, ...]) -> Tensor:
        features = time_features(torch.stack([t, *times], dim=-1), next(self.parameters()).dtype)
        return self.layers(features.flatten(-2))


class _WideEntrance(nn.Module):
    """A convolution of `(B, C (1 + states), H, W)`, of which the channels after the first C are silent at the start."""

    def __init__(self, first: nn.Conv2d, states: int) -> None:
        super().__init__()
        self.first, self.channels = first, first.in_channels
        shape = first.out_channels, states * first.in_channels, *first.kernel_size
        self.more = nn.Parameter(torch.zeros(shape, dtype=first.weight.dtype, device=first.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        states = nn.functional.conv2d(
            x[:, self.channels :],
            self.more,
            None,
            self.first.stride,
            self.first.padding,  # type: ignore[arg-type]
        )
        return self.first(x[:, : self.channels]) + states


class _LabelsAndTimes(nn.Module):
    """The embedding of labels and times that :func:`pack_labels` packed, the times' silent at the start."""

    def __init__(self, labels: nn.Module | None, times: int, width: int) -> None:
        super().__init__()
        self.labels = labels
        self.times = silent_branch(FEATURES * times, width, width)

    def forward(self, packed: Tensor, *more: Any) -> Tensor:
        times = self.times(time_features(packed[:, 1:], next(self.times.parameters()).dtype).flatten(-2))
        return times if self.labels is None else self.labels(packed[:, 0].long(), *more) + times
