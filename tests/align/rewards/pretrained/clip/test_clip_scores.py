"""Rewards on CLIP networks, against transformers' own processor and model.

Where the sizes differ, the reference's pixels are rounded and ours are not. To first order the score moves by the sum of
its slopes times independent errors of at most half a level a pass: their standard deviation is the tolerance's unit.
"""

import pytest
import torch

from align.rewards.pretrained.clip import embedding, load_clip
from align.rewards.pretrained.preprocessing import CLIP_STD

KINDS = ["clip", "pick", "hps"]


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
def test_it_is_the_scaled_cosine(kind, clip_folder, images, pictures, prompts, image_processor, made, scale):
    x = images()
    found = made(kind, clip_folder)(x, prompts)
    expected = scale[kind] * reference(clip_folder, pictures(x), prompts, image_processor)
    assert found.dtype == torch.float32 and found.shape == (4,)
    assert float(found.std()) > 0.01 * scale[kind]  # the network tells them apart
    assert torch.allclose(found, expected, rtol=0, atol=2e-6 * scale[kind])


@pytest.mark.parametrize("size", [(64, 48), (17, 31), (24, 40)])
def test_rounding_is_all_that_a_resize_changes(size, clip_folder, images, pictures, prompts, image_processor, made):
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
def test_an_images_score_does_not_depend_on_the_others(kind, clip_folder, images, prompts, made, scale):
    x = images(4, 40, 30)
    whole, rounding = made(kind, clip_folder)(x, prompts), 2e-6 * scale[kind]
    for chunk in (1, 3, 4, 9):
        assert torch.allclose(made(kind, clip_folder, chunk=chunk)(x, prompts), whole, rtol=0, atol=rounding)
    reward = made(kind, clip_folder)
    for row in range(4):
        alone = reward(x[row : row + 1], prompts[row : row + 1])
        assert torch.allclose(alone, whole[row : row + 1], rtol=0, atol=rounding)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_its_gradient_is_that_of_differences(checkpoint, clip_folder, images, prompts, seeded, made):
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


def test_checkpoints_keep_less_and_give_the_same_gradient(clip_folder, images, prompts, made):
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


def test_weights_stay_frozen_and_in_evaluation_mode(clip_folder, images, prompts, made):
    reward = made("clip", clip_folder).train()
    assert not reward.training and not any(part.training for part in reward.modules())
    assert not any(weight.requires_grad for weight in reward.parameters())
    assert not reward(images(), prompts).requires_grad
    whole = torch.nn.ModuleList([reward]).train()
    assert not any(part.training for part in whole[0].modules())


def test_half_precision_is_a_matter_of_the_reward_alone(clip_folder, images, prompts, made):
    x = images()
    half = made("clip", clip_folder, dtype=torch.bfloat16)
    single = made("clip", clip_folder)
    found = half(x.requires_grad_(), prompts)
    assert half.dtype == torch.bfloat16 and found.dtype == torch.float32
    assert torch.allclose(found, single(x, prompts), rtol=0, atol=100 * 2 * 2**-8)  # two roundings of the scale
    assert torch.autograd.grad(found.sum(), x)[0].dtype == torch.float32
    coarse = x.detach().to(torch.bfloat16)
    assert torch.equal(single(coarse, prompts), single(coarse.float(), prompts))
    assert single(coarse, prompts).dtype == torch.float32
    assert single(x.double(), prompts).dtype == torch.float64


def test_it_can_be_differentiated_after_inference_mode(clip_folder, images, prompts, made):
    reward = made("clip", clip_folder)
    with torch.inference_mode():
        reward(images(), prompts)
    x = images().requires_grad_()
    assert torch.autograd.grad(reward(x, prompts).sum(), x)[0].ne(0).any()


def test_both_forms_of_transformers_features_are_read(clip_folder):
    features = torch.tensor([[3.0, 4.0]])
    boxed = type("Output", (), {"pooler_output": features})()
    for output in (features, boxed, features.half()):
        assert torch.allclose(embedding(output), torch.tensor([[0.6, 0.8]]))
    assert type(load_clip(clip_folder)).__name__ == "CLIPModel"
