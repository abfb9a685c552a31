r"""A small diffusion transformer for images.

Patches are tokens; each block is attention and a perceptron, both modulated by the embedding of times and class and
gated by factors that start at zero (adaLN-zero). Attention is written out, so that forward-mode differentiation can
pass through it (the fused kernels of torch have no such derivative).

References:
    | Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

import torch

from einops import rearrange
from torch import Tensor, nn

from ..validation import check_positive
from .embedding import Conditioning
from .network import Network, check_states, silenced

__all__ = ["Transformer"]


class Transformer(Network):
    """A diffusion transformer on images `(C, H, W)`.

    Arguments:
        event_shape: `(C, H, W)`, with `H` and `W` multiples of `patch`.
        patch: side of the square patches.
        width: size of a token.
        depth: number of blocks.
        heads: number of attention heads, a divisor of `width`.
        classes, states, times: as in :class:`~diamond.nets.ResidualMLP`.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        patch: int = 2,
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        classes: int = 0,
        states: int = 0,
        times: int = 0,
    ) -> None:
        super().__init__()
        patch, heads = check_positive("patch", patch), check_positive("heads", heads)
        if len(event_shape) != 3 or event_shape[1] % patch or event_shape[2] % patch:
            raise ValueError(
                f"event_shape: got {tuple(event_shape)}, expected (C, H, W) with H, W multiples of patch={patch}"
            )
        if width % heads:
            raise ValueError(f"heads: got {heads}, expected a divisor of width={width}")
        self.config = {
            "event_shape": list(event_shape), "patch": patch, "width": width, "depth": depth, "heads": heads,
            "classes": classes, "states": states, "times": times,
        }  # fmt: skip
        self.event_shape, self.patch, self.states = tuple(event_shape), patch, states
        channels, height, columns = event_shape
        size = channels * patch * patch
        self.conditioning = Conditioning(width, times, classes)
        self.enter = nn.Linear(size, width)
        self.position = nn.Parameter(0.02 * torch.randn(height * columns // patch**2, width))
        if states:
            self.enter_states = silenced(nn.Linear(states * size, width, bias=False))
            self.gain = silenced(nn.Linear(width, states * size))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = silenced(nn.Linear(width, 2 * width))
        self.leave = silenced(nn.Linear(width, size))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor | None = None,
        states: tuple[Tensor, ...] = (),
        times: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """The network's output `(B, C, H, W)` at states `x` `(B, C, H, W)` and times `t` `(B,)`."""
        check_states(states, self.states)
        embedding = nn.functional.silu(self.conditioning(t, cond, times))
        tokens = self.enter(self._patches(x)) + self.position
        more = self._patches(torch.cat(states, dim=1)) if self.states else None
        if more is not None:
            tokens = tokens + self.enter_states(more)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        scale, shift = self.modulate(embedding).unsqueeze(1).chunk(2, dim=-1)
        out = self.leave(torch.addcmul(shift, self.norm(tokens), 1 + scale))
        if more is not None:  # a direct path for noise that the map passes on
            passed = self.gain(embedding).unsqueeze(1) * more
            out = out + passed.unflatten(-1, (self.states, -1)).sum(-2)
        return rearrange(
            out, "b (h w) (c p q) -> b c (h p) (w q)", p=self.patch, q=self.patch, h=self.event_shape[1] // self.patch
        )

    def _patches(self, x: Tensor) -> Tensor:
        return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=self.patch, q=self.patch)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = silenced(nn.Linear(width, 6 * width))
        self.mix = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.modulate(embedding).unsqueeze(1).chunk(6, dim=-1)
        tokens = tokens + gate_1 * self._attend(torch.addcmul(shift_1, self.norm(tokens), 1 + scale_1))
        return tokens + gate_2 * self.perceptron(torch.addcmul(shift_2, self.norm(tokens), 1 + scale_2))

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = rearrange(self.mix(tokens), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
        return self.merge(rearrange(weights @ value, "b h n d -> b n (h d)"))
