"""Answers that were paid for, by what was asked: in memory, and in a file of JSON lines for the next run.

A line is written whole as soon as its answer is there, so that a run that is killed loses nothing but the questions that
are still out; its last line may be torn then, and is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading

from pathlib import Path
from typing import Any

__all__ = ["AnswerCache", "key_of"]


def key_of(content: bytes, **question: Any) -> str:
    """A fingerprint of an image's content and all that an answer depends on besides."""
    settings = json.dumps(question, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(hashlib.sha256(settings).digest() + content).hexdigest()


class AnswerCache:
    """Numbers by key.

    Arguments:
        path: of the file, which need not be there yet; None remembers for this object's life alone.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.numbers: dict[str, float] = {}
        self._lock = threading.Lock()
        self._torn = False
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def __contains__(self, key: str) -> bool:
        return key in self.numbers

    def get(self, key: str) -> float:
        """The number of a key, NaN where there is none."""
        return self.numbers.get(key, math.nan)

    def add(self, key: str, number: float, **note: Any) -> None:
        """Keeps a number, and writes it down with what else there is to say of it."""
        with self._lock:
            self.numbers[key] = number
            if self.path is None:
                return
            line = json.dumps({"key": key, "reward": number, **note}, ensure_ascii=False) + "\n"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n" + line if self._torn else line)
            self._torn = False

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"cache: {path} is no text, expected JSON lines of answers") from error
        lines = text.split("\n")
        self._torn = bool(lines[-1])
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                entry = json.loads(line)
                self.numbers[str(entry["key"])] = float(entry["reward"])
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines) and not line.startswith('{"key": '):  # one that was torn in an earlier run
                    raise ValueError(
                        f"cache: line {number} of {path} is no answer, expected JSON lines with 'key' and 'reward'"
                    ) from error
