"""Flux: a rectified-flow transformer on packed latents, distilled on its guidance scale.

Its tokens are 2 by 2 patches of a 16-channel latent, its noise level is its time, and its sampler shifts the levels by the
number of tokens. Guidance is told to the network, and costs nothing.

A *flow-map* transformer (a low-rank adaptation loaded into the pipeline before) is told two times, whose embeddings are
averaged: :math:`X_{t,r}(x) = x + (r - t) v(x, t, r)`.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993 (the flow map of Flux)
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor, nn

from .network import LatentNetwork
from .sizes import latent_size, shift_of

__all__ = ["FluxMapNetwork", "FluxNetwork"]

PATCH = 2


class FluxNetwork(LatentNetwork):
    """The velocity of a `FluxPipeline`, on latents `(16, H / 8, W / 8)`."""

    def _guides(self) -> bool:
        return False

    def _shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        rows, columns = latent_size(self.pipe, height, width, self.pipe.default_sample_size, PATCH)
        return self.network.config.in_channels // PATCH**2, rows, columns

    def _embed(self, prompts: list[str], negative: list[str] | None, **encoding: Any) -> dict[str, Tensor]:
        words, pooled, places = self.pipe.encode_prompt(
            prompt=prompts, device=self.states_dtype.device, **{"prompt_2": None, **encoding}
        )
        self.word_places = places
        rows, columns = self.event_shape[1] // PATCH, self.event_shape[2] // PATCH
        self.picture_places = torch.zeros(rows, columns, 3).to(words)
        self.picture_places[..., 1] += torch.arange(rows).to(words)[:, None]
        self.picture_places[..., 2] += torch.arange(columns).to(words)[None]
        self.picture_places = self.picture_places.flatten(0, 1)
        return {"words": words, "pooled": pooled}

    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor]) -> Tensor:
        scale = None
        if self.network.config.guidance_embeds:
            scale = torch.full((len(x),), self.guidance_scale, device=x.device, dtype=torch.float32)
        output = self.network(
            hidden_states=_packed(x),
            timestep=step.to(x.dtype) / self.path.steps,
            guidance=scale,
            pooled_projections=embeddings["pooled"],
            encoder_hidden_states=embeddings["words"],
            txt_ids=self.word_places.to(x.device),
            img_ids=self.picture_places.to(x.device),
            return_dict=False,
        )[0]
        return _unpacked(output, x.shape)

    def _grid(self, steps: int) -> Tensor:
        rows, columns = self.event_shape[1] // PATCH, self.event_shape[2] // PATCH
        levels = torch.linspace(1, 1 / steps, steps, dtype=torch.float64).tolist()
        return shift_of(self.pipe.scheduler, steps, rows * columns, levels)


def _packed(x: Tensor) -> Tensor:
    """The patches of `(B, C, H, W)`, `(B, tokens, C * 4)`; in two steps, which copy longer runs than one would."""
    count, channels, rows, columns = x.shape
    high, wide = rows // PATCH, columns // PATCH
    bands = x.reshape(count, channels, high, PATCH * columns).transpose(1, 2)  # of PATCH rows each
    bands = bands.reshape(count, high, channels * PATCH, wide, PATCH)
    return bands.transpose(2, 3).reshape(count, high * wide, channels * PATCH**2)


def _unpacked(tokens: Tensor, shape: torch.Size) -> Tensor:
    """What :func:`_packed` has packed, `shape` being `(B, C, H, W)`."""
    high, wide = shape[2] // PATCH, shape[3] // PATCH
    patches = tokens.reshape(shape[0], high, wide, shape[1], PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(shape)


class FluxMapNetwork(FluxNetwork):
    """The two-time velocity of a Flux transformer that was distilled into a flow map."""

    def _told(self, step: Tensor, times: tuple[Tensor, ...]) -> Tensor:
        end = (1 - times[0].to(step)) * self.path.steps if times else step
        return torch.stack([step, end], dim=-1)

    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor]) -> Tensor:
        start, end = step.unbind(-1)

        def average(embedder: nn.Module, told: tuple[Tensor, ...], at_start: Tensor) -> Tensor:
            """Of the embedding of time, guidance and text at both ends, in place of that at the start."""
            return (at_start + embedder.forward(end.to(told[0]), *told[1:])) / 2

        hook = self.network.time_text_embed.register_forward_hook(average)
        try:
            return super()._ask(x, start, embeddings)
        finally:
            hook.remove()
