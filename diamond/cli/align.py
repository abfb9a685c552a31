"""`diamond align`: samples of a model, or pictures of a text-to-image pipeline, aligned with a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .method_options import (
    Antithetic,
    Branch,
    Chunk,
    Correct,
    EssThreshold,
    Estimator,
    Eta,
    GlassSteps,
    Keep,
    Mc,
    Method,
    Particles,
    Potential,
    Proposal,
    ProposalStrength,
    Resampling,
    Rho,
    Scale,
    Steps,
    Strength,
    TemperingShare,
)
from .options import DataName, Device, Quiet, Root, Seed, model_file
from .pipeline_options import (
    AllParticles,
    DecodeChunk,
    Dtype,
    GuidanceScale,
    Height,
    Kind,
    NegativePrompt,
    Offload,
    PipelineName,
    RewardDevice,
    Shard,
    Width,
    refuse_given,
)

__all__ = ["align"]

OF_MODELS = ("batch", "label", "data", "root", "seed")
OF_PIPELINES = (
    "prompt", "prompt_file", "seeds", "negative_prompt", "guidance_scale", "height", "width", "kind", "decode_chunk",
    "dtype", "offload", "reward_device", "shard", "all_particles",
)  # fmt: skip


def align(
    context: typer.Context,
    reward: Annotated[
        str,
        typer.Option(
            help="brightness, contrast, symmetry, sparsity, jpeg-size, mean-colour:red, class:3, margin:3, or "
            "module.path:attribute, any callable reward(z) -> (N,); factors and sums too: 2.0*brightness+symmetry. Of a "
            "pipeline's pictures also clip, pick, hps, image-reward, aesthetic, composite, each with :FOLDER or :ID if "
            "wished, judge:MODEL@URL, and callables reward(images, prompts), but no class or margin."
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
    particles: Particles = None,
    steps: Steps = None,
    mc: Mc = None,
    branch: Branch = None,
    rho: Rho = None,
    antithetic: Antithetic = False,
    proposal: Proposal = None,
    proposal_strength: ProposalStrength = None,
    keep: Keep = None,
    tempering: TemperingShare = None,
    potential: Potential = None,
    resampling: Resampling = None,
    ess_threshold: EssThreshold = None,
    estimator: Estimator = None,
    scale: Scale = None,
    strength: Strength = None,
    eta: Eta = None,
    correct: Correct = False,
    glass_steps: GlassSteps = None,
    batch: Annotated[int, typer.Option(help="A model's independent populations.")] = 1,
    chunk: Chunk = None,
    label: Annotated[
        int | None, typer.Option(help="Class of a conditional model.", show_default="each in turn, by population")
    ] = None,
    data: DataName = None,
    root: Root = None,
    seed: Seed = 0,
    negative_prompt: NegativePrompt = None,
    guidance_scale: GuidanceScale = None,
    height: Height = None,
    width: Width = None,
    kind: Kind = None,
    decode_chunk: DecodeChunk = None,
    dtype: Dtype = None,
    offload: Offload = False,
    reward_device: RewardDevice = None,
    shard: Shard = None,
    all_particles: AllParticles = False,
    device: Device = None,
    quiet: Quiet = False,
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
