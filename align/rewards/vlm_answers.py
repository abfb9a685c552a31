r"""A number read off what a language model says.

What says nothing about the image goes first: its thinking (`<think>...</think>`), emphasis, the scale itself ("from 1 to
10", "a scale of 10", "out of 10" without a number, "10 is best"), numbers that are denied ("not a 10", "10 is too high"),
those in a word ("10-point", "3rd"), and percentages, but on a scale to 100.

Of what is left these count: a share of the scale's upper end ("7/10", "7 out of 10", "7 of 10"); a number after a word
that names it, like "score" or "I rate it"; one that begins the answer and ends there or gives its reasons; and one that is
a line, or the last sentence, by itself. A number of things ("score: 3 dogs are missing") or half of a range ("7 to 8")
does not. Of several that count, one called "overall" or "final" is the answer, or else the last one, but not where each is
*for* something of its own. Where none counts, it is the only number left. Otherwise, and where that number is off the
scale, the answer gives none: a refusal is asked again, a misreading is believed. Numbers in words ("seven") are not read.

With the model's own probabilities :math:`p(v)` of the digits :math:`v` of the scale at the place where it wrote that
number, the expected score is :math:`\sum_v v \, p(v) / \sum_v p(v)`: finer than the likeliest digit.

References:
    | G-Eval: NLG Evaluation using GPT-4 with Better Human Alignment (Liu et al., 2023)
    | https://arxiv.org/abs/2303.16634
"""

from __future__ import annotations

import math
import re

from typing import Any

__all__ = ["expected_number", "read_number"]

NUMBER = (
    r"(?<!\w)(?<!\d[.,])(?<![^\W\d]-)"  # in no word, in no longer number
    r"[-+]?(?:\d+(?:[.,]\d+)?|(?<!\.)\.\d+)"
    r"(?!\w|[.,]\d|-[^\W\d]|\s*%)"
)
RANGE = r"(?!\s*(?:[-–—/~]|to\b|or\b|bis\b)\s*[-+]?\d)"
REASONS = r"because|since|as|due|given|considering|based|but|though|although|while|so"
FAIR = (
    r"(?:is|was|seems|feels|would\s+be)\s+(?:[^\W\d]+\s+)?"
    r"(?:fair|appropriate|justified|warranted|reasonable|fitting|suitable|deserved)"
)
# after a number that counts nothing
ENDS = (
    rf"{RANGE}(?=\s*(?:[^\w\s]|$)|\s*\n|\s+(?:{REASONS}|{FAIR}|with|for|on|here|overall|which|where|points?|stars?)\b)"
)
NAMES = (
    r"\b(?:(?:rat|scor|grad|giv)(?:e|es|ed|en|ing)|gave|say|(?:assign|award)(?:s|ed)?|"
    r"gets?|deserves?|earns?|receives?|answer|verdict|overall|final)\b"
)
BETWEEN = (
    r"i|d|ll|s|it|its|this|that|the|a|an|my|image|picture|photo|photograph|result|generation|is|was|are|be|been|would|will|"
    r"should|could|of|as|at|to|for|here|give|given|say|assign|score|rating|grade|overall|final|about|around|roughly|"
    r"approximately|solid|strong|good|perfect|full"
)
NAMED = re.compile(
    rf"{NAMES}(?:[^\w.;!?\n]{{1,80}}(?:{BETWEEN})\b){{0,9}}[^\w.!?]{{0,80}}?({NUMBER}){ENDS}", re.IGNORECASE
)
FIRST = re.compile(
    rf"\W*?(?!1[.)])({NUMBER}){RANGE}(?=\s*\n|\s*[.:;!?(]|\s*[-–—]+\s|,?\s+(?:{REASONS})\b)", re.IGNORECASE
)
LINE = re.compile(rf"^[^\w\n]*?({NUMBER})[^\w\n]*$", re.MULTILINE)
LAST = re.compile(rf"[.!?]\s+({NUMBER})\W*\Z")
WHOLE = re.compile(r"\b(?:overall|final(?:ly)?|altogether)\b", re.IGNORECASE)
EMPTY = (re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE), re.compile(r"[*_`]"))
DENIED = (
    re.compile(
        rf"(?:\b(?:no|not|never|cannot|without)\b|n['’]t\b)(?:\s+(?!(?:so|but|hence|thus|therefore|i)\b)[^\W\d]+){{0,4}}"
        rf"\s+{NUMBER}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"{NUMBER}\s+(?:cannot|[^\W\d]+n['’]t|(?:is|was|seems|feels|would\s+be)\s+(?:[^\W\d]+\s+){{0,2}}?"
        r"(?:not|too|out|impossible|unfair|unjustified|unwarranted|undeserved|unrealistic|unreachable|inappropriate))\b",
        re.IGNORECASE,
    ),
)


def read_number(answer: str, scale: tuple[float, float]) -> float:
    """The number that an answer gives, on the scale.

    Raises:
        ValueError: it gives none.
    """
    found = _found(answer, scale)
    if found is None:
        low, high = (f"{end:g}" for end in scale)
        raise ValueError(f"the judge said {_short(answer)!r}, expected a number from {low} to {high}")
    return found[0]


def expected_number(tokens: Any, scale: tuple[float, float]) -> float:
    """The expected score over the digits of a scale within 0 to 9, from an answer's `logprobs.content`.

    Raises:
        ValueError: there are no probabilities, or none of such a digit at the place of the number that the answer gives.
    """
    digits = {str(digit): digit for digit in range(math.ceil(scale[0]), math.floor(scale[1]) + 1)}
    found = _found("".join(str(token.get("token", "")) for token in tokens or []), scale)
    end = 0
    for token in tokens or []:
        end += len(str(token.get("token", "")))
        if found is None or end <= found[1]:
            continue
        weights: dict[int, float] = {}
        for option in token.get("top_logprobs") or [token]:
            digit = digits.get(str(option["token"]).strip())
            if digit is not None:
                weights[digit] = weights.get(digit, 0.0) + math.exp(option["logprob"])
        if sum(weights.values()) > 0:
            return sum(digit * weight for digit, weight in weights.items()) / sum(weights.values())
        break
    raise ValueError(
        "the judge's answer has no logprobs of a digit of the scale, expected some; or take expected=False"
    )


def _found(answer: str, scale: tuple[float, float]) -> tuple[float, int] | None:
    """The number that an answer gives and the place where it begins, or None."""
    text, matches = _stripped(answer, scale)
    first = FIRST.match(text)
    matches += [*NAMED.finditer(text), *LINE.finditer(text), *LAST.finditer(text), *([first] if first else [])]
    numbers = {match.start(1): match for match in sorted(matches, key=lambda match: match.start(1))}
    counted = list(numbers.values())
    left = list(re.finditer(f"({NUMBER})", text))
    ends = [0, *(match.end() for match in left)]
    before = {match: max(end for end in ends if end <= match.start(1)) for match in counted}
    whole = [match for match in counted if WHOLE.search(text, before[match], match.start(1))]
    general = [match for match in counted if not re.match(r"\s+for\b", text[match.end(1) :], re.IGNORECASE)]
    rest = counted or left
    chosen = whole or general or (rest if len({_value(match) for match in rest}) == 1 else [])
    if not chosen or not scale[0] <= _value(chosen[-1]) <= scale[1]:
        return None
    start = chosen[-1].start(1)
    if scale[0] < 0 and re.search(r"[-–—]\s*$", text[:start]):  # a sign or a dash?
        return None
    return _value(chosen[-1]), start


def _stripped(answer: str, scale: tuple[float, float]) -> tuple[str, list[re.Match[str]]]:
    """The answer with blanks for what says nothing about the image, each as long as what it stands for; and its shares."""
    low, high = (rf"(?<![\w.,])\+?{re.escape(f'{end:g}')}(?:[.,]0+)?(?!\w|[.,]\d)" for end in scale)
    said = r"\s*(?:=|:|is|are|being|means|for|as)\s*(?:the\s+)?"
    spoken = (
        rf"{low}\s*(?:\([^()\d]*\)\s*)?(?:-|–|—|\.\.+|to|and|through|bis)\s*{high}",
        rf"\b(?:scale|maximum|max)\b\.?(?:\s+score)?\s*(?:of|to|up\s+to|is|=|:)?\s*{high}",
        rf"\bout\s+of\s+(?:an?\s+)?(?:possible\s+|maximum\s+|total\s+)?(?:of\s+)?{high}",
        rf"{high}[\s-]+points?\s+scale",
        rf"{high}{said}(?:best|highest|perfect|excellent|flawless|max(?:imum)?)\b",
        rf"{low}{said}(?:worst|lowest|poor|bad|terrible|min(?:imum)?)\b",
        rf"\bbest\s*(?:=|:|is)\s*{high}",
    )
    text = answer.replace("−", "-")
    text = text.replace("%", " ") if scale[1] == 100 else text
    for pattern in EMPTY:
        text = _blank(pattern, text)
    shares = list(re.finditer(rf"({NUMBER})\s*(?:(?:/|out\s+of|of|von)\s*{high}){ENDS}", text, re.IGNORECASE))
    for share in shares:
        text = text[: share.end(1)] + " " * (share.end() - share.end(1)) + text[share.end() :]
    for pattern in (*(re.compile(words, re.IGNORECASE) for words in spoken), *DENIED):
        text = _blank(pattern, text)
    return text, shares


def _blank(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: " " * len(match[0]), text)


def _value(match: re.Match[str]) -> float:
    return float(match[1].replace(",", "."))


def _short(answer: str) -> str:
    text = " ".join(answer.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
