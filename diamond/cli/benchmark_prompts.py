"""The prompts of benchmarks, read from the files that their authors give out."""

from __future__ import annotations

import csv
import json

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .prompts import read_lines

__all__ = ["BenchmarkPrompt", "read_geneval", "read_table"]


@dataclass(frozen=True)
class BenchmarkPrompt:
    """A prompt, and what its benchmark says of it."""

    text: str
    notes: dict[str, Any] = field(default_factory=dict)


def read_geneval(file: Path) -> list[BenchmarkPrompt]:
    """The prompts of GenEval's `evaluation_metadata.jsonl`: an object a line, with a `prompt` and a `tag`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another one.
    """
    prompts = []
    for number, line in enumerate(read_lines(file, "prompts"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not all(_is_text(entry.get(name)) for name in ("prompt", "tag")):
            raise ValueError(
                f"prompts: line {number} of {file} is no JSON object with a 'prompt' and a 'tag', as GenEval's are"
            )
        prompts.append(BenchmarkPrompt(entry["prompt"], entry))
    return _some(prompts, file)


def read_table(file: Path) -> list[BenchmarkPrompt]:
    """The prompts of a table with a column `Prompt` or `Prompts`, `.csv` as DrawBench has it or `.tsv` as PartiPrompts; or
    of any other text file, one a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a table without such a column, one without prompts, or JSON, as GenEval's are.
    """
    lines = read_lines(file, "prompts")
    if file.suffix.lower() in (".json", ".jsonl"):
        raise ValueError(
            f"prompts: {file} is JSON, expected a .csv or .tsv with a column Prompt, or a text of one a line"
        )
    if file.suffix.lower() not in (".csv", ".tsv"):
        return _some([BenchmarkPrompt(line.strip()) for line in lines if line.strip()], file)
    tabs = file.suffix.lower() == ".tsv"  # where quotation marks are what they look like
    table = csv.DictReader(
        (f"{line}\n" for line in lines),  # a prompt between quotation marks may hold several
        dialect="excel-tab" if tabs else "excel",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
    )
    try:
        columns = [name for name in table.fieldnames or () if name.strip().lower() in ("prompt", "prompts")]
        if not columns:
            raise ValueError(
                f"prompts: {file} has the columns {', '.join(table.fieldnames or ())}, expected one called Prompt"
            )
        rows = list(table)
    except csv.Error as error:
        raise ValueError(f"prompts: {file} is no table that can be read ({error})") from error
    prompts = [
        BenchmarkPrompt(
            row[columns[0]].strip(),
            {name.strip().lower(): text for name, text in row.items() if name and name != columns[0] and text},
        )
        for row in rows
        if _is_text(row[columns[0]])
    ]
    return _some(prompts, file)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _some(prompts: list[BenchmarkPrompt], file: Path) -> list[BenchmarkPrompt]:
    if not prompts:
        raise ValueError(f"prompts: {file} holds none")
    return prompts
