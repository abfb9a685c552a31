"""Answers of a judge are kept in a file, by all that they depend on."""

import pytest
import torch

from align.rewards.answer_cache import AnswerCache
from align.scoring import RewardFailure


def test_what_was_answered_is_not_asked_again(service, images, tmp_path, judge, expected):
    path = tmp_path / "below" / "answers.jsonl"
    first = judge(cache=path)
    twice = torch.cat([images[:3], images[:2]])
    assert torch.equal(first(twice), expected(twice)) and len(service.bodies) == 3
    assert torch.equal(first(images[:4]), expected(images[:4])) and len(service.bodies) == 4
    again = judge(cache=path)  # another run
    assert torch.equal(again(images[:4]), expected(images[:4])) and len(service.bodies) == 4
    for other in ({"prompt": "a dog"}, {"scale": (0, 11)}, {"options": {"seed": 1}}, {"question": "{prompt}?"}):
        asked = len(service.bodies)
        judge(cache=path, **other)(images[:1])
        assert len(service.bodies) == asked + 1, other
    assert len(path.read_text().splitlines()) == 8


def test_an_answer_on_another_scale_is_another_answer(service, images, tmp_path, says, judge):
    """Even where the question does not name the scale."""
    service.answer = lambda body: says("5")
    for asked, scale in enumerate([(0, 10), (0, 5), (4, 10)], 1):
        assert judge(cache=tmp_path / "answers.jsonl", question="{prompt}?", scale=scale)(images[:1]) == 5
        assert len(service.bodies) == asked
    with pytest.raises(RewardFailure, match="the judge said '5', expected a number from 0 to 4"):
        judge(cache=tmp_path / "answers.jsonl", question="{prompt}?", scale=(0, 4), retries=0)(images[:1])


def test_a_run_that_failed_goes_on_where_it_stopped(service, images, tmp_path, corner, judge, expected):
    path = tmp_path / "answers.jsonl"
    service.answer = lambda body: corner(body) if len(service.bodies) <= 3 else (503, b"gone")
    with pytest.raises(RewardFailure, match=r"5 of 8 images have no answer, the last try of 1 .* 503") as caught:
        judge(cache=path, workers=1, retries=0)(images)
    assert torch.equal(caught.value.rewards[:3], expected(images)[:3]) and caught.value.rewards[3:].isnan().all()
    service.answer, asked = None, len(service.bodies)
    assert torch.equal(judge(cache=path)(images), expected(images))
    assert len(service.bodies) == asked + 5


def test_a_torn_line_is_left_out(service, images, tmp_path, judge, expected):
    path = tmp_path / "answers.jsonl"
    judge(cache=path)(images[:2])
    path.write_text(path.read_text()[:-20])
    assert len(AnswerCache(path).numbers) == 1
    assert torch.equal(judge(cache=path)(images[:2]), expected(images[:2])) and len(service.bodies) == 3
    assert len(AnswerCache(path).numbers) == 2
    for content, message in ((b"hello\n", "line 1 of .* is no answer"), (b"\xff\xfe\x00", "is no text")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^cache: .*{message}"):
            judge(cache=path)
