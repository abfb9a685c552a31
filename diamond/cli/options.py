"""Options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Batch", "DataName", "Device", "LearningRate", "ModelArgument", "ModelFile", "Quiet", "Resume", "Root", "Seed",
    "model_file",
]  # fmt: skip


def model_file(text: str) -> Path:
    """What the user named: a model that ships by its bare name, which `./NAME` is not, or else a file."""
    from diamond.weights import names

    path = Path(text)
    return path.absolute() if str(path) in names() and text != str(path) else path


ModelArgument = Annotated[
    Path,
    typer.Argument(
        parser=model_file,
        metavar="FILE",
        help="A model, a training state, or an alignment; or the name of a model that ships, like digits.",
        show_default=False,
    ),
]
ModelFile = Annotated[
    Path,
    typer.Option(
        "--model",
        parser=model_file,
        metavar="FILE",
        help="File of a model, or the name of one that ships, like digits.",
        show_default=False,
    ),
]
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
