r"""BLIP's two towers in the names of its authors, told in those of transformers.

The text's side has the same names in both. All sizes can be read off the tensors, since every head is 64 wide.

References:
    | BLIP: Bootstrapping Language-Image Pre-training (Li et al., 2022)
    | https://arxiv.org/abs/2201.12086
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["image_config", "image_tower_from", "text_config", "text_tower_from"]

HEAD_WIDTH = 64
IMAGE_EPS, TEXT_EPS = 1e-6, 1e-12  # of the layer norms, as their authors trained them

PLAIN = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
IN_A_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
BLOCK = re.compile(r"blocks\.(?P<number>\d+)\.(?P<part>.+)\.(?P<kind>weight|bias)")


def image_tower_from(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `BlipVisionModel` from those of the authors' `visual_encoder`, by name.

    Raises:
        ValueError: a name that it does not have.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = BLOCK.fullmatch(name)
        if name in PLAIN:
            converted[PLAIN[name]] = tensor
        elif block is not None and block["part"] in IN_A_BLOCK:
            converted[f"encoder.layers.{block['number']}.{IN_A_BLOCK[block['part']]}.{block['kind']}"] = tensor
        else:
            raise ValueError(f"state: got a tensor {name!r}, expected the names of BLIP's visual_encoder")
    return converted


def text_tower_from(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `BlipTextModel` from those of the authors' `text_encoder`, by name."""
    return {name: tensor for name, tensor in state.items() if name != "embeddings.position_ids"}  # a constant


def image_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `BlipVisionConfig` takes, read off the tensors of the authors' `visual_encoder`."""
    width, patch = len(state["patch_embed.proj.weight"]), state["patch_embed.proj.weight"].shape[-1]
    return {
        "hidden_size": width,
        "num_attention_heads": width // HEAD_WIDTH,
        "num_hidden_layers": sum(name.endswith("norm1.weight") for name in state),
        "intermediate_size": len(state["blocks.0.mlp.fc1.weight"]),
        "image_size": round((state["pos_embed"].shape[1] - 1) ** 0.5) * patch,
        "patch_size": patch,
        "layer_norm_eps": IMAGE_EPS,
    }


def text_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `BlipTextConfig` takes, read off the tensors of the authors' `text_encoder`."""
    words = state["embeddings.word_embeddings.weight"]
    return {
        "vocab_size": len(words),
        "hidden_size": words.shape[1],
        "num_attention_heads": words.shape[1] // HEAD_WIDTH,
        "num_hidden_layers": sum(name.endswith("crossattention.self.query.weight") for name in state),
        "intermediate_size": len(state["encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(state["embeddings.position_embeddings.weight"]),
        "encoder_hidden_size": state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        "layer_norm_eps": TEXT_EPS,
        "pad_token_id": 0,
        "is_decoder": True,  # its layers attend to the image; the text is read in both directions all the same
    }
