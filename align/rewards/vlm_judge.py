r"""A reward that a model which sees images gives in words, over any service that speaks OpenAI's chat protocol.

One POST to `/v1/chat/completions` an image, with the picture as a PNG in a `data:` URL and a question beside it; the
number is read off the answer as :mod:`align.rewards.vlm_answers` says. What was answered is never asked again.

References:
    | Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena (Zheng et al., 2023)
    | https://arxiv.org/abs/2306.05685
"""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.request

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from PIL import Image
from torch import Tensor

from ..answers import reward_dtype
from ..scoring import RewardFailure
from .answer_cache import AnswerCache, key_of
from .composition import RewardModule
from .external import External
from .prompts import check_images, check_prompt, prompts_for, to_levels
from .vlm_answers import expected_number, read_number
from .workers import described

__all__ = ["QUESTION", "JudgeError", "VLMJudge"]

QUESTION = (
    "This image was made for the prompt: {prompt}\n"
    "How well does it show what the prompt asks for, and how good does it look? "
    "Answer with one number from {low} to {high}, where {high} is best, and nothing else."
)
PATH = "/chat/completions"
OPTIONS = {"temperature": 0, "max_tokens": 64}


class JudgeError(RuntimeError):
    """What a judge's service answered instead of a number."""


class VLMJudge(RewardModule):
    """What a vision-language model answers about images `(N, 3, H, W)` in [-1, 1], on a scale of its own. Black-box: it
    has no derivative. Images are judged one by one, several at once, as the 8-bit pictures that a file of them holds.

    Arguments:
        url: of the service, `http://host:8000/v1`; `/v1` and `/chat/completions` are added where they are missing.
        model: the name that the service knows the model by.
        prompt: one for all images; where it is None, `cond` is a list of one an image.
        question: what is asked, with `{prompt}`, `{low}` and `{high}` where they belong; without `{prompt}` no
            prompts are needed.
        scale: the lowest and the highest number that is an answer.
        expected: reads the expected score off the probabilities of the digits, for a scale within 0 to 9 and a service
            that gives `logprobs`.
        api_key: of the service; by default what the environment calls `key_variable`, if anything. It is sent to `url`
            alone, and never shown, written or passed on by a redirect.
        cache: a file of JSON lines where answers are kept for the next run; by default this object remembers them.
        options: further fields of the request, or `{"temperature": None}` to leave out one of `temperature` (0) and
            `max_tokens` (64).
        workers: the most requests at once.
        timeout, retries, pause: as in :class:`External`: seconds for one request; further tries after a failed
            connection, an error status or an answer that gives no number; seconds before the first of them, which
            double.

    Raises:
        ValueError: an argument that does not fit; when called, images or prompts that do not fit.
        RewardFailure: when called, the judge could not be asked; its `rewards` `(N,)` are those that were answered, and
            NaN. They are kept: the next call asks about the others alone.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        prompt: str | None = None,
        question: str = QUESTION,
        scale: Sequence[float] = (1, 10),
        expected: bool = False,
        api_key: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        cache: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        workers: int = 8,
        timeout: float | None = 60.0,
        retries: int = 4,
        pause: float = 0.5,
    ) -> None:
        super().__init__()
        if not str(url).lower().startswith(("http://", "https://")):
            raise ValueError(f"url: got {url!r}, expected one that starts with http:// or https://")
        check_prompt(prompt)
        self.url, self.model, self.prompt, self.question = _endpoint(url), model, prompt, question
        self.scale, self.expected = _checked_scale(scale, expected), expected
        self.options = _options(options, expected)
        self.cache = AnswerCache(cache)
        self._settings: dict[str, Any] = {"workers": workers, "timeout": timeout, "retries": retries, "pause": pause}
        self._key = lambda: os.environ.get(key_variable) if api_key is None else api_key
        External(self._ask, **self._settings)  # says which of its arguments does not fit

    @torch.no_grad()
    def forward(self, images: Tensor, cond: Any = None) -> Tensor:
        check_images(images)
        if bool(images.isnan().any()):  # a file of it would be black
            wrong = int(images.isnan().flatten(1).any(1).sum())
            raise ValueError(f"images: got NaN in {wrong} of {len(images)}, expected numbers")
        needed = "{prompt}" in self.question
        prompts = prompts_for(len(images), self.prompt, cond) if needed else [""] * len(images)
        levels = to_levels(images)
        questions = [self._question(prompt) for prompt in prompts]
        keys = [self._fingerprint(*pair) for pair in zip(levels, questions, strict=True)]
        rows = list({key: row for row, key in enumerate(keys) if key not in self.cache}.values())

        def ask(numbers: Tensor) -> list[float]:
            row = rows[int(numbers)]
            number, answer = self._ask(levels[row], questions[row])
            self.cache.add(keys[row], number, answer=answer)
            return [number]

        failure: RewardFailure | None = None
        try:
            External(ask, batch=1, **self._settings)(torch.arange(len(rows)))
        except RewardFailure as error:
            failure = error
        rewards = torch.tensor([self.cache.get(key) for key in keys], dtype=torch.float64)
        rewards = rewards.to(images.device, reward_dtype(images))
        if failure is not None:
            raise RewardFailure(
                f"judge {self.model!r} at {self.url}: {int(rewards.isnan().sum())} of {len(images)} images have no "
                f"answer, the last try of {self._settings['retries'] + 1} failed with {_reason(failure)}",
                rewards,
            ) from failure
        return rewards

    def _question(self, prompt: str) -> str:
        low, high = (f"{end:g}" for end in self.scale)
        return self.question.replace("{low}", low).replace("{high}", high).replace("{prompt}", prompt)

    def _fingerprint(self, levels: Tensor, question: str) -> str:
        return key_of(
            levels.numpy().tobytes(),
            shape=list(levels.shape),
            model=self.model,
            question=question,
            scale=list(self.scale),
            expected=self.expected,
            options=self.options,
        )

    def _ask(self, levels: Tensor, question: str) -> tuple[float, str]:
        """The number that the judge gives one image `(3, H, W)` of levels 0 to 255, and its words."""
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(levels)}},
            {"type": "text", "text": question},
        ]
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], **self.options}
        choice = self._post(body)
        answer = choice["message"].get("content")
        if not isinstance(answer, str):
            raise JudgeError("the judge's answer has no text, expected choices[0].message.content")
        if self.expected:
            return expected_number((choice.get("logprobs") or {}).get("content"), self.scale), answer
        return read_number(answer, self.scale), answer

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        key = self._key()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers, method="POST")
        try:
            with _OPENER.open(request, timeout=self._settings["timeout"]) as response:
                answer = json.load(response)
            choice = answer["choices"][0]
            choice["message"].get("content")
            return choice
        except urllib.error.HTTPError as error:
            text = " ".join(error.read(2000).decode(errors="replace").split())[:200]
            hidden = text.replace(key, "***") if key else text
            raise JudgeError(f"the status {error.code} {error.reason} ({hidden})") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise JudgeError(f"an answer that is none of a chat, expected choices[0].message ({error!r})") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error status: the key is for the service that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _endpoint(url: str) -> str:
    url = str(url).rstrip("/")
    if url.endswith(PATH):
        return url
    return url + PATH if url.endswith("/v1") else f"{url}/v1{PATH}"


def _checked_scale(scale: Sequence[float], expected: bool) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in scale)
    except (TypeError, ValueError):
        low = high = 0.0
    if not -1e9 < low < high < 1e9:
        raise ValueError(f"scale: got {scale!r}, expected two numbers, the lower one first")
    if expected and not (0 <= low and high <= 9):
        raise ValueError(
            f"scale: got {scale!r}, expected one within 0 to 9 for expected=True, which reads single digits"
        )
    return low, high


def _options(options: Mapping[str, Any] | None, expected: bool) -> dict[str, Any]:
    known = OPTIONS | ({"logprobs": True, "top_logprobs": 20} if expected else {})
    return {name: value for name, value in (known | dict(options or {})).items() if value is not None}


def _data_url(levels: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _reason(failure: RewardFailure) -> str:
    cause = failure.__cause__ or failure
    return str(cause) if isinstance(cause, JudgeError) else described(cause)
