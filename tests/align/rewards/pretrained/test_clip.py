"""Rewards on CLIP networks, against transformers' own processor and model.

Where the sizes differ, the reference's pixels are rounded and ours are not. To first order the score moves by the sum of
its slopes times independent errors of at most half a level a pass: their standard deviation is the tolerance's unit.
"""

import pytest
import torch

from safetensors.torch import save_file

from align.rewards import CLIPScore, Combined, HPSv2, PickScore, Symmetry
from align.rewards.pretrained.clip import embedding, load_clip
from align.rewards.pretrained.open_clip_layout import clip_config, from_open_clip
from align.rewards.pretrained.preprocessing import CLIP_STD

KINDS = {"clip": (CLIPScore, 100.0), "pick": (PickScore, float(torch.tensor(4.0).exp())), "hps": (HPSv2, 1.0)}


def made(kind, folder, **settings):
    settings = {"local_files_only": True} | settings
    if kind == "hps":
        settings = {"processor": folder} | settings
    return KINDS[kind][0](folder, **settings)


def reference(folder, pictures, prompts, image_processor):
    """Cosines, `(N,)`, by transformers' own forward pass."""
    from transformers import AutoTokenizer, CLIPModel

    network = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        prompts, padding=True, truncation=True, max_length=20, return_tensors="pt"
    )
    pixels = torch.stack(
        [torch.as_tensor(image_processor(p, return_tensors="pt")["pixel_values"][0]) for p in pictures]
    )
    with torch.no_grad():
        logits = network(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=pixels)
    return logits.logits_per_image.diagonal() / network.logit_scale.exp().detach()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_scaled_cosine(kind, clip_folder, images, pictures, prompts, image_processor):
    x = images()
    found = made(kind, clip_folder)(x, prompts)
    expected = KINDS[kind][1] * reference(clip_folder, pictures(x), prompts, image_processor)
    assert found.dtype == torch.float32 and found.shape == (4,)
    assert float(found.std()) > 0.01 * KINDS[kind][1]  # the network tells them apart
    assert torch.allclose(found, expected, rtol=0, atol=2e-6 * KINDS[kind][1])


@pytest.mark.parametrize("size", [(64, 48), (17, 31), (24, 40)])
def test_rounding_is_all_that_a_resize_changes(size, clip_folder, images, pictures, prompts, image_processor):
    x = images(4, *size)
    reward = made("clip", clip_folder)
    seen = reward.preprocessing(x).requires_grad_()
    score = reward.score(seen, reward.texts(prompts))
    (slopes,) = torch.autograd.grad(score.sum(), seen)
    expected = 100 * reference(clip_folder, pictures(x), prompts, image_processor)
    # a rounding of variance 1/12 a pass, of which the second smooths the first: no more than 1/6 in all
    unit = (slopes / torch.tensor(CLIP_STD)[:, None, None] / 255).flatten(1).norm(dim=1) * (1 / 6) ** 0.5
    assert ((score - expected).abs() <= 5 * unit + 2e-4).all(), ((score - expected) / unit).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_images_score_does_not_depend_on_the_others(kind, clip_folder, images, prompts):
    x = images(4, 40, 30)
    whole, rounding = made(kind, clip_folder)(x, prompts), 2e-6 * KINDS[kind][1]
    for chunk in (1, 3, 4, 9):
        assert torch.allclose(made(kind, clip_folder, chunk=chunk)(x, prompts), whole, rtol=0, atol=rounding)
    reward = made(kind, clip_folder)
    for row in range(4):
        alone = reward(x[row : row + 1], prompts[row : row + 1])
        assert torch.allclose(alone, whole[row : row + 1], rtol=0, atol=rounding)


def test_one_prompt_serves_all_images(clip_folder, images, prompts):
    x = images()
    one = made("clip", clip_folder, prompt=prompts[1])
    assert torch.equal(one(x), made("clip", clip_folder)(x, [prompts[1]] * 4))
    assert torch.equal(one(x, prompts), one(x))  # the prompt it was made with goes first


@pytest.mark.parametrize("checkpoint", [False, True])
def test_its_gradient_is_that_of_differences(checkpoint, clip_folder, images, prompts, seeded):
    x = images(2, 30, 41, dtype=torch.float64).mul(0.9).requires_grad_()
    reward = made("clip", clip_folder, dtype=torch.float64, chunk=1, checkpoint=checkpoint)
    found = reward(x, prompts[:2])
    assert found.dtype == torch.float64
    (slope,) = torch.autograd.grad(found.sum(), x)
    for _ in range(4):
        way = torch.randn(x.shape, generator=seeded(), dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (reward(x + step * way, prompts[:2]).sum() for step in (1e-6, -1e-6))
        assert float((slope * way).sum()) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-5)


def test_checkpoints_keep_less_and_give_the_same_gradient(clip_folder, images, prompts):
    x = images(4, 30, 30).requires_grad_()
    slopes, kept = [], []
    for checkpoint in (False, True):
        reward, sizes = made("clip", clip_folder, checkpoint=checkpoint, chunk=2), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            total = reward(x, prompts).sum()
        slopes.append(torch.autograd.grad(total, x)[0])
        kept.append(sum(sizes))
    assert torch.allclose(*slopes, rtol=1e-5, atol=1e-8)
    assert kept[1] < kept[0] / 4


def test_weights_stay_frozen_and_in_evaluation_mode(clip_folder, images, prompts):
    reward = made("clip", clip_folder).train()
    assert not reward.training and not any(part.training for part in reward.modules())
    assert not any(weight.requires_grad for weight in reward.parameters())
    assert not reward(images(), prompts).requires_grad
    whole = torch.nn.ModuleList([reward]).train()
    assert not any(part.training for part in whole[0].modules())


def test_half_precision_is_a_matter_of_the_reward_alone(clip_folder, images, prompts):
    x = images()
    half = made("clip", clip_folder, dtype=torch.bfloat16)
    single = made("clip", clip_folder)
    found = half(x.requires_grad_(), prompts)
    assert half.dtype == torch.bfloat16 and found.dtype == torch.float32
    assert torch.allclose(found, single(x, prompts), rtol=0, atol=3.0)  # of a scale of 100
    assert torch.autograd.grad(found.sum(), x)[0].dtype == torch.float32
    coarse = x.detach().to(torch.bfloat16)
    assert torch.equal(single(coarse, prompts), single(coarse.float(), prompts))
    assert single(coarse, prompts).dtype == torch.float32
    assert single(x.double(), prompts).dtype == torch.float64


def test_a_prompt_is_encoded_once(clip_folder, images, prompts, monkeypatch):
    reward, asked = made("clip", clip_folder), []
    encode = reward.encode
    monkeypatch.setattr(reward, "encode", lambda new: asked.append(list(new)) or encode(new))
    x = images(3)
    first = reward(x, [prompts[0], prompts[1], prompts[0]])
    assert asked == [prompts[:2]]
    assert torch.equal(reward(x, [prompts[0], prompts[1], prompts[0]]), first)
    reward(x, prompts[:3])
    assert asked == [prompts[:2], [prompts[2]]]
    reward.double()
    reward(x, [prompts[0]] * 3)
    assert asked[2:] == [[prompts[0]]]


def test_the_memory_of_prompts_is_bounded(clip_folder, images, prompts, monkeypatch):
    monkeypatch.setattr("align.rewards.pretrained.prompted.PROMPTS_KEPT", 2)
    reward = made("clip", clip_folder)
    whole = reward(images(), prompts)
    assert list(reward._texts) == prompts[2:]
    assert torch.allclose(reward(images(), prompts), whole, rtol=0, atol=2e-4)


def test_it_can_be_differentiated_after_inference_mode(clip_folder, images, prompts):
    reward = made("clip", clip_folder)
    with torch.inference_mode():
        reward(images(), prompts)
    x = images().requires_grad_()
    assert torch.autograd.grad(reward(x, prompts).sum(), x)[0].ne(0).any()


def test_no_images_are_no_scores(clip_folder):
    assert made("clip", clip_folder)(torch.zeros(0, 3, 8, 8), []).shape == (0,)


def test_long_prompts_are_cut(clip_folder, images, prompts):
    reward = made("clip", clip_folder)
    long = "a red cat sits on a blue dog " * 20
    assert torch.equal(reward(images(1), [long]), reward(images(1), [long + "and sleeps"]))


def test_sums_hand_prompts_on(clip_folder, images, prompts):
    x = images()
    clip, pick = made("clip", clip_folder), made("pick", clip_folder)
    reward = Combined({"clip": (clip, 0.01), "pick": (pick, 0.05), "even": Symmetry()})
    parts = reward.components(x, prompts)
    assert torch.equal(parts["clip"], clip(x, prompts)) and torch.equal(parts["pick"], pick(x, prompts))
    for whole in (reward, 0.01 * clip + 0.05 * pick + Symmetry()):
        assert torch.allclose(whole(x, prompts), 0.01 * parts["clip"] + 0.05 * parts["pick"] + parts["even"])
    z = x.clone().requires_grad_()
    assert torch.autograd.grad(reward(z, tuple(prompts)).sum(), z)[0].isfinite().all()


def test_bad_input_is_one_sentence(clip_folder, images, prompts):
    reward = made("clip", clip_folder)
    for x, cond, message in (
        (images(), None, "prompt: got None and no cond, expected one prompt for all images, or a list"),
        (images(), prompts[:3], "cond: got 3 prompts for 4 images, expected one prompt an image"),
        (images(), torch.zeros(4), "cond: got Tensor, expected a list of prompts"),
        (images(), [1, 2, 3, 4], "cond: got a list of other things, expected a list of prompts"),
        (images(), "a cat", "cond: got str, expected a list of prompts"),
        (images()[:, :1], prompts, r"images: got grey ones of shape \(4, 1, 24, 24\), expected RGB images"),
        (images()[0], prompts, r"images: got shape \(3, 24, 24\), expected RGB images"),
        (images().to(torch.uint8), prompts, "images: got dtype torch.uint8, expected RGB images"),
        ([images()], prompts, "images: got list, expected RGB images"),
        (images().to("meta"), prompts, "images: got a tensor on the meta device, which holds no numbers"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            reward(x, cond)
    for settings, message in (
        ({"prompt": 3}, "prompt: got int, expected one text"),
        ({"prompt": ["a", "b"]}, "prompt: got list, expected one text for all images, or None and a list"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"dtype": torch.int64}, "dtype: got torch.int64, expected a floating type"),
        ({"device": "cuda:77"}, "device: got 'cuda:77', expected a device that this machine has"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            made("clip", clip_folder, **settings)


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
def test_the_authors_file_scores_the_same(where, clip, clip_folder, images, prompts, tmp_path):
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


def test_both_forms_of_transformers_features_are_read(clip_folder):
    features = torch.tensor([[3.0, 4.0]])
    boxed = type("Output", (), {"pooler_output": features})()
    for output in (features, boxed, features.half()):
        assert torch.allclose(embedding(output), torch.tensor([[0.6, 0.8]]))
    assert type(load_clip(clip_folder)).__name__ == "CLIPModel"
