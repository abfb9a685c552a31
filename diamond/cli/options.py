"""Options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Batch", "DataName", "Device", "LearningRate", "Quiet", "Resume", "Root", "Seed"]

Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything random.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Batch = Annotated[int, typer.Option(help="Samples per step.")]
LearningRate = Annotated[float, typer.Option(help="The largest learning rate; it falls to zero by a half cosine.")]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on from an interrupted run whose state stands beside --out.")
]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder of mnist, fashion-mnist and cifar10, downloaded if missing.", show_default="data"),
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Data set: digits, mnist, fashion-mnist, cifar10, a .npz file, or a folder of images.",
        show_default="what the model's file names",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Where to run: cpu, cuda, cuda:1, mps.", show_default="cuda where there is one")
]
