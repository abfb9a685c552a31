"""Files in the names of open_clip: tensors, sizes, and the same scores."""

import pytest
import torch

from safetensors.torch import save_file

from align.rewards import HPSv2
from align.rewards.pretrained.open_clip_layout import clip_config, from_open_clip


def as_open_clip(clip):
    """The tiny network in the names of open_clip."""
    state, given = {}, clip.state_dict()
    for side, ours in (("", "text_model."), ("visual.", "vision_model.")):
        for number in range(2):
            start, here = f"{ours}encoder.layers.{number}.", f"{side}transformer.resblocks.{number}."
            for kind in ("weight", "bias"):
                thirds = [given[f"{start}self_attn.{which}_proj.{kind}"] for which in "qkv"]
                state[f"{here}attn.in_proj_{kind}"] = torch.cat(thirds)
                for theirs, name in (
                    ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("attn.out_proj", "self_attn.out_proj"),
                    ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
                ):  # fmt: skip
                    state[f"{here}{theirs}.{kind}"] = given[f"{start}{name}.{kind}"]
    for theirs, name in (
        ("token_embedding", "text_model.embeddings.token_embedding"), ("ln_final", "text_model.final_layer_norm"),
        ("visual.conv1", "vision_model.embeddings.patch_embedding"), ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
    ):  # fmt: skip
        state |= {
            f"{theirs}.{kind}": given[f"{name}.{kind}"] for kind in ("weight", "bias") if f"{name}.{kind}" in given
        }
    state["positional_embedding"] = given["text_model.embeddings.position_embedding.weight"]
    state["visual.positional_embedding"] = given["vision_model.embeddings.position_embedding.weight"]
    state["visual.class_embedding"] = given["vision_model.embeddings.class_embedding"]
    state["text_projection"], state["visual.proj"] = (
        given["text_projection.weight"].T,
        given["visual_projection.weight"].T,
    )
    return state | {"logit_scale": given["logit_scale"]}


def test_names_of_open_clip_become_those_of_transformers(clip):
    given = clip.state_dict()
    found = from_open_clip(as_open_clip(clip) | {"attn_mask": torch.zeros(20, 20)})
    assert found.keys() == given.keys() and all(torch.equal(found[name], given[name]) for name in given)
    for name in ("visual.trunk.blocks.0.norm1.weight", "transformer.resblocks.0.ln_3.weight"):
        with pytest.raises(ValueError, match=f"^state: got a tensor '{name}', expected the names of open_clip"):
            from_open_clip({name: torch.zeros(1)})


def test_sizes_are_read_off_tensors_of_open_clip(clip):
    config = clip_config(as_open_clip(clip))
    for side in ("text_config", "vision_config"):
        kept = getattr(clip.config, side).to_dict()
        for name, value in config[side].items():
            if name != "projection_dim":  # the networks do not look at a side's own
                assert kept[name] == value, name
    assert config["projection_dim"] == clip.config.projection_dim


def test_sizes_of_vit_h_14():
    """As its authors list them: width 1280 in 32 layers of 16 heads, and width 1024 in 24 layers of 16."""
    state = {
        f"{side}transformer.resblocks.{number}.ln_1.weight": torch.empty(0)
        for side, depth in (("", 24), ("visual.", 32))
        for number in range(depth)
    }
    shapes = {
        "token_embedding.weight": (49408, 1024), "positional_embedding": (77, 1024), "text_projection": (1024, 1024),
        "transformer.resblocks.0.mlp.c_fc.weight": (4096, 1024), "visual.conv1.weight": (1280, 3, 14, 14),
        "visual.positional_embedding": (257, 1280), "visual.transformer.resblocks.0.mlp.c_fc.weight": (5120, 1280),
    }  # fmt: skip
    found = clip_config(state | {name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    text, image = found["text_config"], found["vision_config"]
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
    assert [text[name] for name in sizes] == [1024, 24, 16, 4096, "gelu"]
    assert [image[name] for name in sizes] == [1280, 32, 16, 5120, "gelu"]
    assert (image["image_size"], image["patch_size"], found["projection_dim"]) == (224, 14, 1024)
    assert (text["bos_token_id"], text["eos_token_id"], text["max_position_embeddings"]) == (49406, 49407, 77)


@pytest.mark.parametrize("where", ["file", "folder", "prefix"])
def test_the_authors_file_scores_the_same(where, clip, clip_folder, images, prompts, tmp_path, made):
    prefix = "model." if where == "prefix" else ""
    state = {f"{prefix}{name}": tensor.contiguous() for name, tensor in as_open_clip(clip).items()}
    save_file(state, tmp_path / ("model.safetensors" if where == "folder" else "hps.safetensors"))
    path = tmp_path if where == "folder" else tmp_path / "hps.safetensors"
    found = HPSv2(path, processor=clip_folder, local_files_only=True)
    expected = made("hps", clip_folder)
    x = images(4, 30, 50)
    assert torch.equal(found(x, prompts), expected(x, prompts))
    assert not torch.allclose(expected(x, prompts), made("clip", clip_folder)(x, prompts) / 100, atol=1e-3)  # it pads


def test_what_is_missing_from_the_authors_file_is_told(clip, clip_folder, tmp_path):
    state = {name: tensor.contiguous() for name, tensor in as_open_clip(clip).items()}
    for absent, message in (
        ("visual.conv1.weight", "it holds no tensor 'visual.conv1.weight', expected one, in the layout"),
        ("visual.ln_pre.bias", "it cannot be loaded, expected .*missing tensors vision_model.pre_layrnorm.bias"),
    ):
        path = tmp_path / "hps.safetensors"
        save_file({name: tensor for name, tensor in state.items() if name != absent}, path)
        with pytest.raises(ValueError, match=f"^{path}: {message}"):
            HPSv2(path, processor=clip_folder, local_files_only=True)
