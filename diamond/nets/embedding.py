r"""How a network is told the times and the class.

A time :math:`t` enters as :math:`[\lambda, \cos \pi k t, \sin \pi k t]_{k = 1, 2, 4, 8}` with
:math:`\lambda = \log \frac{t + c}{1 - t + c}` a damped log signal-to-noise ratio, which resolves both ends. The
frequencies are low on purpose: a flow map is differentiated in its times, and high ones make that derivative noise.
"""

from __future__ import annotations

import math

import torch

from torch import Tensor, nn

from ..validation import shared
from .network import silenced

__all__ = ["Conditioning", "silent_branch", "time_features"]

FREQUENCIES = 4
FEATURES = 1 + 2 * FREQUENCIES


def time_features(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Features `(..., FEATURES)` of times `(...)`, computed in the precision of `t`."""
    angles = math.pi * t.unsqueeze(-1) * torch.arange(FREQUENCIES, dtype=t.dtype, device=t.device).exp2()
    ratio = torch.log((t + 0.02) / (1.02 - t)).unsqueeze(-1) / 4
    return torch.cat([ratio, angles.cos(), angles.sin()], dim=-1).to(dtype)


def silent_branch(entering: int, width: int, leaving: int) -> nn.Sequential:
    """A perceptron of one hidden layer, `(B, entering)` to `(B, leaving)`, that begins as nothing."""
    last = silenced(nn.Linear(width, leaving))
    return nn.Sequential(nn.Linear(entering, width), nn.SiLU(), last)


class Conditioning(nn.Module):
    """Embeds a network's time, further times, and class label into one vector `(B, width)`, or `(1, width)`.

    The further times pass through a branch that ends in zeros at the start, so that a network that grew them begins
    as the network without them.

    Times that all rows share, one number expanded over the batch, are embedded once, `(1, width)`, and what a network
    computes of the embedding alone is computed once as well.

    Arguments:
        width: size of the embedding.
        times: number of further times.
        classes: number of classes, 0 for an unconditional network. Label `classes` itself stands for "no label".
    """

    def __init__(self, width: int, times: int = 0, classes: int = 0) -> None:
        super().__init__()
        self.times, self.classes = times, classes
        self.time = nn.Sequential(nn.Linear(FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        if times:
            self.more = silent_branch(FEATURES * times, width, width)
        if classes:
            self.label = nn.Embedding(classes + 1, width)

    def forward(self, t: Tensor, cond: Tensor | None, times: tuple[Tensor, ...]) -> Tensor:
        dtype, rows = next(self.time.parameters()).dtype, len(t)
        if len(times) != self.times:
            raise ValueError(f"times: got {len(times)} times beside t, this network takes {self.times}")
        if all(shared(time) for time in (t, *times)):
            t, times = t[:1], tuple(time[:1] for time in times)
        embedding = self.time(time_features(t, dtype))
        if times:
            embedding = embedding + self.more(time_features(torch.stack(times, dim=-1), dtype).flatten(-2))
        if self.classes:
            return embedding + self.label(self._labels(t, rows, cond))
        if cond is not None:
            raise ValueError("cond: got a tensor, but this network was made without classes and takes none")
        return embedding

    def _labels(self, t: Tensor, rows: int, cond: Tensor | None) -> Tensor:
        if cond is None:
            return torch.full((len(t),), self.classes, device=t.device, dtype=torch.long)
        if not isinstance(cond, Tensor) or cond.shape != (rows,) or cond.is_floating_point():
            came = f"{cond.dtype} {tuple(cond.shape)}" if isinstance(cond, Tensor) else type(cond).__name__
            raise ValueError(f"cond: got {came}, expected class labels ({rows},), whole numbers")
        return cond.long()
