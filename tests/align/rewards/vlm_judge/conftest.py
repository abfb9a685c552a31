"""A service of this process that is asked about images, and a judge that asks it."""

import base64
import io
import json
import threading

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from PIL import Image

from align.rewards import VLMJudge
from align.rewards.prompts import to_levels


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


@pytest.fixture(name="picture")
def read_picture():
    """The picture in a body that the service got."""
    return picture


@pytest.fixture(name="says")
def chat_answer():
    """The service's answer of a text: `(status, bytes)`."""
    return says


@pytest.fixture(name="corner")
def corner_answer():
    """The service's own answer to a body."""
    return corner


@pytest.fixture
def service(monkeypatch):
    """A service of this process."""
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


@pytest.fixture
def expected():
    """What the service says of images."""
    return lambda images: torch.tensor([round(float(x) / 25.5, 3) for x in to_levels(images)[:, 0, 0, 0]])


@pytest.fixture
def judge(service):
    """Makes a judge that asks the service."""
    plain = {"scale": (0, 10), "pause": 0.01, "prompt": "a cat"}
    return lambda **settings: VLMJudge(f"{service.url}/v1", "eyes", **plain | settings)
