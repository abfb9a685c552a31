r"""A reward that a web service gives.

One POST a micro-batch, with the body in one of two forms, and one answer:

    {"samples": [[0.1, ...], ...], "shape": [n, ...]}                             json: nested lists
    {"samples": "zczMPQ...", "shape": [n, ...], "dtype": "float32"}               base64: little-endian, row-major
    {"rewards": [1.5, ...]}                                                       the answer, n numbers
"""

from __future__ import annotations

import base64
import json
import urllib.request

from collections.abc import Mapping
from typing import Any

import torch

from torch import Tensor

from diamond.model import map_cond
from diamond.validation import check_choice

from .external import External

__all__ = ["HTTPReward"]

ENCODINGS = ("json", "base64")


class HTTPReward(External):
    """What a web service answers about samples, in its own range. Black-box: it has no derivative.

    Arguments:
        url: where to post, `http://...` or `https://...`.
        encoding: "json" sends nested lists of numbers in full, "base64" float32 in a third of the room.
        headers: further ones, for a key of the service.
        send_cond: whether to add the samples' rows of `cond`, as nested lists, under "cond".
        batch, timeout, retries, workers, process, pause: as in :class:`External`; a connection that fails and an answer
            of an error status are failed tries. The timeout is 60 seconds by default.

    Raises:
        ValueError: an argument that does not fit.
        RewardFailure: as in :class:`External`.
    """

    def __init__(
        self,
        url: str,
        *,
        encoding: str = "json",
        headers: Mapping[str, str] | None = None,
        send_cond: bool = False,
        timeout: float | None = 60.0,
        **settings: Any,
    ) -> None:
        if not str(url).lower().startswith(("http://", "https://")):
            raise ValueError(f"url: got {url!r}, expected one that starts with http:// or https://")
        check_choice("encoding", encoding, ENCODINGS)
        post = _Post(url, encoding, dict(headers or {}), send_cond, timeout)
        super().__init__(post, timeout=timeout, **settings)


class _Post:
    """One request and its answer."""

    def __init__(
        self, url: str, encoding: str, headers: dict[str, str], send_cond: bool, timeout: float | None
    ) -> None:
        self.url, self.encoding, self.send_cond, self.timeout = url, encoding, send_cond, timeout
        self.headers = {"Content-Type": "application/json", "Accept": "application/json"} | headers

    def __call__(self, samples: Tensor, cond: Any = None) -> list[float]:
        body = _body(samples, self.encoding)
        if self.send_cond:
            body["cond"] = map_cond(Tensor.tolist, cond)  # type: ignore[arg-type]
        request = urllib.request.Request(self.url, json.dumps(body).encode(), self.headers, method="POST")
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            answer = json.load(response)
        if not isinstance(answer, dict) or not isinstance(answer.get("rewards"), list):
            raise ValueError("the service's answer has no list 'rewards', expected {'rewards': [...]}")
        return answer["rewards"]


def _body(samples: Tensor, encoding: str) -> dict[str, Any]:
    shape = list(samples.shape)
    if encoding == "json":
        return {"samples": samples.tolist(), "shape": shape}
    raw = samples.to(torch.float32).numpy().astype("<f4").tobytes()
    return {"samples": base64.b64encode(raw).decode(), "shape": shape, "dtype": "float32"}
