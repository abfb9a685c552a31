"""Stable Diffusion 1, 2 and XL and their few-step forms: a U-Net on a variance-preserving path, seen on the linear one.

On the linear path Euler's method with the scheduler's own times is DDIM, step by step, because both carry the two means
along; and so are Euler's sampler of diffusers and DPM-Solver of order 1. Of other samplers only the times are taken: of
those of higher order (PNDM, which Stable Diffusion 1.5 is published with, DPM-Solver++, Heun), and of those that draw noise
on the way. The end is always the clean data, where a scheduler may stop a little before (`set_alpha_to_one=False`,
`final_sigmas_type="sigma_min"`). Their schedules keep a little signal at the noisiest step, at which their samplers start as
if it were none: so does :meth:`begin`.

References:
    | Denoising Diffusion Implicit Models (Song et al., 2020), https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

import copy

from typing import Any

import torch

from torch import Tensor

from ...interpolant import Linear, per_sample
from ..diffusers_path import TrainedPath, log_snr_of, prediction_of
from .network import LatentNetwork
from .sizes import latent_size

__all__ = ["StableDiffusionNetwork", "StableDiffusionXLNetwork"]


class StableDiffusionNetwork(LatentNetwork):
    """The velocity of a `StableDiffusionPipeline`, on latents `(4, H / 8, W / 8)`."""

    backbone = "unet"

    def _guides(self) -> bool:
        return self.guidance_scale > 1 and self.network.config.time_cond_proj_dim is None

    def _path(self) -> TrainedPath:
        scheduler = self.pipe.scheduler
        return TrainedPath(Linear(), prediction_of(scheduler), log_snr_of(scheduler))

    def _shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        size = self.network.config.sample_size
        rows, columns = size if isinstance(size, (tuple, list)) else (size, size)
        high, wide = latent_size(self.pipe, height, width, rows)[0], latent_size(self.pipe, height, width, columns)[1]
        return self.network.config.in_channels, high, wide

    def _embed(self, prompts: list[str], negative: list[str] | None, **encoding: Any) -> dict[str, Tensor]:
        words, negative_words = self.pipe.encode_prompt(
            prompts, self.states_dtype.device, 1, self.guided, negative_prompt=negative, **encoding
        )
        return {"words": words, "negative_words": negative_words} if self.guided else {"words": words}

    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor], **more: Any) -> Tensor:
        return self.network(
            x,
            step,
            encoder_hidden_states=embeddings["words"].to(x.dtype),
            timestep_cond=self._told_guidance(len(x), x),
            return_dict=False,
            **more,
        )[0]

    def _told_guidance(self, count: int, x: Tensor) -> Tensor | None:
        """The embedding of the guidance scale, for networks distilled on it (latent consistency models)."""
        size = self.network.config.time_cond_proj_dim
        if size is None:
            return None
        scale = torch.full((count,), self.guidance_scale - 1)
        return self.pipe.get_guidance_scale_embedding(scale, embedding_dim=size).to(x)

    def _grid(self, steps: int) -> Tensor:
        visited = self._scheduler(steps).timesteps.unique().flip(0)  # samplers of higher order stand at some twice
        times = self.path.time(visited)
        return torch.cat([times, times.new_ones(1)])

    def begin(self, noise: Tensor, steps: int) -> Tensor:
        own, t = self._scheduler(steps), self.times(steps)[:1]
        scaled = own.scale_model_input(noise * own.init_noise_sigma, own.timesteps[0])
        return scaled * per_sample(self.path.place(t).size.to(noise), noise)

    def _scheduler(self, steps: int) -> Any:
        own = copy.deepcopy(self.pipe.scheduler)
        if own.config.get("interpolation_type", "linear") != "linear":
            raise ValueError(
                f"scheduler: got a {type(own).__name__} of interpolation_type={own.config.interpolation_type!r}, whose "
                "noise levels are not those of its steps, expected 'linear'"
            )
        own.set_timesteps(steps, device="cpu")
        return own


class StableDiffusionXLNetwork(StableDiffusionNetwork):
    """The velocity of a `StableDiffusionXLPipeline`, on latents `(4, H / 8, W / 8)`; the picture's size is told."""

    def _embed(self, prompts: list[str], negative: list[str] | None, **encoding: Any) -> dict[str, Tensor]:
        words, negative_words, pooled, negative_pooled = self.pipe.encode_prompt(
            prompts, device=self.states_dtype.device, do_classifier_free_guidance=self.guided,
            negative_prompt=negative, **encoding,
        )  # fmt: skip
        sides = tuple(side * self.pipe.vae_scale_factor for side in self.event_shape[1:])
        encoder = self.pipe.text_encoder_2
        size = pooled.shape[-1] if encoder is None else encoder.config.projection_dim
        self.picture_size = self.pipe._get_add_time_ids(
            sides, (0, 0), sides, dtype=words.dtype, text_encoder_projection_dim=int(size)
        ).to(self.states_dtype.device)
        embeddings = {"words": words, "pooled": pooled}
        if self.guided:
            embeddings |= {"negative_words": negative_words, "negative_pooled": negative_pooled}
        return embeddings

    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor], **more: Any) -> Tensor:
        told = {"text_embeds": embeddings["pooled"], "time_ids": self.picture_size.to(x.device).expand(len(x), -1)}
        return super()._ask(x, step, embeddings, added_cond_kwargs=told)
