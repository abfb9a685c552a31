"""`diamond align`: samples of a model, or pictures of a text-to-image pipeline, aligned with a reward."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from .method_options import Chunk, Method
from .options import DataName, Device, Quiet, Root, Seed, model_file
from .pipeline_options import PipelineName, refuse_given
from .shared_options import of_methods, of_pipelines, takes

__all__ = ["align"]

OF_MODELS = ("batch", "label", "data", "root", "seed")
OF_PIPELINES = ("prompt", "prompt_file", "seeds", *signature(of_pipelines).parameters)


@takes(of_methods, before="batch")
@takes(of_pipelines, before="device")
def align(
    context: typer.Context,
    reward: Annotated[
        str,
        typer.Option(
            help="brightness, contrast, symmetry, sparsity, jpeg-size, mean-colour:red, class:3, margin:3, or "
            "module.path:attribute or file.py:attribute, any callable reward(z) -> (N,); factors and sums too: "
            "2.0*brightness+symmetry, -1*brightness. Of a pipeline's pictures also clip, pick, hps, image-reward, "
            "aesthetic, composite, each with :FOLDER or :ID if wished, judge:MODEL@URL, and callables "
            "reward(images, prompts), but no class or margin."
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            parser=model_file,
            metavar="FILE",
            help="File of a model, or the name of one that ships, like digits. This or --pipeline.",
            show_default=False,
        ),
    ] = None,
    pipeline: PipelineName = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What a pipeline is to show; may be given again.", show_default=False)
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="Text file of prompts, one a line; # begins a comment.", show_default=False)
    ] = None,
    seeds: Annotated[str, typer.Option(help="A pipeline's picture for each: 7, 0..3 or 0,2,5..7.")] = "0",
    method: Method = "smc",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    batch: Annotated[int, typer.Option(help="A model's independent populations.")] = 1,
    chunk: Chunk = None,
    label: Annotated[
        int | None, typer.Option(help="Class of a conditional model.", show_default="each in turn, by population")
    ] = None,
    data: DataName = None,
    root: Root = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    **_: Any,
) -> None:
    """Align a model's samples, or a pipeline's pictures, with a reward.

    A model leaves pictures, tensors and figures in one folder.

    A pipeline leaves a picture for each prompt and seed, the best of its population, with its figures beside it.
    The same command goes on where it was stopped, and a summary is written when all are finished.
    """
    if (model is None) == (pipeline is None):
        came = "neither --model nor --pipeline" if model is None else "both --model and --pipeline"
        raise ValueError(f"model: got {came}, expected one of them")
    if model is not None:
        refuse_given(context, OF_PIPELINES, "--pipeline")
        from .align_model import align_model

        align_model(context.params)
        return
    refuse_given(context, OF_MODELS, "--model")
    from .generation import generate
    from .layouts import plain_layout
    from .prompts import parse_seeds, prompts_from

    wanted = plain_layout(out, prompts_from(prompt or [], prompt_file), parse_seeds(seeds))
    generate(context.params, wanted)
