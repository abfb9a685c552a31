"""`diamond.from_pipeline`: which family a pipeline is of, and how it is read."""

from __future__ import annotations

import re

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ...randomness import seeded
from ...validation import check_choice, check_positive
from .flux import FluxMapNetwork, FluxNetwork
from .models import PipelineFlow, PipelineMap
from .network import LatentNetwork
from .sana import SanaNetwork, SanaSprintNetwork
from .stable_diffusion import StableDiffusionNetwork, StableDiffusionXLNetwork
from .stable_diffusion_3 import StableDiffusion3Network

__all__ = ["FAMILIES", "KINDS", "from_pipeline", "load_pipeline"]

FAMILIES: dict[str, type[LatentNetwork]] = {
    "FluxPipeline": FluxNetwork,
    "SanaPipeline": SanaNetwork,
    "SanaSprintPipeline": SanaSprintNetwork,
    "StableDiffusion3Pipeline": StableDiffusion3Network,
    "StableDiffusionPipeline": StableDiffusionNetwork,
    "StableDiffusionXLPipeline": StableDiffusionXLNetwork,
}
KINDS = ("flow", "few-step", "flow-map")


def from_pipeline(
    pipe: Any,
    prompt: str | Sequence[str] = "",
    *,
    negative_prompt: str | Sequence[str] | None = None,
    guidance_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    kind: str | None = None,
    glass_steps: int | None = None,
    snr: float | None = None,
    proposals: int | None = None,
    chunk: int | None = None,
    decode_chunk: int | None = None,
    checkpoint: bool = True,
    network: type[LatentNetwork] | None = None,
    **encoding: Any,
) -> PipelineFlow | PipelineMap:
    """A text-to-image pipeline of diffusers as a model on its latents, for every algorithm of `align`.

    Arguments:
        pipe: a `FluxPipeline`, `StableDiffusion3Pipeline`, `SanaPipeline`, `SanaSprintPipeline`,
            `StableDiffusionXLPipeline` or `StableDiffusionPipeline`, where it shall run and in its type, with its adapters
            and offloading; or a folder or hub id of one. Its weights are frozen.
        prompt: one, or several; of several each population takes one by `cond=model.cond`.
        negative_prompt: one for all, or as many, where there is classifier-free guidance.
        guidance_scale: the pipeline's usual one by default; 0 for the Turbo models.
        height, width: of the images in pixels, the pipeline's usual ones by default.
        kind: "flow"; "few-step", a model distilled to jump to the data (Sana-Sprint, Turbo, latent consistency models);
            or "flow-map", a Flux transformer of two times. By default what the pipeline's class says.
        glass_steps: of a "flow" only: evaluations of a posterior draw or transition, 4 by default.
        snr, proposals: of the others only: see :class:`~diamond.WeightedDiamondMap`, 3 and 4 by default.
        chunk, decode_chunk: states in one call of the network, latents in one of the decoder; all at once by default.
        checkpoint: whether gradients recompute each such call, so that memory does not grow with their number.
        network: the adapter of another class of pipelines, a subclass of `LatentNetwork`.
        encoding: further arguments of the pipeline's `encode_prompt`, such as `max_sequence_length`, or `prompt_2`, what a
            second text encoder is told instead: one for all, or as many as prompts.

    Raises:
        ValueError: a pipeline of another class, or arguments that do not fit it.
        FileNotFoundError: there is no such folder or id, or it may not be read.
        ImportError: a package of the extra `diffusers` is missing.
    """
    if isinstance(pipe, (str, Path)):
        pipe = load_pipeline(pipe)
    name = type(pipe).__name__
    if network is None and name not in FAMILIES:
        raise ValueError(
            f"pipe: got a {name}, expected one of {', '.join(FAMILIES)}; for another give network=, a subclass of "
            "diamond.adapters.pipelines.LatentNetwork that says how its prompts are embedded and its network is asked"
        )
    kind = check_choice("kind", kind or ("few-step" if name == "SanaSprintPipeline" else "flow"), KINDS)
    _check_options(kind, glass_steps=glass_steps, snr=snr, proposals=proposals)
    family = network or FAMILIES[name]
    if kind == "flow-map" and network is None:
        if family is not FluxNetwork:
            raise ValueError(
                f"kind: got 'flow-map' for a {name}, expected 'flow' or 'few-step': only Flux has two times"
            )
        family = FluxMapNetwork
    asked = family(
        pipe, _listed("prompt", prompt), None if negative_prompt is None else _listed("negative_prompt", negative_prompt),
        guidance_scale, height, width, chunk=chunk, checkpoint=checkpoint, **encoding,
    )  # fmt: skip
    if kind == "flow":
        return PipelineFlow(
            asked, 4 if glass_steps is None else check_positive("glass_steps", glass_steps), decode_chunk
        )
    return PipelineMap(asked, 3.0 if snr is None else snr, 4 if proposals is None else proposals, decode_chunk)


def load_pipeline(source: str | Path, **options: Any) -> Any:
    """The pipeline in a folder, or of a hub id; its weights as safetensors. `options` are those of diffusers'
    `from_pretrained`.

    Raises:
        FileNotFoundError: there is none, or it may not be read.
        ImportError: a package of the extra `diffusers` is missing.
    """
    try:
        import transformers  # noqa: F401

        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise ImportError("pipelines need the extra: pip install 'diamond-maps[diffusers]'") from error
    try:
        with seeded(0):  # of weights that are drawn only to be read
            return DiffusionPipeline.from_pretrained(source, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        first = _first_sentence(str(error)) or type(error).__name__
        raise FileNotFoundError(
            f"{source}: it cannot be read as a pipeline, expected a folder that diffusers saved to, or the hub id of one "
            f"that you may read (`hf auth login` for gated ones): {first}"
        ) from error


def _first_sentence(text: str) -> str:
    """What a message says first, without what it has in brackets."""
    return re.split(r"(?<=[.!?])\s|\n|\s\(", text.strip(), maxsplit=1)[0].rstrip(".")


def _check_options(kind: str, **given: Any) -> None:
    """Refuses what the other kinds of models take."""
    others = ("snr", "proposals") if kind == "flow" else ("glass_steps",)
    for name in others:
        if given[name] is not None:
            expected = "'few-step' or 'flow-map'" if kind == "flow" else "'flow'"
            raise ValueError(f"{name}: got {given[name]!r} for kind={kind!r}, expected it for {expected} only")


def _listed(name: str, text: str | Sequence[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Sequence) else []
    if not texts or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"{name}: got {text!r}, expected a string, or several")
    return texts
