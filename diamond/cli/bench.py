"""`diamond bench`: the pictures of a benchmark, in the layout that its evaluators read (:mod:`diamond.cli.layouts`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .method_options import Chunk, Method
from .options import Device, Quiet, Seed
from .pipeline_options import PictureReward
from .shared_options import of_methods, of_pipelines, takes

__all__ = ["BENCHMARKS", "bench"]

BENCHMARKS = ("geneval", "drawbench", "partiprompts")
ENDINGS = ("png", "jpg")


@takes(of_methods, before="chunk")
@takes(of_pipelines, before="device")
def bench(
    context: typer.Context,
    benchmark: Annotated[str, typer.Argument(help="geneval, drawbench or partiprompts.", show_default=False)],
    prompts: Annotated[
        Path,
        typer.Option(
            help="The benchmark's own file: evaluation_metadata.jsonl of GenEval; a .csv or .tsv with a column Prompt, or "
            "a text file of one a line, of the others.",
            show_default=False,
        ),
    ],
    pipeline: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|ID",
            help="A text-to-image pipeline of diffusers: a folder, or a hub id.",
            show_default=False,
        ),
    ],
    reward: PictureReward,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures.", show_default="the benchmark's name")
    ] = None,
    samples: Annotated[int, typer.Option(help="Pictures per prompt.")] = 4,
    limit: Annotated[int | None, typer.Option(help="Only so many prompts, the first ones.", show_default="all")] = None,
    picture_format: Annotated[
        str, typer.Option("--format", help="png or jpg; GenEval reads png, HPSv2's evaluation of DrawBench jpg.")
    ] = "png",
    method: Method = "smc",
    chunk: Chunk = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    **_: Any,
) -> None:
    """Make the pictures of a benchmark in the layout that its evaluators read; the same command goes on where it stopped.

    geneval: OUT/00000/metadata.jsonl and OUT/00000/samples/0000.png, as its evaluate_images.py reads them.

    drawbench, partiprompts: OUT/images/0/00000.png, for each sample a flat folder of pictures by number of the prompt.
    OUT/drawbench.json or OUT/partiprompts.json holds the prompts in order.

    The figures of a picture stand beside it as JSON. Sample k of every prompt has the seed --seed + k.
    """
    from diamond.validation import check_choice, check_positive

    from .benchmark_prompts import read_geneval, read_table
    from .generation import generate
    from .layouts import flat_layout, geneval_layout

    check_choice("benchmark", benchmark, BENCHMARKS)
    check_choice("format", picture_format, ENDINGS)
    check_positive("samples", samples)
    if limit is not None:
        check_positive("limit", limit)
    out = Path(benchmark) if out is None else out
    seeds = range(seed, seed + samples)
    if benchmark == "geneval":
        if picture_format != "png":
            raise ValueError(f"format: got {picture_format!r}, expected 'png': GenEval's evaluation reads no other")
        layout = geneval_layout(out, read_geneval(prompts)[:limit], seeds)
    else:
        layout = flat_layout(out, benchmark, read_table(prompts)[:limit], seeds, picture_format)
    generate(context.params, layout)
