"""Prompts and seeds as one writes them on a command line or in a file."""

from __future__ import annotations

import re

from collections.abc import Sequence
from pathlib import Path

__all__ = ["parse_seeds", "prompts_from", "read_lines", "slug"]

MOST_SEEDS = 1_000_000
RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?")


def prompts_from(given: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of the command line, then those of a file, one a line; blank lines and those that begin with # do not
    count.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text, a prompt is blank, or there are none at all.
    """
    for prompt in given:
        if not prompt.strip():
            raise ValueError(f"prompt: got {prompt!r}, expected one that says something")
    prompts = [prompt.strip() for prompt in given]
    if file is not None:
        lines = [line.strip() for line in read_lines(file, "prompt_file")]
        prompts += [line for line in lines if line and not line.startswith("#")]
        if len(prompts) == len(given):
            raise ValueError(f"prompt_file: {file} holds no prompts, expected one a line")
    if not prompts:
        raise ValueError("prompt: got none, expected --prompt, once or more often, or --prompt-file")
    return prompts


def read_lines(file: Path, name: str) -> list[str]:
    """The lines of a text in UTF-8; `name` is the argument that the file came by.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such text.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{name}: there is no file {file}")
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {file} is no text in UTF-8 ({error.reason} at byte {error.start})") from error


def parse_seeds(text: str) -> list[int]:
    """The seeds of `0..3`, which are 0, 1, 2 and 3, of `7`, or of several such with commas, each once.

    Raises:
        ValueError: `text` is none of these.
    """
    seeds: dict[int, None] = {}
    for part in text.replace(" ", "").split(","):
        match = RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < 2**63 or last - first >= MOST_SEEDS:
            raise ValueError(f"seeds: got {text!r}, expected whole numbers like 7, 0..3 or 0,2,5..7")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)


def slug(prompt: str, longest: int = 40) -> str:
    """What of a prompt goes into a file's name: its words in small letters and digits with dashes between."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))
    return words.encode("ascii", "ignore").decode()[:longest].strip("-") or "prompt"
