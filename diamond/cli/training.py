"""Options of the commands that train."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "Accumulate", "Ema", "Flip", "LabelDropout", "LogWith", "Optimizer", "Precision", "SampleEvery", "SaveEvery",
    "training_options",
]  # fmt: skip

LabelDropout = Annotated[
    float, typer.Option(help="Probability of leaving a label out, so that the unconditional law is learned as well.")
]
Flip = Annotated[bool, typer.Option("--flip", help="Mirror images left to right at random.")]
Accumulate = Annotated[int, typer.Option(help="Parts of a batch that are worked through in turn, to save memory.")]
Ema = Annotated[
    list[float] | None,
    typer.Option(
        help="Decay of the average of the weights. Given again, further averages are saved as NAME.ema-DECAY.",
        show_default="0.999",
    ),
]
Precision = Annotated[
    str | None, typer.Option(help="fp32, or bf16 for the networks' work.", show_default="what accelerate was told")
]
Optimizer = Annotated[
    str, typer.Option(help="adamw, or muon: orthogonalised steps of matrices, for long trainings of images' maps.")
]
SaveEvery = Annotated[int, typer.Option(help="Steps between two states to go on from after a kill.")]
SampleEvery = Annotated[
    int | None, typer.Option(help="Steps between two pictures of samples, beside --out.", show_default="none")
]
LogWith = Annotated[
    str | None, typer.Option(help="Where metrics go besides: tensorboard or wandb.", show_default="a file only")
]


def training_options(ema: list[float] | None, precision: str | None, accumulate: int, optimizer: str) -> dict[str, Any]:
    """The fields of a schedule that these options say."""
    averages = {} if not ema else {"ema": ema[0] if len(ema) == 1 else tuple(ema)}
    return {**averages, "precision": precision, "accumulate": accumulate, "optimizer": optimizer}
