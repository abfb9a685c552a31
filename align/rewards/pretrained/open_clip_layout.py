r"""A CLIP network in the names of open_clip, told in those of transformers.

The two are the same network. open_clip keeps the three projections of attention in one matrix, :math:`(W_q; W_k; W_v)`
by rows, and its last projections the other way round, :math:`x W` where transformers has :math:`W x`. All sizes can be
read off the tensors save the number of heads.

References:
    | Reproducible scaling laws for contrastive language-image learning (Cherti et al., 2022)
    | https://arxiv.org/abs/2212.07143
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["clip_config", "from_open_clip"]

HEAD_WIDTH = 64  # of the text's side, in every released size

PLAIN = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # as transformers spells it
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TURNED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
IN_A_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK = re.compile(r"(?P<side>visual\.)?transformer\.resblocks\.(?P<number>\d+)\.(?P<rest>.+)")


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `CLIPModel` of transformers from those of open_clip's `CLIP`, by name.

    Raises:
        ValueError: a name that open_clip does not have.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in PLAIN:
            converted[PLAIN[name]] = tensor
        elif name in TURNED:
            converted[TURNED[name]] = tensor.T.contiguous()
        elif (block := BLOCK.fullmatch(name)) is not None:
            model = "vision_model" if block["side"] else "text_model"
            converted |= _of_a_block(f"{model}.encoder.layers.{block['number']}.", block["rest"], tensor, name)
        elif name != "attn_mask":  # a constant
            raise _unknown(name)
    return converted


def clip_config(state: Mapping[str, Tensor], heads: int = 16, activation: str = "gelu") -> dict[str, Any]:
    """What `CLIPConfig` takes, read off open_clip's tensors.

    Arguments:
        state: the tensors by name.
        heads: of the image's side: 16 in ViT-L and ViT-H, 12 in ViT-B.
        activation: "gelu", or "quick_gelu" for networks that OpenAI trained.
    """
    text, image = state["token_embedding.weight"], state["visual.conv1.weight"]
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    ends = _token_ends(len(text))
    return {
        "projection_dim": state["text_projection"].shape[1],
        "text_config": {
            **ends,
            "vocab_size": len(text),
            "hidden_size": text.shape[1],
            "num_attention_heads": max(text.shape[1] // HEAD_WIDTH, 1),
            "num_hidden_layers": _depth(state, ""),
            "intermediate_size": len(state["transformer.resblocks.0.mlp.c_fc.weight"]),
            "max_position_embeddings": len(state["positional_embedding"]),
            "projection_dim": state["text_projection"].shape[1],
            "hidden_act": activation,
        },
        "vision_config": {
            "hidden_size": len(image),
            "num_attention_heads": heads,
            "num_hidden_layers": _depth(state, "visual."),
            "intermediate_size": len(state["visual.transformer.resblocks.0.mlp.c_fc.weight"]),
            "image_size": side * image.shape[-1],
            "patch_size": image.shape[-1],
            "projection_dim": state["text_projection"].shape[1],
            "hidden_act": activation,
        },
    }


def _token_ends(tokens: int) -> dict[str, int]:
    """Where a text begins and ends: the last two tokens of the vocabulary, and padding is by the end."""
    return {"bos_token_id": tokens - 2, "eos_token_id": tokens - 1, "pad_token_id": tokens - 1}


def _of_a_block(start: str, rest: str, tensor: Tensor, name: str) -> dict[str, Tensor]:
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = rest.rpartition("_")[2]
        thirds = (third.contiguous() for third in tensor.chunk(3))
        return {f"{start}self_attn.{which}_proj.{kind}": third for which, third in zip("qkv", thirds, strict=True)}
    part, _, kind = rest.rpartition(".")
    if part not in IN_A_BLOCK:
        raise _unknown(name)
    return {f"{start}{IN_A_BLOCK[part]}.{kind}": tensor}


def _unknown(name: str) -> ValueError:
    return ValueError(f"state: got a tensor {name!r}, expected the names of open_clip's CLIP with two transformers")


def _depth(state: Mapping[str, Tensor], side: str) -> int:
    return sum(name.startswith(f"{side}transformer.resblocks.") and name.endswith("ln_1.weight") for name in state)
