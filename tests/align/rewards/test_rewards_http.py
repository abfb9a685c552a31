"""Rewards of a web service, against one in this process."""

import base64
import json
import struct
import threading

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from align.rewards import HTTPReward
from align.scoring import RewardFailure, Scorer

Z = torch.linspace(-1, 1, 14, dtype=torch.float64).reshape(7, 2)


class Service(ThreadingHTTPServer):
    """Answers each request with the samples' products, or as `answer(body)` says: `(status, bytes)`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.headers, self.answer, self.release = [], [], None, threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/rewards"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.headers.append(self.headers)
        status, content = (self.server.answer or products)(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def products(body):
    samples = body["samples"]
    if isinstance(samples, str):
        assert body["dtype"] == "float32"
        n, size = body["shape"]
        raw = base64.b64decode(samples)
        samples = [struct.unpack_from(f"<{size}f", raw, 4 * size * i) for i in range(n)]
    assert [len(samples), len(samples[0])] == body["shape"]
    return 200, json.dumps({"rewards": [x * y for x, y in samples]}).encode()


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.mark.parametrize(("encoding", "accuracy"), [("json", 0.0), ("base64", 1e-6)])
def test_a_service_is_asked_and_answers(service, encoding, accuracy):
    found = HTTPReward(service.url, encoding=encoding, batch=3, workers=2)(Z)
    assert torch.allclose(found, Z.prod(1), rtol=0, atol=accuracy)
    assert sorted(body["shape"][0] for body in service.bodies) == [1, 3, 3]


def test_headers_and_conditioning_are_sent_where_they_are_wanted(service):
    cond = {"label": torch.arange(7)}
    Scorer(HTTPReward(service.url, headers={"X-Key": "abc"}, send_cond=True))(Z, cond)
    assert service.bodies[0]["cond"] == {"label": list(range(7))}
    assert service.headers[0]["X-Key"] == "abc" and service.headers[0]["Content-Type"] == "application/json"
    Scorer(HTTPReward(service.url))(Z, cond)
    assert "cond" not in service.bodies[1]


def test_an_error_status_that_passes_is_tried_again(service):
    service.answer = lambda body: (500, b"busy") if len(service.bodies) == 1 else products(body)
    assert torch.equal(HTTPReward(service.url, pause=0.01)(Z), Z.prod(1))
    assert len(service.bodies) == 2


def test_a_service_that_hangs_is_given_up(service):
    service.answer = lambda body: (200, b"") if service.release.wait(20) else (500, b"")
    with pytest.raises(RewardFailure, match="7 of 7 .*last try of 2 failed with TimeoutError"):
        HTTPReward(service.url, timeout=0.3, retries=1, pause=0.01)(Z)


def test_a_service_that_dies_leaves_what_it_answered(service):
    def answer(body):
        if len(service.bodies) == 3:
            service.socket.close()  # and never a word again
            raise ConnectionAbortedError
        return products(body)

    service.answer = answer
    service.handle_error = lambda *_: None
    with pytest.raises(RewardFailure, match="3 of 7 samples have no answer, the last try of 2 failed with") as caught:
        HTTPReward(service.url, batch=2, retries=1, pause=0.2, timeout=5)(Z)
    assert torch.equal(caught.value.rewards[:4], Z[:4].prod(1)) and caught.value.rewards[4:].isnan().all()


ODD = {
    "no json": (b"<html>", "JSONDecodeError"),
    "another name": (b'{"scores": [1]}', "the service's answer has no list 'rewards'"),
    "a list": (b"[1, 2]", "the service's answer has no list 'rewards'"),
    "too few": (b'{"rewards": [1]}', r"it returned shape \(1,\)"),
    "null": (b'{"rewards": [1, null]}', "it returned list, expected 2 numbers"),
    "nan": (b'{"rewards": [1, NaN]}', "it returned nan for 1 of 2"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_answer_that_is_none_is_a_failure(case, service):
    content, message = ODD[case]
    service.answer = lambda body: (200, content)
    with pytest.raises(RewardFailure, match=message):
        HTTPReward(service.url, retries=0)(Z[:2])


def test_nobody_there_is_a_failure(service):
    service.shutdown()
    service.server_close()
    with pytest.raises(RewardFailure, match="URLError"):
        HTTPReward(service.url, retries=0)(Z)


def test_what_does_not_fit_is_refused():
    for url in ("localhost:80", "file:///etc/hosts", "", None):
        with pytest.raises(ValueError, match="^url: got .*, expected one that starts with http"):
            HTTPReward(url)
    with pytest.raises(ValueError, match="^encoding: got 'xml', expected one of json, base64"):
        HTTPReward("http://127.0.0.1", encoding="xml")
    with pytest.raises(ValueError, match="^workers: got 0"):
        HTTPReward("http://127.0.0.1", workers=0)
