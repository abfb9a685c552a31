"""What a judge that sees images is asked, how often at once, and what it is not asked."""

import math
import time

import pytest
import torch

from align.rewards import Brightness, Combined, VLMJudge
from align.rewards.prompts import to_levels
from align.scoring import RewardFailure

PROMPTS = ["a red cat", "a blue dog", "a {low} house", "x"]


def test_each_image_is_asked_about_as_a_file_would_hold_it(service, images, judge, expected, picture):
    found = judge(workers=3)(images)
    assert found.dtype == torch.float32 and torch.equal(found, expected(images))
    body = next(body for body in service.bodies if picture(body).getpixel((0, 0))[0] == 20)
    levels = torch.tensor(list(picture(body).convert("RGB").tobytes())).reshape(6, 5, 3).permute(2, 0, 1)
    assert torch.equal(levels.to(torch.uint8), to_levels(images)[0])
    assert body["model"] == "eyes" and body["temperature"] == 0 and body["max_tokens"] == 64
    text = body["messages"][0]["content"][1]["text"]
    assert "a cat" in text and "from 0 to 10" in text and "{" not in text
    assert set(service.paths) == {"/v1/chat/completions"} and len(service.bodies) == 8


def test_each_image_is_asked_about_with_its_own_prompt(service, images, says, judge):
    def answer(body):
        text = body["messages"][0]["content"][1]["text"]
        return says(str(next(i for i, prompt in enumerate(PROMPTS) if prompt in text)))

    service.answer = answer
    reward = judge(prompt=None)
    assert reward(images[:4], PROMPTS).tolist() == [0, 1, 2, 3]
    assert reward(images[:4], PROMPTS[::-1]).tolist() == [3, 2, 1, 0]
    whole = Combined({"judge": (reward, 2.0), "light": (Brightness(), 0.0)})
    assert whole(images[:4], PROMPTS).tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="^cond: got 4 prompts for 8 images"):
        reward(images, PROMPTS)
    assert judge(prompt=None, question="x, from {low} to {high}?")(images[:1]).tolist() == [3]  # asks for none


def test_several_are_asked_at_once_but_no_more(service, images, corner, judge, expected):
    service.answer = lambda body: time.sleep(0.1) or corner(body)
    start = time.monotonic()
    assert torch.equal(judge(workers=4)(images), expected(images))
    assert service.most == 4 and time.monotonic() - start < 0.7


def test_the_expected_score_is_read_off_probabilities(service, images, says, judge):
    digits = [{"token": str(digit), "logprob": math.log(p)} for digit, p in ((3, 0.5), (4, 0.25), (5, 0.25))]
    service.answer = lambda body: says("3", logprobs={"content": [{"token": "3", "top_logprobs": digits}]})
    found = judge(expected=True, scale=(1, 5))(images[:1])
    assert found.tolist() == pytest.approx([3.75])
    assert service.bodies[0]["logprobs"] is True and service.bodies[0]["top_logprobs"] == 20
    service.answer = lambda body: says("3")
    with pytest.raises(RewardFailure, match="has no logprobs of a digit of the scale"):
        judge(expected=True, scale=(1, 5), retries=0)(images[1:2])


def test_options_and_addresses(service, images):
    for url in (service.url, f"{service.url}/", f"{service.url}/v1/", f"{service.url}/v1/chat/completions"):
        VLMJudge(url, "eyes", prompt="x", options={"temperature": None, "seed": 3}, scale=(0, 10))(images[:1])
    assert set(service.paths) == {"/v1/chat/completions"} and len(service.paths) == 4
    assert "temperature" not in service.bodies[0] and service.bodies[0]["seed"] == 3


def test_no_images_are_no_questions_and_precision_follows_the_images(service, images, judge):
    reward = judge()
    assert reward(images[:0]).shape == (0,) and not service.bodies
    assert reward(images[:1].double()).dtype == torch.float64
    assert not reward(images[:1].requires_grad_()).requires_grad


def test_what_does_not_fit_is_refused(service, images, judge):
    for settings, message in (
        ({"scale": (10, 1)}, r"scale: got \(10, 1\), expected two numbers, the lower one first"),
        ({"scale": 10}, "scale: got 10, expected two numbers"),
        ({"expected": True, "scale": (1, 10)}, r"scale: got \(1, 10\), expected one within 0 to 9 for expected=True"),
        ({"workers": 0}, "workers: got 0"),
        ({"timeout": -1}, "timeout: got -1"),
        ({"prompt": ["a"]}, "prompt: got list, expected one text"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            judge(**settings)
    with pytest.raises(ValueError, match="^url: got 'localhost:8000', expected one that starts with http"):
        VLMJudge("localhost:8000", "eyes")
    with pytest.raises(ValueError, match="^images: got grey ones"):
        judge()(images[:, :1])
    assert not service.bodies
