r"""Cosines of images and prompts in the joint space of CLIP: the score itself, and two that people's choices tuned.

With unit vectors :math:`\hat\phi` of the image and :math:`\hat\psi` of the prompt,

.. math:: r_\mathrm{CLIP} = 100 \, \hat\phi \cdot \hat\psi, \qquad
   r_\mathrm{Pick} = e^{\ell} \, \hat\phi \cdot \hat\psi, \qquad r_\mathrm{HPS} = \hat\phi \cdot \hat\psi,

where :math:`\ell` is the logit scale that PickScore's network was trained with, close to :math:`\log 100`. None is
clamped: a negative cosine has a gradient like any other.

References:
    | CLIPScore: A Reference-free Evaluation Metric for Image Captioning (Hessel et al., 2021)
    | https://arxiv.org/abs/2104.08718
    | Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation (Kirstain et al., 2023)
    | https://arxiv.org/abs/2305.01569
    | Human Preference Score v2 (Wu et al., 2023)
    | https://arxiv.org/abs/2306.09341
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from torch import Tensor
from torch.nn.functional import normalize

from .loading import (
    common_prefix,
    filled,
    find,
    load_tokenizer,
    read_json,
    read_processor,
    read_tensors,
    readable,
    transformers,
)
from .open_clip_layout import clip_config, from_open_clip
from .preprocessing import Preprocessing
from .prompted import PromptedReward

__all__ = ["CLIPReward", "CLIPScore", "HPSv2", "PickScore", "embedding", "load_clip"]


class CLIPReward(PromptedReward):
    """What these rewards share: `similarity` times a scale. Arguments and errors as in :class:`CLIPScore`."""

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str | None = None,
        processor: str | Path | None = None,
        preprocessing: Preprocessing | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> None:
        network = load_clip(model, local_files_only)
        source = model if processor is None else processor
        tokenizer = load_tokenizer(source, local_files_only)
        if preprocessing is None:
            config = read_processor(source, local_files_only)
            preprocessing = self.preprocessing_of(config, network.config.vision_config.image_size)
        super().__init__(network, preprocessing, prompt, **settings)
        self.tokenizer = tokenizer

    def preprocessing_of(self, config: dict[str, Any] | None, size: int) -> Preprocessing:
        """That of a processor's configuration, or the usual one for a network that sees images of one size."""
        return Preprocessing(size, size) if config is None else Preprocessing.from_config(config)

    def encode(self, prompts: list[str]) -> Tensor:
        longest = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(prompts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        tokens = {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}
        return embedding(self.network.get_text_features(**tokens))

    def similarity(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """Cosines `(n,)` of images and encoded prompts, in [-1, 1]."""
        return (embedding(self.network.get_image_features(pixel_values=pixels)) * texts).sum(-1)

    def score(self, pixels: Tensor, *rows: Tensor) -> Tensor:
        return self.scale() * self.similarity(pixels, *rows)

    def scale(self) -> Tensor | float:
        """What the cosine is multiplied by."""
        return 1.0


class CLIPScore(CLIPReward):
    """The cosine of image and prompt times 100, in [-100, 100]: near 20 to 35 for images and their prompts.

    Arguments:
        model: the hub's id of a repository or a folder, with a CLIP network of transformers.
        prompt: one for all images; where it is None, `cond` is a list of one an image.
        processor: a repository or folder with the tokenizer and the preprocessor's configuration, `model` by default.
        preprocessing: from images to what the network sees, by default that of the processor.
        local_files_only: whether nothing is fetched from the hub.
        device, dtype, chunk, checkpoint: as in :class:`~align.rewards.pretrained.prompted.PretrainedReward`.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: there is no such model.
        ValueError: an argument that does not fit, a repository that is closed to us; when called, images or prompts
            that do not fit.
    """

    def __init__(self, model: str | Path = "openai/clip-vit-large-patch14", **settings: Any) -> None:
        super().__init__(model, **settings)

    def scale(self) -> float:
        return 100.0


class PickScore(CLIPReward):
    """The cosine of image and prompt times the scale that the network was trained with, near 18 to 24: the difference
    of two images' scores is the log-odds that people pick the first. Arguments and errors as in :class:`CLIPScore`."""

    def __init__(self, model: str | Path = "yuvalkirstain/PickScore_v1", **settings: Any) -> None:
        super().__init__(model, **settings)

    def scale(self) -> Tensor:
        return self.network.logit_scale.exp()


class HPSv2(CLIPReward):
    """The cosine of image and prompt, near .2 to .35, of the network that people's rankings tuned (v2.1).

    An image that is no square is fitted in whole, with black beside it, as its authors do.

    Arguments:
        model: a repository, a folder, or a .safetensors file: a CLIP network of transformers with its configuration, or
            the tensors alone in the authors' layout, that of open_clip's ViT-H-14.
        processor: a repository or folder with the tokenizer, by default that of the network it was tuned from.
        settings: as in :class:`CLIPScore`.

    Raises:
        ImportError, FileNotFoundError, ValueError: as in :class:`CLIPScore`.
    """

    def __init__(
        self,
        model: str | Path = "RE-N-Y/hpsv21",
        *,
        processor: str | Path | None = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        **settings: Any,
    ) -> None:
        super().__init__(model, processor=processor, **settings)

    def preprocessing_of(self, config: dict[str, Any] | None, size: int) -> Preprocessing:
        return Preprocessing(size, size, "pad")


def load_clip(model: str | Path, local_files_only: bool = False) -> Any:
    """A `CLIPModel`, from what transformers keeps of one or from tensors in open_clip's layout.

    Raises:
        ImportError, FileNotFoundError, ValueError: as in :class:`CLIPScore`.
    """
    package = transformers()
    config = None if str(model).endswith(".safetensors") else find(model, "config.json", local_files_only)
    kind = None if config is None else read_json(config).get("model_type")
    if kind is not None:
        if kind != "clip":
            raise ValueError(f"{model}: got a model of type {kind!r}, expected 'clip'")
        with readable(model):
            return package.CLIPModel.from_pretrained(
                str(model), use_safetensors=True, local_files_only=local_files_only
            )
    tensors = read_tensors(model, local_files_only)
    prefix = common_prefix(tensors, "visual.conv1.weight", model)
    state = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    with readable(model):
        return filled(package.CLIPModel, package.CLIPConfig(**clip_config(state)), from_open_clip(state))


def embedding(output: Any) -> Tensor:
    """The unit vectors `(n, D)` in float32 or better of what transformers 4 gives as a tensor and 5 as an object."""
    features = output if isinstance(output, Tensor) else output.pooler_output
    return normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
