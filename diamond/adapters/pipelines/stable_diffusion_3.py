"""Stable Diffusion 3 and 3.5: a rectified-flow transformer on 16-channel latents, with classifier-free guidance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .network import LatentNetwork
from .sizes import latent_size, shift_of

__all__ = ["StableDiffusion3Network"]


class StableDiffusion3Network(LatentNetwork):
    """The velocity of a `StableDiffusion3Pipeline`, on latents `(16, H / 8, W / 8)`."""

    def _shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        patch = self.network.config.patch_size
        rows, columns = latent_size(self.pipe, height, width, self.pipe.default_sample_size, patch)
        return self.network.config.in_channels, rows, columns

    def _embed(self, prompts: list[str], negative: list[str] | None, **encoding: Any) -> dict[str, Tensor]:
        words, negative_words, pooled, negative_pooled = self.pipe.encode_prompt(
            prompt=prompts, negative_prompt=negative, device=self.states_dtype.device,
            do_classifier_free_guidance=self.guided, **{"prompt_2": None, "prompt_3": None, **encoding},
        )  # fmt: skip
        embeddings = {"words": words, "pooled": pooled}
        if self.guided:
            embeddings |= {"negative_words": negative_words, "negative_pooled": negative_pooled}
        return embeddings

    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor]) -> Tensor:
        return self.network(
            hidden_states=x,
            timestep=step,
            encoder_hidden_states=embeddings["words"],
            pooled_projections=embeddings["pooled"],
            return_dict=False,
        )[0]

    def _grid(self, steps: int) -> Tensor:
        patch = self.network.config.patch_size
        return shift_of(self.pipe.scheduler, steps, (self.event_shape[1] // patch) * (self.event_shape[2] // patch))
