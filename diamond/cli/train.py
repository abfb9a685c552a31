"""`diamond train`: a flow model from a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .interruption import resumable
from .options import Batch, LearningRate, Quiet, Resume, Root, Seed
from .outputs import check_file
from .training import (
    Accumulate,
    Ema,
    Flip,
    LabelDropout,
    LogWith,
    Optimizer,
    Precision,
    SampleEvery,
    SaveEvery,
    training_options,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from diamond.interpolant import Interpolant

__all__ = ["train"]

SIZES = {"mlp": (256, 3), "transformer": (96, 4), "unet": (32, 1)}  # width and depth


def train(
    data: Annotated[
        str,
        typer.Option(help="Data set: digits, mnist, fashion-mnist, cifar10, a .npz file, or a folder of images."),
    ] = "digits",
    size: Annotated[
        int | None,
        typer.Option(help="Pixels a side to which images are cropped and resized.", show_default="as they are"),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to save the flow in.")] = Path("glass.ckpt"),
    net: Annotated[str, typer.Option(help="Network: mlp, transformer or unet.")] = "mlp",
    width: Annotated[
        int | None, typer.Option(help="Size of its layers.", show_default="256; transformer: 96; unet: 32")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Number of its blocks.", show_default="3; transformer: 4; unet: 1")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1200,
    batch: Batch = 256,
    learning_rate: LearningRate = 1e-3,
    interpolant: Annotated[str, typer.Option(help="Path from noise to data: linear or cosine.")] = "linear",
    conditional: Annotated[
        bool,
        typer.Option(
            "--conditional",
            help="Condition on the class labels; to sample without one as well, give --label-dropout.",
        ),
    ] = False,
    label_dropout: LabelDropout = 0.0,
    flip: Flip = False,
    accumulate: Accumulate = 1,
    ema: Ema = None,
    precision: Precision = None,
    optimizer: Optimizer = "adamw",
    save_every: SaveEvery = 1000,
    sample_every: SampleEvery = None,
    log_with: LogWith = None,
    seed: Seed = 0,
    root: Root = None,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Train the teacher: a flow model, which GLASS turns into a stochastic one."""
    from diamond.data import DATA_SETS, load_data
    from diamond.interpolant import interpolant_named
    from diamond.randomness import seeded
    from distill.recipes import train_flow
    from distill.training.trainer import Schedule

    check_file(out, "out", *[] if data in DATA_SETS else [Path(data)])
    schedule: dict[str, Any] = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    schedule |= training_options(ema, precision, accumulate, optimizer)
    Schedule(**schedule)  # refuses bad settings before the data are read
    path = interpolant_named(interpolant)
    part = load_data(data, root=root, size=size)
    if conditional and part.labels is None:
        raise ValueError(f"conditional: got True, but {data} holds no labels")
    with seeded(seed):
        network = make_network(net, part.images, path, width, depth, part.classes if conditional else 0)
    with resumable(out, resume):
        train_flow(
            part.images, network, labels=part.labels if conditional else None, interpolant=path, out=out,
            metadata={"data": data} | ({} if size is None else {"size": size}), progress=not quiet, resume=resume,
            label_dropout=label_dropout, flip=flip,
            save_every=save_every, sample_every=sample_every, log_with=log_with, **schedule,
        )  # fmt: skip


def make_network(
    name: str,
    images: Tensor,
    interpolant: Interpolant,
    width: int | None = None,
    depth: int | None = None,
    classes: int = 0,
) -> nn.Module:
    """A fresh network for images `(N, C, H, W)`: a perceptron in their whitened coordinates, a transformer, or a U-Net in
    units of their standard deviation, which works on patches where images are larger than 16 pixels.

    Raises:
        ValueError: an unknown name, or sizes that do not fit.
    """
    from diamond.nets import Preconditioned, Transformer, UNet
    from diamond.validation import check_choice, check_positive
    from distill.students import perceptron

    usual = SIZES[check_choice("net", name, SIZES)]
    width = check_positive("width", usual[0] if width is None else width)
    depth = check_positive("depth", usual[1] if depth is None else depth)
    event_shape = tuple(images.shape[1:])
    if name == "mlp":
        return perceptron(images, interpolant, width, depth, classes=classes)
    if name == "unet":
        patch = 2 if min(event_shape[1:]) > 16 and not any(side % 2 for side in event_shape[1:]) else 1
        inner = UNet(event_shape, width, (1, 2, 2), depth, classes=classes, patch=patch)
        return Preconditioned(inner, float(images.std()), float(images.mean()), interpolant)
    patch = 4 if min(event_shape[1:]) > 16 else 2
    while any(side % patch for side in event_shape[1:]):
        patch //= 2
    return Transformer(event_shape, patch, width, depth, classes=classes)
