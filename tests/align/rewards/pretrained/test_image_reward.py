"""ImageReward, against its definition written with transformers' BLIP for matching images and texts."""

import pytest
import torch

from safetensors.torch import save_file

from align.rewards import ImageReward
from align.rewards.pretrained.blip_layout import image_config, image_tower_from, text_config
from align.rewards.pretrained.preprocessing import CLIP_STD, Preprocessing

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # as its authors give them


def as_the_authors(blip):
    """The tiny towers and head in the authors' names."""
    state = {"mlp.mean": torch.zeros(1), "blip.vision_proj.weight": torch.zeros(2, 2)}  # others, to be left alone
    names = (
        ("cls_token", "embeddings.class_embedding"), ("pos_embed", "embeddings.position_embedding"),
        ("patch_embed.proj", "embeddings.patch_embedding"), ("blocks.", "encoder.layers."), ("norm1", "layer_norm1"),
        ("norm2", "layer_norm2"), ("attn.qkv", "self_attn.qkv"), ("attn.proj", "self_attn.projection"),
        ("norm.", "post_layernorm."),
    )  # fmt: skip
    for name, tensor in blip["image"].state_dict().items():
        for theirs, ours in names:
            name = name.replace(ours, theirs)
        state[f"blip.visual_encoder.{name}"] = tensor
    state |= {f"blip.text_encoder.{name}": tensor for name, tensor in blip["text"].state_dict().items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return state | {f"mlp.layers.{name}": tensor for name, tensor in blip["head"].state_dict().items()}


@pytest.fixture
def file(blip, tmp_path):
    path = tmp_path / "ImageReward.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in as_the_authors(blip).items()}, path)
    return path


@pytest.fixture
def made(file, bert_folder):
    return lambda **settings: ImageReward(file, tokenizer=bert_folder, local_files_only=True, **settings)


@pytest.fixture
def reference(blip, bert_folder, image_processor):
    """Rewards `(N,)` by `BlipForImageTextRetrieval`, whose matching head is put out of the way."""
    from transformers import AutoTokenizer, BlipConfig, BlipForImageTextRetrieval

    config = BlipConfig(
        text_config=blip["text"].config.to_dict(),
        vision_config=blip["image"].config.to_dict(),
        image_text_hidden_size=8,
    )
    whole = BlipForImageTextRetrieval(config).eval()
    whole.vision_model.load_state_dict(blip["image"].state_dict())
    whole.text_encoder.load_state_dict(blip["text"].state_dict())
    whole.itm_head = torch.nn.Identity()

    def rewards(pictures, prompts):
        tokens = AutoTokenizer.from_pretrained(bert_folder)(
            prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )
        pixels = [torch.as_tensor(image_processor(p, return_tensors="pt")["pixel_values"][0]) for p in pictures]
        with torch.no_grad():
            read = whole(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=torch.stack(pixels)
            ).itm_score
            return (blip["head"](read).squeeze(-1) - MEAN) / STD

    return rewards


def test_it_is_its_definition(made, reference, images, pictures, prompts):
    x = images()
    found = made()(x, prompts)
    assert found.dtype == torch.float32 and float(found.std()) > 0.01
    assert torch.allclose(found, reference(pictures(x), prompts), rtol=1e-5, atol=1e-5)


def test_rounding_is_all_that_a_resize_changes(made, reference, images, pictures, prompts):
    x = images(4, 50, 37)
    reward = made()
    seen = reward.preprocessing(x).requires_grad_()
    score = reward.score(seen, reward.texts(prompts))
    (slopes,) = torch.autograd.grad(score.sum(), seen)
    unit = (slopes / torch.tensor(CLIP_STD)[:, None, None] / 255).flatten(1).norm(dim=1) * (1 / 6) ** 0.5
    assert ((score - reference(pictures(x), prompts)).abs() <= 5 * unit + 1e-5).all()


def test_neither_padding_nor_the_other_images_change_a_reward(made, blip, images, prompts):
    x = images(4, 30, 40)
    reward = made()
    whole = reward(x, prompts)
    for row in range(4):
        assert torch.allclose(reward(x[row : row + 1], prompts[row : row + 1]), whole[row : row + 1], atol=1e-5)
    for chunk in (1, 3):
        assert torch.allclose(made(chunk=chunk)(x, prompts), whole, rtol=0, atol=1e-5)
    tokens, mask = reward.texts(prompts[:1]).unbind(1)
    length = int(mask.sum())
    pixels = reward.preprocessing(x[:1])
    short = reward.network(pixels, tokens[:, :length], mask[:, :length])
    assert length < 35 and torch.allclose(short, whole[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_its_gradient_is_that_of_differences(checkpoint, made, images, prompts, seeded):
    x = images(2, 30, 41, dtype=torch.float64).mul(0.9).requires_grad_()
    reward = made(dtype=torch.float64, checkpoint=checkpoint)
    (slope,) = torch.autograd.grad(reward(x, prompts[:2]).sum(), x)
    for seed in range(3):
        way = torch.randn(x.shape, generator=seeded(seed), dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (reward(x + step * way, prompts[:2]).sum() for step in (1e-6, -1e-6))
        assert float((slope * way).sum()) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-5)


def test_half_precision_and_one_prompt(made, images, prompts):
    x = images()
    half = made(dtype=torch.bfloat16, prompt=prompts[0])(x)
    single = made(prompt=prompts[0])(x)
    assert half.dtype == torch.float32 and torch.allclose(half, single, rtol=0.2, atol=0.2 * float(single.abs().max()))
    assert torch.equal(single, made()(x, prompts[:1] * 4))


def test_every_image_matters_and_every_prompt(made, images, prompts):
    x = images()
    reward = made()
    assert not torch.allclose(reward(x, prompts[:1] * 4), reward(x, prompts[1:2] * 4), atol=1e-3)
    assert not torch.allclose(reward(x, prompts), reward(x.flip(0), prompts), atol=1e-3)


def test_names_of_the_authors_become_those_of_transformers(blip):
    state = {
        name.removeprefix("blip.visual_encoder."): tensor
        for name, tensor in as_the_authors(blip).items()
        if name.startswith("blip.visual_encoder.")
    }
    given = blip["image"].state_dict()
    found = image_tower_from(state)
    assert found.keys() == given.keys() and all(torch.equal(found[name], given[name]) for name in given)
    with pytest.raises(ValueError, match="^state: got a tensor 'head.weight', expected the names of BLIP's"):
        image_tower_from({"head.weight": torch.zeros(1)})


def test_sizes_are_read_off_the_authors_tensors(blip):
    state = as_the_authors(blip)
    for tower, read in (("visual_encoder", image_config), ("text_encoder", text_config)):
        start = f"blip.{tower}."
        found = read({name[len(start) :]: tensor for name, tensor in state.items() if name.startswith(start)})
        kept = blip["image" if tower == "visual_encoder" else "text"].config.to_dict()
        assert {name: kept[name] for name in found} == found


def test_a_prefix_is_seen_through(blip, bert_folder, made, images, prompts, tmp_path):
    state = {f"model.{name}": tensor.contiguous() for name, tensor in as_the_authors(blip).items()}
    (tmp_path / "folder").mkdir()
    save_file(state, tmp_path / "folder" / "model.safetensors")
    found = ImageReward(tmp_path / "folder", tokenizer=bert_folder, local_files_only=True)
    assert torch.equal(found(images(), prompts), made()(images(), prompts))


def test_what_does_not_fit_is_told(blip, bert_folder, file, made, tmp_path):
    state = {name: tensor.contiguous() for name, tensor in as_the_authors(blip).items()}
    for absent, message in (
        ("blip.visual_encoder.cls_token", "it holds no tensor 'blip.visual_encoder.cls_token', expected one"),
        (
            "blip.text_encoder.embeddings.LayerNorm.bias",
            "it cannot be loaded, .*missing tensors embeddings.LayerNorm.bias",
        ),
        ("mlp.layers.4.bias", "got a head of 0.bias, .*, expected linear layers mlp.layers.N.weight and .bias"),
    ):
        path = tmp_path / "odd.safetensors"
        save_file({name: tensor for name, tensor in state.items() if name != absent}, path)
        with pytest.raises(ValueError, match=f"^{path}: {message}"):
            ImageReward(path, tokenizer=bert_folder, local_files_only=True)
    with pytest.raises(FileNotFoundError, match="^nobody/bert: there is no such folder"):
        ImageReward(file, tokenizer="nobody/bert", local_files_only=True)
    assert made().preprocessing == Preprocessing(24, 24)
