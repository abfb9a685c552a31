"""Pictures to make, each with a prompt and a seed of its own: which of them are this process's, and which are finished.

A picture is finished when its record, a JSON file, stands beside it and both are whole: the picture is written first, and
each of the two appears under its name at once. A folder belongs to one way of making pictures, which `settings.json` says;
prompts and seeds may be added to it.

Shares are runs of the list of all pictures, of sizes that differ by one at most. A picture is the same whichever share it
is in, since it has its own noise and its prompt is embedded by itself.
"""

from __future__ import annotations

import json
import os

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .outputs import write_json

__all__ = ["Job", "check_same_settings", "claim", "process_share", "read_record", "share_of"]

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Job:
    """A picture to make.

    Attributes:
        prompt, seed: what it depends on.
        image: the file; its record is of the same name and ends in `.json`.
        notes: what a benchmark says of its prompt.
    """

    prompt: str
    seed: int
    image: Path
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        """The file of its figures."""
        return self.image.with_suffix(".json")


def process_share(shard: str | None) -> tuple[int, int]:
    """Which share of how many is this process's: as `shard` says, like `0/4`, or else by the process's rank among those
    that accelerate or torchrun started.

    Raises:
        ValueError: no such share or rank, or a share in addition to that by rank.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ValueError(
            f"RANK, WORLD_SIZE: got {rank!r} and {world!r} in the environment, expected a number from 0 and a larger one, "
            "the process's and that of all processes"
        )
    if shard is None:
        return int(rank), int(world)
    first, slash, second = shard.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise ValueError(f"shard: got {shard!r}, expected a share like 0/4, the first of four")
    if int(world) > 1:
        raise ValueError(f"shard: got {shard!r} in one of {world} processes, which share by rank; leave it out")
    return int(first), int(second)


def share_of(jobs: Sequence[Job], share: tuple[int, int]) -> list[Job]:
    """The jobs of a share, a run of the list."""
    index, count = share
    return list(jobs[len(jobs) * index // count : len(jobs) * (index + 1) // count])


def read_record(job: Job, look: bool = True) -> dict[str, Any] | None:
    """The figures of a finished picture, or None for one that is not finished; with `look` all of the picture's file is
    read, otherwise it is enough that there is one.

    Raises:
        ValueError: a picture of another prompt or seed stands in its place.
    """
    from PIL import Image

    try:
        record = json.loads(job.record.read_text(encoding="utf-8"))
        if look:
            with Image.open(job.image) as image:
                image.verify() if image.format == "PNG" else image.load()
    except (OSError, SyntaxError, ValueError):  # PIL calls a broken picture a syntax error
        return None
    if not isinstance(record, dict) or not job.image.is_file():
        return None
    if (record.get("prompt"), record.get("seed")) != (job.prompt, job.seed):
        raise ValueError(
            f"out: {job.image} was made for the prompt {record.get('prompt')!r} and the seed {record.get('seed')}, expected "
            f"{job.prompt!r} and {job.seed}; take another folder"
        )
    return record


def check_same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder of pictures that were made in another way.

    Raises:
        ValueError: it is one, or its `settings.json` cannot be read.
    """
    file = out / SETTINGS
    if not file.exists():
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"out: {file} is no JSON, expected that of an earlier run; remove it or take another folder"
        ) from error
    wanted = json.loads(json.dumps(settings))
    if found == wanted:
        return
    found = found if isinstance(found, dict) else {}
    other = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    told = ", ".join(f"{name} {found.get(name)!r} there and {wanted.get(name)!r} here" for name in other)
    raise ValueError(f"out: {out} holds pictures of other settings ({told}), expected the same; take another folder")


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Makes the folder one of pictures that are made in this way.

    Raises:
        ValueError: it has become one of others meanwhile.
    """
    check_same_settings(out, settings)
    if not (out / SETTINGS).exists():
        write_json(out / SETTINGS, settings)
