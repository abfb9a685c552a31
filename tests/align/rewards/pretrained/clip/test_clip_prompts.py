"""Prompts of rewards on CLIP networks: one for all or one an image, encoded once, cut, handed on, and refused."""

import pytest
import torch

from align.rewards import Combined, Symmetry


def test_one_prompt_serves_all_images(clip_folder, images, prompts, made):
    x = images()
    one = made("clip", clip_folder, prompt=prompts[1])
    assert torch.equal(one(x), made("clip", clip_folder)(x, [prompts[1]] * 4))
    assert torch.equal(one(x, prompts), one(x))  # the prompt it was made with goes first


def test_a_prompt_is_encoded_once(clip_folder, images, prompts, monkeypatch, made):
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


def test_the_memory_of_prompts_is_bounded(clip_folder, images, prompts, monkeypatch, made):
    monkeypatch.setattr("align.rewards.pretrained.prompted.PROMPTS_KEPT", 2)
    reward = made("clip", clip_folder)
    whole = reward(images(), prompts)
    assert list(reward._texts) == prompts[2:]
    assert torch.allclose(reward(images(), prompts), whole, rtol=0, atol=2e-4)


def test_no_images_are_no_scores(clip_folder, made):
    assert made("clip", clip_folder)(torch.zeros(0, 3, 8, 8), []).shape == (0,)


def test_long_prompts_are_cut(clip_folder, images, prompts, made):
    reward = made("clip", clip_folder)
    long = "a red cat sits on a blue dog " * 20
    assert torch.equal(reward(images(1), [long]), reward(images(1), [long + "and sleeps"]))


def test_sums_hand_prompts_on(clip_folder, images, prompts, made):
    x = images()
    clip, pick = made("clip", clip_folder), made("pick", clip_folder)
    reward = Combined({"clip": (clip, 0.01), "pick": (pick, 0.05), "even": Symmetry()})
    parts = reward.components(x, prompts)
    assert torch.equal(parts["clip"], clip(x, prompts)) and torch.equal(parts["pick"], pick(x, prompts))
    for whole in (reward, 0.01 * clip + 0.05 * pick + Symmetry()):
        assert torch.allclose(whole(x, prompts), 0.01 * parts["clip"] + 0.05 * parts["pick"] + parts["even"])
    z = x.clone().requires_grad_()
    assert torch.autograd.grad(reward(z, tuple(prompts)).sum(), z)[0].isfinite().all()


def test_bad_input_is_one_sentence(clip_folder, images, prompts, made):
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
