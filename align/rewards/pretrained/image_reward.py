r"""ImageReward: what people rank higher, by a network that reads the prompt while it looks at the image.

BLIP's text encoder attends to the image's patches :math:`\phi(x)`, and a linear head sees its first token:

.. math:: r(x, c) = \frac{h\big(\psi(c; \phi(x))_1\big) - \mu}{\varsigma}, \qquad \mu = 0.16717, \; \varsigma = 1.0333,

which makes the rewards of its training set one of mean 0 and standard deviation 1. Nothing is clamped: there is no
:math:`\max(2 - r, 0)`, which belongs to one way of training with it.

References:
    | ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation (Xu et al., 2023)
    | https://arxiv.org/abs/2304.05977
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torch import Tensor, nn

from .blip_layout import image_config, image_tower_from, text_config, text_tower_from
from .head import head_from
from .loading import common_prefix, filled, load_tokenizer, read_tensors, readable, transformers
from .preprocessing import Preprocessing
from .prompted import PromptedReward

__all__ = ["ImageReward", "ImageRewardNetwork"]

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the head's answers on the authors' training set
TOKENS = 35  # of a prompt, with its ends


class ImageRewardNetwork(nn.Module):
    """BLIP's two towers and the head.

    Arguments:
        state: the authors' tensors by name: `blip.visual_encoder.*`, `blip.text_encoder.*` and `mlp.layers.*`, all with
            one prefix or none; others are left alone.
        name: what messages call them.

    Raises:
        ValueError: tensors that are missing or do not fit.
    """

    image_tower: Any
    text_tower: Any

    def __init__(self, state: Mapping[str, Tensor], name: str = "state") -> None:
        super().__init__()
        package = transformers()
        state = dict(state)
        prefix = common_prefix(state, "blip.visual_encoder.cls_token", name)
        image = _below(state, f"{prefix}blip.visual_encoder.")
        text = _below(state, f"{prefix}blip.text_encoder.")
        with readable(name):
            config = package.BlipVisionConfig(**image_config(image))
            self.image_tower = filled(package.BlipVisionModel, config, image_tower_from(image))
            config = package.BlipTextConfig(**text_config(text))
            self.text_tower = filled(package.BlipTextModel, config, text_tower_from(text), add_pooling_layer=False)
        self.head = head_from(state, f"{prefix}mlp.layers.", name)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Rewards `(n,)` of preprocessed images and of prompts' tokens `(n, T)`, of which `mask` counts."""
        patches = self.image_tower(pixel_values=pixels).last_hidden_state
        seen = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        read = self.text_tower(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=seen,
            return_dict=True,
        ).last_hidden_state
        answer = self.head(read[:, 0]).squeeze(-1)
        return ((answer if answer.dtype == torch.float64 else answer.float()) - MEAN) / STD


class ImageReward(PromptedReward):
    """How high people rank an image for its prompt: mean 0 and standard deviation 1 over the authors' training set,
    about -2 to 2.

    Arguments:
        model: a .safetensors file, or a folder or the hub's id of a repository with a `model.safetensors`: the tensors
            in the authors' layout.
        prompt: one for all images; where it is None, `cond` is a list of one an image. Of a long one 35 tokens are read.
        tokenizer: a repository or folder with that of BERT, uncased.
        preprocessing: from images to what the network sees; by default the shorter side is resized, the centre cut out.
        local_files_only: whether nothing is fetched from the hub.
        device, dtype, chunk, checkpoint: as in :class:`~align.rewards.pretrained.prompted.PretrainedReward`.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: there is no such model.
        ValueError: an argument or tensors that do not fit; when called, images or prompts that do not fit.
    """

    def __init__(
        self,
        model: str | Path = "RE-N-Y/ImageReward",
        *,
        prompt: str | None = None,
        tokenizer: str | Path = "google-bert/bert-base-uncased",
        preprocessing: Preprocessing | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> None:
        transformers()
        network = ImageRewardNetwork(read_tensors(model, local_files_only), str(model))
        reader = load_tokenizer(tokenizer, local_files_only)
        size = network.image_tower.config.image_size
        super().__init__(network, preprocessing or Preprocessing(size, size), prompt, **settings)
        self.tokenizer = reader

    def encode(self, prompts: list[str]) -> Tensor:
        """Tokens and which of them count, `(P, 2, T)`: what the text means depends on the image."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        return torch.stack([tokens["input_ids"], tokens["attention_mask"]], 1).to(self.device)

    def score(self, pixels: Tensor, *rows: Tensor) -> Tensor:
        (texts,) = rows
        return self.network(pixels, texts[:, 0], texts[:, 1])


def _below(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name[len(start) :]: tensor for name, tensor in state.items() if name.startswith(start)}
