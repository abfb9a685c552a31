r"""Sana, a rectified-flow transformer with linear attention on deeply compressed latents, and Sana-Sprint.

Sana-Sprint is distilled in trigonometric coordinates, :math:`x' = \cos(\theta) z + \sin(\theta) \epsilon` in units of the
data's scale, but its network is Sana's own, on the linear path at the level :math:`s = \sin \theta / (\cos \theta + \sin
\theta)`: the published change of variables cancels, and its consistency function is :math:`X_{t,1}(x) = x - s F(x, s)` in
our coordinates too. So both are one network here, and the data's scale is the autoencoder's business.

References:
    | SANA (Xie et al., 2024), https://arxiv.org/abs/2410.10629
    | SANA-Sprint (Chen et al., 2025), https://arxiv.org/abs/2503.09641, section 3
"""

from __future__ import annotations

import copy

from typing import Any

import torch

from torch import Tensor

from .network import LatentNetwork
from .sizes import latent_size, shift_of

__all__ = ["SanaNetwork", "SanaSprintNetwork"]


class SanaNetwork(LatentNetwork):
    """The velocity of a `SanaPipeline`, on latents `(C, H / 32, W / 32)`. Sizes are taken as they are, not moved to the
    nearest of the training's."""

    def _shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        usual = self.network.config.sample_size
        rows, columns = latent_size(self.pipe, height, width, usual, self.network.config.patch_size)
        return self.network.config.in_channels, rows, columns

    def _embed(self, prompts: list[str], negative: list[str] | None, **encoding: Any) -> dict[str, Tensor]:
        words, mask, negative_words, negative_mask = self.pipe.encode_prompt(
            prompts, self.guided, negative_prompt=negative or "", device=self.states_dtype.device,
            **self._encoding(encoding),
        )  # fmt: skip
        embeddings = {"words": words, "mask": mask}
        if self.guided:
            embeddings |= {"negative_words": negative_words, "negative_mask": negative_mask}
        return embeddings

    def _encoding(self, given: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's usual way to embed a prompt: with an instruction before it, unless another is given."""
        usual = ("complex_human_instruction", "max_sequence_length")
        return {name: self._usual(name) for name in usual} | given

    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor], **more: Any) -> Tensor:
        return self.network(
            x,
            encoder_hidden_states=embeddings["words"].to(x.dtype),
            encoder_attention_mask=embeddings["mask"],
            timestep=step * self.network.config.timestep_scale,
            return_dict=False,
            **more,
        )[0]

    def _grid(self, steps: int) -> Tensor:
        return shift_of(self.pipe.scheduler, steps, self.event_shape[1] * self.event_shape[2])


class SanaSprintNetwork(SanaNetwork):
    """The velocity of a `SanaSprintPipeline`: it points to the end of the flow, not to the mean. The network is told its
    guidance."""

    def _guides(self) -> bool:
        return False

    def _embed(self, prompts: list[str], negative: list[str] | None, **encoding: Any) -> dict[str, Tensor]:
        words, mask = self.pipe.encode_prompt(prompts, device=self.states_dtype.device, **self._encoding(encoding))
        return {"words": words, "mask": mask}

    def _ask(self, x: Tensor, step: Tensor, embeddings: dict[str, Tensor], **more: Any) -> Tensor:
        scale = torch.full((len(x),), self.guidance_scale, device=x.device).to(embeddings["words"].dtype)
        guidance = scale * self.network.config.guidance_embeds_scale
        return super()._ask(x, step / self.path.steps, embeddings, guidance=guidance)

    def _grid(self, steps: int) -> Tensor:
        own = copy.deepcopy(self.pipe.scheduler)
        middle = self._usual("intermediate_timesteps") if steps == 2 else None
        own.set_timesteps(
            steps, max_timesteps=self._usual("max_timesteps"), intermediate_timesteps=middle, device="cpu"
        )
        angle = own.timesteps.double()
        return self.path.interpolant.time_of(angle.cos().clamp_min(0), angle.sin())
