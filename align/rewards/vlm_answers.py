r"""A number read off what a language model says.

The rule, first match counts: (1) the answer is nothing but a number; (2) the last "7/10" or "7 out of 10", with the
scale's upper end; (3) the last number after "score", "rating" or "grade"; (4) a number that begins the answer; (5) the
last number, where the scale itself ("from 1 to 10") is not counted. A number outside the scale is none.

With the model's own probabilities :math:`p(v)` of the digits :math:`v` of the scale at the first place where it wrote
one of them, the expected score is :math:`\sum_v v \, p(v) / \sum_v p(v)`: finer than the likeliest digit.

References:
    | G-Eval: NLG Evaluation using GPT-4 with Better Human Alignment (Liu et al., 2023)
    | https://arxiv.org/abs/2303.16634
"""

from __future__ import annotations

import math
import re

from typing import Any

__all__ = ["expected_number", "read_number"]

NUMBER = r"[-+]?\d+(?:[.,]\d+)?"
NAMED = re.compile(rf"(?:score|rating|grade)\W{{0,8}}(?:(?:is|of)\b\W{{0,4}})?({NUMBER})", re.IGNORECASE)
ALONE = re.compile(rf"\W*?({NUMBER})\W*")
FIRST = re.compile(rf"[\s*_`\"'(\[]*({NUMBER})")


def read_number(answer: str, scale: tuple[float, float]) -> float:
    """The number that an answer gives, on the scale.

    Raises:
        ValueError: it gives none.
    """
    low, high = (f"{end:g}" for end in scale)
    shares = re.findall(rf"({NUMBER})\s*(?:/|out of)\s*{re.escape(high)}(?!\d|[.,]\d)", answer, re.IGNORECASE)
    bare = re.sub(rf"{re.escape(low)}\s*(?:-|–|to|and|bis)\s*{re.escape(high)}(?!\d)", " ", answer)
    found = (
        ALONE.fullmatch(answer),
        shares and shares[-1],
        (named := NAMED.findall(bare)) and named[-1],
        FIRST.match(bare),
        (numbers := re.findall(rf"(?<![\w.]){NUMBER}(?!\w)", bare)) and numbers[-1],
    )
    for match in found:
        if match:
            number = float((match if isinstance(match, str) else match[1]).replace(",", "."))
            if scale[0] <= number <= scale[1]:
                return number
            break
    raise ValueError(f"the judge said {_short(answer)!r}, expected a number from {low} to {high}")


def expected_number(tokens: Any, scale: tuple[float, float]) -> float:
    """The expected score over the digits of a scale within 0 to 9, from an answer's `logprobs.content`.

    Raises:
        ValueError: there are no probabilities, or none of such a digit.
    """
    digits = {str(digit): digit for digit in range(math.ceil(scale[0]), math.floor(scale[1]) + 1)}
    for token in tokens or []:
        if str(token.get("token", "")).strip() in digits:
            weights: dict[int, float] = {}
            for option in token.get("top_logprobs") or [token]:
                digit = digits.get(str(option["token"]).strip())
                if digit is not None:
                    weights[digit] = weights.get(digit, 0.0) + math.exp(option["logprob"])
            if sum(weights.values()) > 0:
                return sum(digit * weight for digit, weight in weights.items()) / sum(weights.values())
    raise ValueError(
        "the judge's answer has no logprobs of a digit of the scale, expected some; or take expected=False"
    )


def _short(answer: str) -> str:
    text = " ".join(answer.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
