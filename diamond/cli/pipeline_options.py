"""Options of the commands that make pictures with a pipeline of diffusers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "AllParticles", "DecodeChunk", "Dtype", "GuidanceScale", "Height", "Kind", "NegativePrompt", "Offload", "PictureReward",
    "PipelineName", "RewardDevice", "Shard", "Width", "refuse_given",
]  # fmt: skip

PIPELINES_OWN = "the pipeline's"

PipelineName = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        metavar="FOLDER|ID",
        help="A text-to-image pipeline of diffusers: a folder, or a hub id.",
        show_default=False,
    ),
]
PictureReward = Annotated[
    str,
    typer.Option(
        help="clip, pick, hps, image-reward, aesthetic, composite, each with :FOLDER or :ID if wished, judge:MODEL@URL, "
        "brightness, contrast, symmetry, sparsity, jpeg-size, mean-colour:red, or module.path:attribute or "
        "file.py:attribute, any callable reward(images) or reward(images, prompts) -> (N,); factors and sums too: "
        "clip+0.5*aesthetic."
    ),
]
NegativePrompt = Annotated[str | None, typer.Option(help="What not to show.", show_default="none")]
GuidanceScale = Annotated[
    float | None, typer.Option(help="Classifier-free, or told to the network.", show_default=PIPELINES_OWN)
]
Height = Annotated[int | None, typer.Option(help="Of the pictures, in pixels.", show_default=PIPELINES_OWN)]
Width = Annotated[int | None, typer.Option(help="Of the pictures, in pixels.", show_default=PIPELINES_OWN)]
Kind = Annotated[
    str | None,
    typer.Option(
        help="flow, few-step (Turbo, latent consistency) or flow-map.", show_default="by the pipeline's class"
    ),
]
DecodeChunk = Annotated[int | None, typer.Option(help="Latents per decoder call.", show_default="all at once")]
Dtype = Annotated[
    str | None, typer.Option(help="The pipeline's numbers: bf16, fp16 or fp32.", show_default="bf16 on cuda, else fp32")
]
Offload = Annotated[bool, typer.Option("--offload", help="Keep the pipeline's parts on the CPU while they rest.")]
RewardDevice = Annotated[str | None, typer.Option(help="Where reward networks run.", show_default="as --device")]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Make the share I (from 0) of N of all pictures, like 0/4; processes of accelerate or torchrun share "
        "by themselves.",
        show_default="all",
    ),
]
AllParticles = Annotated[
    bool,
    typer.Option("--all-particles", help="Save every particle beside the best, in a folder of the picture's name."),
]


def refuse_given(context: typer.Context, names: tuple[str, ...], owner: str) -> None:
    """Refuses options that the user gave and that belong to `owner`, another way to call the command.

    Raises:
        ValueError: there is one.
    """
    for name in names:
        source: Any = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"{name}: it belongs to {owner}, expected none without it; leave it out")
