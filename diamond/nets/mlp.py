r"""A residual multilayer perceptron for vectors and very small images.

Each block is :math:`h \leftarrow h + W_2 \, \mathrm{silu}(W_1 (\mathrm{norm}(h) (1 + a) + b))`, with `a` and `b`
linear in the embedding of times and class. No operation in it lacks a forward-mode derivative.
"""

from __future__ import annotations

import math

import torch

from torch import Tensor, nn

from ..validation import check_positive
from .embedding import Conditioning
from .network import Network, check_states, silenced

__all__ = ["ResidualMLP"]


class ResidualMLP(Network):
    """A residual perceptron on flattened events.

    Arguments:
        event_shape: the shape of one sample.
        width: size of the hidden layers.
        depth: number of residual blocks.
        classes: number of class labels that `cond` may hold, 0 for an unconditional network.
        states: number of further states beside `x`; they enter through weights that start at zero.
        times: number of further times beside `t`; likewise.
        embedding: size of the embedding of times and class.

    Raises:
        ValueError: a width below 1, or a depth below 0.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 256,
        depth: int = 3,
        classes: int = 0,
        states: int = 0,
        times: int = 0,
        embedding: int = 64,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        check_positive("depth", depth, 0)
        self.config = {
            "event_shape": list(event_shape), "width": width, "depth": depth, "classes": classes,
            "states": states, "times": times, "embedding": embedding,
        }  # fmt: skip
        self.event_shape, self.states = tuple(event_shape), states
        size = math.prod(event_shape)
        self.conditioning = Conditioning(embedding, times, classes)
        self.enter = nn.Linear(size, width)
        if states:
            self.enter_states = silenced(nn.Linear(states * size, width, bias=False))
            self.gain = silenced(nn.Linear(embedding, states * size))
        self.blocks = nn.ModuleList(_Block(width, embedding) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = silenced(nn.Linear(width, size))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor | None = None,
        states: tuple[Tensor, ...] = (),
        times: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """The network's output `(B, *event)` at states `x` `(B, *event)` and times `t` `(B,)`."""
        check_states(states, self.states)
        embedding = nn.functional.silu(self.conditioning(t, cond, times))
        hidden = self.enter(x.unsqueeze(-1).flatten(1))  # an event may be a plain number
        more = torch.cat([state.unsqueeze(-1).flatten(1) for state in states], dim=1) if self.states else None
        if more is not None:
            hidden = hidden + self.enter_states(more)
        for block in self.blocks:
            hidden = block(hidden, embedding)
        out = self.leave(self.norm(hidden))
        if more is not None:  # a direct path for noise that the map passes on
            out = out + (self.gain(embedding) * more).unflatten(1, (self.states, -1)).sum(1)
        return out.reshape(x.shape)


class _Block(nn.Module):
    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = silenced(nn.Linear(embedding, 2 * width))
        self.widen = nn.Linear(width, width)
        self.narrow = nn.Linear(width, width)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding).chunk(2, dim=-1)
        inner = torch.addcmul(shift, self.norm(hidden), 1 + scale)
        return hidden + self.narrow(nn.functional.silu(self.widen(inner)))
