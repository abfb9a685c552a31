"""Judges that are busy, answer nonsense, hang, or are not there."""

import threading

import pytest
import torch

from align.scoring import RewardFailure


def test_a_status_that_passes_is_tried_again(service, images, corner, judge, expected):
    service.answer = lambda body: (429, b"slow down") if len(service.bodies) == 1 else corner(body)
    assert torch.equal(judge(workers=1)(images[:2]), expected(images[:2]))
    service.answer = lambda body: (500, b"oops") if len(service.bodies) % 2 else corner(body)
    assert torch.equal(judge(workers=1)(images[2:4]), expected(images[2:4]))
    assert 6 <= len(service.bodies) <= 7


ODD = {
    "no number": ("I cannot say.", "ValueError: the judge said 'I cannot say.', expected a number from 0 to 10"),
    "off the scale": ("11", "the judge said '11', expected a number from 0 to 10"),
    "no text": (None, "the judge's answer has no text, expected choices"),
    "no json": ((200, b"<html>"), "an answer that is none of a chat, expected choices"),
    "no choices": ((200, b'{"choices": []}'), "an answer that is none of a chat"),
    "a list": ((200, b"[1]"), "an answer that is none of a chat"),
    "no message": ((200, b'{"choices": [{"text": "7"}]}'), "an answer that is none of a chat"),
    "words for a message": ((200, b'{"choices": [{"message": "7"}]}'), "an answer that is none of a chat"),
    "a status": ((404, b"no such  model"), r"the status 404 Not Found \(no such model\)"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_answer_that_is_none_is_a_failure(case, service, images, says, judge):
    answer, message = ODD[case]
    service.answer = lambda body: says(answer) if answer is None or isinstance(answer, str) else answer
    with pytest.raises(RewardFailure, match=f"^judge 'eyes' at http.*: 1 of 1 images have no answer, .* {message}"):
        judge(retries=1)(images[:1])
    assert len(service.bodies) == 2


def test_an_image_of_nan_is_not_judged_for_a_black_one(service, images, judge):
    images = images[:3].clone()
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="^images: got NaN in 1 of 3, expected numbers"):
        judge()(images)
    assert not service.bodies


def test_an_answer_that_is_malformed_once_is_asked_for_again(service, images, says, corner, judge, expected):
    service.answer = lambda body: says("Hm.") if len(service.bodies) == 1 else corner(body)
    assert torch.equal(judge()(images[:1]), expected(images[:1]))


def test_nobody_there_and_a_judge_that_hangs_are_failures(service, images, says, judge):
    release = threading.Event()
    service.answer = lambda body: release.wait(5) or says("7")
    with pytest.raises(RewardFailure, match="2 of 2 images have no answer, the last try of 1 failed with TimeoutError"):
        judge(timeout=0.2, retries=0)(images[:2])
    release.set()
    service.shutdown()
    service.server_close()
    with pytest.raises(RewardFailure, match="^judge 'eyes' at .*: 1 of 1 images have no answer, .*URLError"):
        judge(retries=0)(images[:1])
