"""How pictures are made with a pipeline of diffusers: what decides them, and what decides only time and memory."""

from __future__ import annotations

import os

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .method_options import METHODS, settings_of
from .models import device_named

__all__ = ["DTYPES", "Place", "Recipe", "recipe_from"]

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
OF_PIPELINES = {**METHODS, "best-of-n": ("particles", "steps"), "base": ("steps",)}
PARTICLES = 4
GIVEN = ("method", "kind", "height", "width", "guidance_scale", "negative_prompt", "glass_steps")


@dataclass(frozen=True)
class Recipe:
    """All that decides a picture beside its prompt and its seed; plain values, as JSON has them. None leaves it to the
    pipeline."""

    pipeline: str
    reward: str
    method: str
    settings: dict[str, Any]
    kind: str | None
    height: int | None
    width: int | None
    guidance_scale: float | None
    negative_prompt: str | None
    glass_steps: int | None
    dtype: str

    def described(self) -> dict[str, Any]:
        """All of it by name."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Where and in which portions it is made, which decides nothing but time and memory."""

    device: Any
    reward_device: Any
    offload: bool
    chunk: int | None
    decode_chunk: int | None


def recipe_from(options: dict[str, Any]) -> tuple[Recipe, Place]:
    """What the options of a command say.

    Raises:
        FileNotFoundError: the pipeline is neither a folder of one nor named like one of the hub's.
        ValueError: options that do not fit.
    """
    from diamond.adapters.pipelines.loading import KINDS
    from diamond.validation import check_choice, check_positive

    from .picture_rewards import check_reward

    check_reward(options["reward"])
    for name in ("chunk", "decode_chunk", "height", "width", "glass_steps"):
        if options[name] is not None:
            check_positive(name, options[name])
    if options["kind"] is not None:
        check_choice("kind", options["kind"], KINDS)
    settings = settings_of(options["method"], options, OF_PIPELINES)
    if options["glass_steps"] is not None and options["method"] in ("base", "best-of-n"):
        raise ValueError(
            f"glass_steps: got {options['glass_steps']} for {options['method']}, which draws by the pipeline's own sampler and "
            "takes none: leave it out"
        )
    if "particles" in OF_PIPELINES[options["method"]]:
        settings = {"particles": PARTICLES} | settings
    for name in ("particles", "branch", "steps", "mc"):
        if name in settings:
            check_positive(name, settings[name])
    device = device_named(options["device"] or _own_device())
    if options["offload"] and device.type == "cpu":
        raise ValueError("offload: got it on the cpu, where there is nothing to move away from; leave it out")
    place = Place(
        device,
        _reward_device(options["reward_device"], device),
        options["offload"],
        options["chunk"],
        options["decode_chunk"],
    )
    recipe = Recipe(
        pipeline=_checked_pipeline(options["pipeline"]),
        reward=options["reward"].replace(" ", ""),
        settings=settings,
        dtype=check_choice("dtype", options["dtype"] or ("bf16" if device.type == "cuda" else "fp32"), DTYPES),
        **{name: options[name] for name in GIVEN},
    )
    return recipe, place


def _reward_device(name: str | None, otherwise: Any) -> Any:
    try:
        return otherwise if name is None else device_named(name)
    except ValueError as error:
        raise ValueError(f"reward_{error}") from error


def _own_device() -> str | None:
    """A graphics card for each of the processes on a machine, where there are any."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    return None if rank is None or not torch.cuda.is_available() else f"cuda:{rank}"


def _checked_pipeline(text: str) -> str:
    folder = Path(text).expanduser()
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"pipeline: {text} is a folder without a model_index.json, expected one that diffusers saved to"
        )
    if folder.is_file():
        raise ValueError(f"pipeline: {text} is a file, expected a folder that diffusers saved to, or the hub id of one")
    if folder.is_dir():
        return str(folder)
    if text.count("/") != 1 or text.startswith(("/", "~", ".")):
        raise FileNotFoundError(
            f"pipeline: there is no folder {text}, expected one that diffusers saved to, or a hub id like owner/name"
        )
    return text
