"""A judge that sees images, by a service of this process: what it is asked, what is read, kept and told."""

import base64
import io
import json
import math
import threading
import time

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from PIL import Image

from align.rewards import Brightness, Combined, VLMJudge
from align.rewards.answer_cache import AnswerCache
from align.rewards.prompts import to_levels
from align.scoring import RewardFailure

PROMPTS = ["a red cat", "a blue dog", "a {low} house", "x"]


class Service(ThreadingHTTPServer):
    """Says of each image its red level at the corner, or what `answer(body)` says: `(status, bytes)`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.headers, self.paths, self.answer = [], [], [], None
        self.out = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_):
        pass


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(self.headers)
            self.server.paths.append(self.path)
            self.server.out += 1
            self.server.most = max(self.server.most, self.server.out)
        try:
            status, content, *headers = (self.server.answer or corner)(body)
        finally:
            with self.server.lock:
                self.server.out -= 1
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def picture(body):
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def says(text, **more):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, **more}]}).encode()


def corner(body):
    return says(f"{picture(body).getpixel((0, 0))[0] / 25.5:.3f}")


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def images():
    """Eight images whose corners are all different, and what the service says of them."""
    levels = torch.randint(0, 256, (8, 3, 6, 5), generator=torch.Generator().manual_seed(0))
    levels[:, 0, 0, 0] = torch.arange(8) * 30 + 20
    return levels / 127.5 - 1


def expected(images):
    return torch.tensor([round(float(level) / 25.5, 3) for level in to_levels(images)[:, 0, 0, 0]])


def judge(service, **settings):
    return VLMJudge(f"{service.url}/v1", "eyes", **{"scale": (0, 10), "pause": 0.01, "prompt": "a cat"} | settings)


def test_each_image_is_asked_about_as_a_file_would_hold_it(service, images):
    found = judge(service, workers=3)(images)
    assert found.dtype == torch.float32 and torch.equal(found, expected(images))
    body = next(body for body in service.bodies if picture(body).getpixel((0, 0))[0] == 20)
    levels = torch.tensor(list(picture(body).convert("RGB").tobytes())).reshape(6, 5, 3).permute(2, 0, 1)
    assert torch.equal(levels.to(torch.uint8), to_levels(images)[0])
    assert body["model"] == "eyes" and body["temperature"] == 0 and body["max_tokens"] == 64
    text = body["messages"][0]["content"][1]["text"]
    assert "a cat" in text and "from 0 to 10" in text and "{" not in text
    assert set(service.paths) == {"/v1/chat/completions"} and len(service.bodies) == 8


def test_each_image_is_asked_about_with_its_own_prompt(service, images):
    def answer(body):
        text = body["messages"][0]["content"][1]["text"]
        return says(str(next(i for i, prompt in enumerate(PROMPTS) if prompt in text)))

    service.answer = answer
    reward = judge(service, prompt=None)
    assert reward(images[:4], PROMPTS).tolist() == [0, 1, 2, 3]
    assert reward(images[:4], PROMPTS[::-1]).tolist() == [3, 2, 1, 0]
    whole = Combined({"judge": (reward, 2.0), "light": (Brightness(), 0.0)})
    assert whole(images[:4], PROMPTS).tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="^cond: got 4 prompts for 8 images"):
        reward(images, PROMPTS)
    assert judge(service, prompt=None, question="x, from {low} to {high}?")(images[:1]).tolist() == [3]  # asks for none


def test_several_are_asked_at_once_but_no_more(service, images):
    service.answer = lambda body: time.sleep(0.1) or corner(body)
    start = time.monotonic()
    assert torch.equal(judge(service, workers=4)(images), expected(images))
    assert service.most == 4 and time.monotonic() - start < 0.7


def test_a_status_that_passes_is_tried_again(service, images):
    service.answer = lambda body: (429, b"slow down") if len(service.bodies) == 1 else corner(body)
    assert torch.equal(judge(service, workers=1)(images[:2]), expected(images[:2]))
    service.answer = lambda body: (500, b"oops") if len(service.bodies) % 2 else corner(body)
    assert torch.equal(judge(service, workers=1)(images[2:4]), expected(images[2:4]))
    assert 6 <= len(service.bodies) <= 7


ODD = {
    "no number": (says("I cannot say."), "ValueError: the judge said 'I cannot say.', expected a number from 0 to 10"),
    "off the scale": (says("11"), "the judge said '11', expected a number from 0 to 10"),
    "no text": (says(None), "the judge's answer has no text, expected choices"),
    "no json": ((200, b"<html>"), "an answer that is none of a chat, expected choices"),
    "no choices": ((200, b'{"choices": []}'), "an answer that is none of a chat"),
    "a list": ((200, b"[1]"), "an answer that is none of a chat"),
    "no message": ((200, b'{"choices": [{"text": "7"}]}'), "an answer that is none of a chat"),
    "words for a message": ((200, b'{"choices": [{"message": "7"}]}'), "an answer that is none of a chat"),
    "a status": ((404, b"no such  model"), r"the status 404 Not Found \(no such model\)"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_answer_that_is_none_is_a_failure(case, service, images):
    answer, message = ODD[case]
    service.answer = lambda body: answer
    with pytest.raises(RewardFailure, match=f"^judge 'eyes' at http.*: 1 of 1 images have no answer, .* {message}"):
        judge(service, retries=1)(images[:1])
    assert len(service.bodies) == 2


def test_an_answer_that_is_malformed_once_is_asked_for_again(service, images):
    service.answer = lambda body: says("Hm.") if len(service.bodies) == 1 else corner(body)
    assert torch.equal(judge(service)(images[:1]), expected(images[:1]))


def test_what_was_answered_is_not_asked_again(service, images, tmp_path):
    path = tmp_path / "below" / "answers.jsonl"
    first = judge(service, cache=path)
    twice = torch.cat([images[:3], images[:2]])
    assert torch.equal(first(twice), expected(twice)) and len(service.bodies) == 3
    assert torch.equal(first(images[:4]), expected(images[:4])) and len(service.bodies) == 4
    again = judge(service, cache=path)  # another run
    assert torch.equal(again(images[:4]), expected(images[:4])) and len(service.bodies) == 4
    for other in ({"prompt": "a dog"}, {"scale": (0, 11)}, {"options": {"seed": 1}}, {"question": "{prompt}?"}):
        asked = len(service.bodies)
        judge(service, cache=path, **other)(images[:1])
        assert len(service.bodies) == asked + 1, other
    assert len(path.read_text().splitlines()) == 8


def test_an_answer_on_another_scale_is_another_answer(service, images, tmp_path):
    """Even where the question does not name the scale."""
    service.answer = lambda body: says("5")
    for asked, scale in enumerate([(0, 10), (0, 5), (4, 10)], 1):
        assert judge(service, cache=tmp_path / "answers.jsonl", question="{prompt}?", scale=scale)(images[:1]) == 5
        assert len(service.bodies) == asked
    with pytest.raises(RewardFailure, match="the judge said '5', expected a number from 0 to 4"):
        judge(service, cache=tmp_path / "answers.jsonl", question="{prompt}?", scale=(0, 4), retries=0)(images[:1])


def test_a_run_that_failed_goes_on_where_it_stopped(service, images, tmp_path):
    path = tmp_path / "answers.jsonl"
    service.answer = lambda body: corner(body) if len(service.bodies) <= 3 else (503, b"gone")
    with pytest.raises(RewardFailure, match=r"5 of 8 images have no answer, the last try of 1 .* 503") as caught:
        judge(service, cache=path, workers=1, retries=0)(images)
    assert torch.equal(caught.value.rewards[:3], expected(images)[:3]) and caught.value.rewards[3:].isnan().all()
    service.answer, asked = None, len(service.bodies)
    assert torch.equal(judge(service, cache=path)(images), expected(images))
    assert len(service.bodies) == asked + 5


def test_a_torn_line_is_left_out(service, images, tmp_path):
    path = tmp_path / "answers.jsonl"
    judge(service, cache=path)(images[:2])
    path.write_text(path.read_text()[:-20])
    assert len(AnswerCache(path).numbers) == 1
    assert torch.equal(judge(service, cache=path)(images[:2]), expected(images[:2])) and len(service.bodies) == 3
    assert len(AnswerCache(path).numbers) == 2
    for content, message in ((b"hello\n", "line 1 of .* is no answer"), (b"\xff\xfe\x00", "is no text")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^cache: .*{message}"):
            judge(service, cache=path)


def test_the_expected_score_is_read_off_probabilities(service, images):
    digits = [{"token": str(digit), "logprob": math.log(p)} for digit, p in ((3, 0.5), (4, 0.25), (5, 0.25))]
    service.answer = lambda body: says("3", logprobs={"content": [{"token": "3", "top_logprobs": digits}]})
    found = judge(service, expected=True, scale=(1, 5))(images[:1])
    assert found.tolist() == pytest.approx([3.75])
    assert service.bodies[0]["logprobs"] is True and service.bodies[0]["top_logprobs"] == 20
    service.answer = lambda body: says("3")
    with pytest.raises(RewardFailure, match="has no logprobs of a digit of the scale"):
        judge(service, expected=True, scale=(1, 5), retries=0)(images[1:2])


def test_a_key_is_sent_and_never_told(service, images, tmp_path, monkeypatch):
    reward = judge(service, api_key="sk-secret", cache=tmp_path / "answers.jsonl")
    reward(images[:1])
    assert service.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(reward) + (tmp_path / "answers.jsonl").read_text() + str(vars(reward))
    service.answer = lambda body: (401, b"bad key sk-secret")
    with pytest.raises(RewardFailure, match=r"401 Unauthorized \(bad key \*\*\*\)"):
        judge(service, api_key="sk-secret", retries=0)(images[1:2])
    monkeypatch.setenv("EYES_KEY", "from-outside")
    service.answer = None
    judge(service, key_variable="EYES_KEY")(images[:1])
    judge(service)(images[:1])
    assert [headers["Authorization"] for headers in service.headers[-2:]] == ["Bearer from-outside", None]


def test_a_key_is_not_passed_on_by_a_redirect(service, images):
    service.answer = lambda body: (302, b"", ("Location", f"{service.url}/elsewhere"))
    with pytest.raises(RewardFailure, match="the status 302"):
        judge(service, api_key="sk-secret", retries=0)(images[:1])
    assert service.paths == ["/v1/chat/completions"]


def test_nobody_there_and_a_judge_that_hangs_are_failures(service, images):
    release = threading.Event()
    service.answer = lambda body: release.wait(5) or says("7")
    with pytest.raises(RewardFailure, match="2 of 2 images have no answer, the last try of 1 failed with TimeoutError"):
        judge(service, timeout=0.2, retries=0)(images[:2])
    release.set()
    service.shutdown()
    service.server_close()
    with pytest.raises(RewardFailure, match="^judge 'eyes' at .*: 1 of 1 images have no answer, .*URLError"):
        judge(service, retries=0)(images[:1])


def test_options_and_addresses(service, images):
    for url in (service.url, f"{service.url}/", f"{service.url}/v1/", f"{service.url}/v1/chat/completions"):
        VLMJudge(url, "eyes", prompt="x", options={"temperature": None, "seed": 3}, scale=(0, 10))(images[:1])
    assert set(service.paths) == {"/v1/chat/completions"} and len(service.paths) == 4
    assert "temperature" not in service.bodies[0] and service.bodies[0]["seed"] == 3


def test_no_images_are_no_questions_and_precision_follows_the_images(service, images):
    reward = judge(service)
    assert reward(images[:0]).shape == (0,) and not service.bodies
    assert reward(images[:1].double()).dtype == torch.float64
    assert not reward(images[:1].requires_grad_()).requires_grad


def test_what_does_not_fit_is_refused(service, images):
    for settings, message in (
        ({"scale": (10, 1)}, r"scale: got \(10, 1\), expected two numbers, the lower one first"),
        ({"scale": 10}, "scale: got 10, expected two numbers"),
        ({"expected": True, "scale": (1, 10)}, r"scale: got \(1, 10\), expected one within 0 to 9 for expected=True"),
        ({"workers": 0}, "workers: got 0"),
        ({"timeout": -1}, "timeout: got -1"),
        ({"prompt": ["a"]}, "prompt: got list, expected one text"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            judge(service, **settings)
    with pytest.raises(ValueError, match="^url: got 'localhost:8000', expected one that starts with http"):
        VLMJudge("localhost:8000", "eyes")
    with pytest.raises(ValueError, match="^images: got grey ones"):
        judge(service)(images[:, :1])
    assert not service.bodies
