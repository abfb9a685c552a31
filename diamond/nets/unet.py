r"""A convolutional U-Net for images and latents.

Residual blocks of two 3 by 3 convolutions on a pyramid of resolutions, each half the finer one (rounded up: 28, 14, 7,
4), with skips from the way down to the way up and attention where the picture is small. After its first convolution a
block is modulated by the embedding of times and class, :math:`h \leftarrow \mathrm{norm}(h) (1 + a) + b`; its last
convolution starts at zero, so that it starts as the identity.

The output is :math:`F = f(h) + \sum_i g_i(h) \odot n_i`, with `h` the last features and :math:`n_i` the further states:
what a map makes of its noise is to first order a gain for each pixel, which the picture tells.

Attention is written out, and normalisation is given contiguous features, so that forward-mode differentiation can pass.

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, appendix B
    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233,
    | section 3
"""

from __future__ import annotations

import math

import torch

from einops import rearrange
from torch import Tensor, nn

from ..validation import check_positive
from .embedding import Conditioning
from .network import Network, check_states, silenced

__all__ = ["UNet"]

HEADS = 4


class UNet(Network):
    """A U-Net on images `(C, H, W)`.

    Arguments:
        event_shape: `(C, H, W)`, with `H` and `W` multiples of `patch`, and otherwise any.
        width: channels at the finest resolution, a multiple of 4.
        multipliers: channels at each resolution as multiples of `width`, finest first.
        blocks: residual blocks at each resolution, on the way down and on the way up each; a number for all, or one for
            each resolution.
        attention: blocks attend where their features have at most this many rows; 0 for never.
        classes, states, times: as in :class:`~diamond.nets.ResidualMLP`.
        patch: side of the square patches of pixels that become channels first; 2 costs a quarter of 1.
        embedding: size of the embedding of times and class.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int | tuple[int, ...] = 1,
        attention: int = 8,
        classes: int = 0,
        states: int = 0,
        times: int = 0,
        patch: int = 1,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        check_positive("patch", patch)
        if len(event_shape) != 3 or event_shape[1] % patch or event_shape[2] % patch:
            raise ValueError(
                f"event_shape: got {tuple(event_shape)}, expected (C, H, W) with H, W multiples of patch={patch}"
            )
        if width < 1 or width % HEADS:
            raise ValueError(f"width: got {width}, expected a multiple of {HEADS}")
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"multipliers: got {tuple(multipliers)}, expected a whole number for each resolution")
        counts = list(blocks) if isinstance(blocks, (tuple, list)) else [blocks] * len(multipliers)
        if len(counts) != len(multipliers) or any(type(count) is not int or count < 1 for count in counts):
            raise ValueError(
                f"blocks: got {blocks}, expected a whole number, or one for each of {len(multipliers)} resolutions"
            )
        self.config = {
            "event_shape": list(event_shape), "width": width, "multipliers": list(multipliers),
            "blocks": blocks if isinstance(blocks, int) else list(blocks),
            "attention": attention, "classes": classes, "states": states, "times": times, "patch": patch,
            "embedding": embedding,
        }  # fmt: skip
        self.event_shape, self.patch, self.states = tuple(event_shape), patch, states
        size, grid = event_shape[0] * patch**2, (event_shape[1] // patch, event_shape[2] // patch)
        channels = [width * multiplier for multiplier in multipliers]
        self.conditioning = Conditioning(embedding, times, classes)
        self.enter = nn.Conv2d(size, channels[0], 3, padding=1)
        if states:
            self.enter_states = silenced(nn.Conv2d(states * size, channels[0], 3, padding=1, bias=False))
            self.gain = silenced(nn.Conv2d(channels[0], states * size, 3, padding=1))
        self.pyramid = _Pyramid(channels, counts, attention, grid, embedding)
        self.norm = _Norm(channels[0], affine=True)
        self.leave = silenced(nn.Conv2d(channels[0], size, 3, padding=1))

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
        hidden = self.enter(nn.functional.pixel_unshuffle(x, self.patch))
        more = nn.functional.pixel_unshuffle(torch.cat(states, dim=1), self.patch) if self.states else None
        if more is not None:
            hidden = hidden + self.enter_states(more)
        hidden = nn.functional.silu(self.norm(self.pyramid(hidden, embedding)))
        out = self.leave(hidden)
        if more is not None:  # a direct path for noise that the map passes on
            out = out + (self.gain(hidden) * more).unflatten(1, (self.states, -1)).sum(1)
        return nn.functional.pixel_shuffle(out, self.patch)


class _Pyramid(nn.Module):
    """One resolution, with all that are coarser inside: `(B, channels[0], *grid)` to the same."""

    def __init__(
        self, channels: list[int], blocks: list[int], attention: int, grid: tuple[int, int], embedding: int
    ) -> None:
        super().__init__()
        here, coarser = channels[0], channels[1:]
        place = grid if grid[0] <= attention else None
        self.down = nn.ModuleList(_Block(here, embedding, place) for _ in range(blocks[0]))
        self.up = nn.ModuleList(_Block(here, embedding, place) for _ in range(blocks[0]))
        self.inner = None
        if coarser:
            half = (grid[0] + 1) // 2, (grid[1] + 1) // 2
            self.shrink = nn.Conv2d(here, coarser[0], 3, stride=2, padding=1)
            self.inner = _Pyramid(coarser, blocks[1:], attention, half, embedding)
            self.widen = nn.Conv2d(coarser[0], here, 1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        for block in self.down:
            hidden = block(hidden, embedding)
        if self.inner is not None:
            coarse = self.widen(self.inner(self.shrink(hidden), embedding))
            hidden = hidden + nn.functional.interpolate(coarse, size=hidden.shape[-2:])
        for block in self.up:
            hidden = block(hidden, embedding)
        return hidden


class _Block(nn.Module):
    """A residual block, and attention after it where the features have a `place` (their height and width)."""

    def __init__(self, channels: int, embedding: int, place: tuple[int, int] | None) -> None:
        super().__init__()
        self.norm = _Norm(channels, affine=True)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulate = silenced(nn.Linear(embedding, 2 * channels))
        self.second_norm = _Norm(channels, affine=False)
        self.second = silenced(nn.Conv2d(channels, channels, 3, padding=1))
        self.attention = _Attention(channels, place) if place else nn.Identity()

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        inner = self.second_norm(self.first(nn.functional.silu(self.norm(hidden))))
        inner = self.second(nn.functional.silu(torch.addcmul(shift, inner, 1 + scale)))
        return self.attention(hidden + inner)


class _Attention(nn.Module):
    def __init__(self, channels: int, place: tuple[int, int]) -> None:
        super().__init__()
        self.norm = _Norm(channels, affine=True)
        self.position = nn.Parameter(0.02 * torch.randn(math.prod(place), channels))
        self.mix = nn.Linear(channels, 3 * channels)
        self.merge = silenced(nn.Linear(channels, channels))

    def forward(self, hidden: Tensor) -> Tensor:
        tokens = self.norm(hidden).flatten(2).transpose(1, 2) + self.position
        query, key, value = rearrange(self.mix(tokens), "b n (three h d) -> three b h n d", three=3, h=HEADS)
        weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
        attended = self.merge(rearrange(weights @ value, "b h n d -> b n (h d)"))
        return hidden + attended.transpose(1, 2).unflatten(2, hidden.shape[-2:])


class _Norm(nn.GroupNorm):
    """Normalises at most 8 groups of at least 4 channels. The derivative of torch's asks for contiguous features."""

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__(math.gcd(8, channels // HEADS), channels, affine=affine)

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.contiguous())
