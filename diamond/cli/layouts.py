"""Where pictures stand: in the plain layout of `diamond align`, and in those that evaluators of benchmarks read.

`diamond align`
    `00000-a-red-cat/seed-3.png`: a folder a prompt, a picture a seed.

GenEval
    `00000/metadata.jsonl`, one line, the prompt's own of the benchmark's file, and `00000/samples/0000.png`, `0001.png`,
    ...: what its authors' `evaluate_images.py` walks through. It looks at nothing but folders of digits, and in `samples` at
    nothing but pictures of digits, so that the records beside them do not disturb it.

DrawBench, PartiPrompts
    No evaluator came with them; those of preference scores read flat folders of pictures that are called after the
    prompt's number. Here `images/0/00000.png` is the first sample of the first prompt and `images/1` holds the second
    samples, so that each of these folders is one such flat set; `drawbench.json` or `partiprompts.json` holds the prompts in
    order. That is also what HPSv2's own evaluation of DrawBench asks for, of pictures `.jpg`.

References:
    | GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment (Ghosh et al., 2023)
    | https://arxiv.org/abs/2310.11513, https://github.com/djghosh13/geneval
    | Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al., 2022)
    | https://arxiv.org/abs/2205.11487 (DrawBench)
    | Scaling Autoregressive Models for Content-Rich Text-to-Image Generation (Yu et al., 2022)
    | https://arxiv.org/abs/2206.10789 (PartiPrompts)
    | Human Preference Score v2 (Wu et al., 2023), https://github.com/tgxs002/HPSv2 (the flat folders)
"""

from __future__ import annotations

import json

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .benchmark_prompts import BenchmarkPrompt
from .jobs import Job
from .prompts import slug

__all__ = ["Layout", "flat_layout", "geneval_layout", "plain_layout"]


@dataclass(frozen=True)
class Layout:
    """The pictures of a run, prompt by prompt, and the files of text that belong beside them.

    Attributes:
        out: the folder.
        jobs: all pictures, whosever share they are in.
        texts: what files hold, by their place.
    """

    out: Path
    jobs: list[Job]
    texts: dict[Path, str] = field(default_factory=dict)


def plain_layout(out: Path, prompts: Sequence[str], seeds: Sequence[int]) -> Layout:
    """A folder a prompt, a picture a seed."""
    folders = [out / f"{number:05d}-{slug(prompt)}".rstrip("-") for number, prompt in enumerate(prompts)]
    return Layout(
        out,
        [
            Job(prompt, seed, folder / f"seed-{seed}.png")
            for prompt, folder in zip(prompts, folders, strict=True)
            for seed in seeds
        ],
    )


def geneval_layout(out: Path, prompts: Sequence[BenchmarkPrompt], seeds: Sequence[int]) -> Layout:
    """What GenEval's evaluation reads."""
    jobs, texts = [], {}
    for number, prompt in enumerate(prompts):
        folder = out / f"{number:05d}"
        texts[folder / "metadata.jsonl"] = json.dumps(prompt.notes) + "\n"
        for sample, seed in enumerate(seeds):
            jobs.append(Job(prompt.text, seed, folder / "samples" / f"{sample:04d}.png", _notes(prompt, number)))
    return Layout(out, jobs, texts)


def flat_layout(
    out: Path, name: str, prompts: Sequence[BenchmarkPrompt], seeds: Sequence[int], ending: str = "png"
) -> Layout:
    """Flat folders of pictures called after the prompt's number, one folder a sample."""
    jobs = [
        Job(prompt.text, seed, out / "images" / str(sample) / f"{number:05d}.{ending}", _notes(prompt, number))
        for number, prompt in enumerate(prompts)
        for sample, seed in enumerate(seeds)
    ]
    return Layout(out, jobs, {out / f"{name}.json": json.dumps([prompt.text for prompt in prompts], indent=1) + "\n"})


def _notes(prompt: BenchmarkPrompt, number: int) -> dict[str, Any]:
    return {"number": number} | prompt.notes
