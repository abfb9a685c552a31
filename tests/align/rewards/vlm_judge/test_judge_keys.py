"""The key of a judge: sent, never told, and not passed on."""

import pytest

from align.scoring import RewardFailure


def test_a_key_is_sent_and_never_told(service, images, tmp_path, monkeypatch, judge):
    reward = judge(api_key="sk-secret", cache=tmp_path / "answers.jsonl")
    reward(images[:1])
    assert service.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(reward) + (tmp_path / "answers.jsonl").read_text() + str(vars(reward))
    service.answer = lambda body: (401, b"bad key sk-secret")
    with pytest.raises(RewardFailure, match=r"401 Unauthorized \(bad key \*\*\*\)"):
        judge(api_key="sk-secret", retries=0)(images[1:2])
    monkeypatch.setenv("EYES_KEY", "from-outside")
    service.answer = None
    judge(key_variable="EYES_KEY")(images[:1])
    judge()(images[:1])
    assert [headers["Authorization"] for headers in service.headers[-2:]] == ["Bearer from-outside", None]


def test_a_key_is_not_passed_on_by_a_redirect(service, images, judge):
    service.answer = lambda body: (302, b"", ("Location", f"{service.url}/elsewhere"))
    with pytest.raises(RewardFailure, match="the status 302"):
        judge(api_key="sk-secret", retries=0)(images[:1])
    assert service.paths == ["/v1/chat/completions"]
