"""The options that `diamond align` and `diamond bench` share, each said once: functions that do nothing, whose signatures
the commands take over.
"""

from __future__ import annotations

import inspect

from collections.abc import Callable
from typing import TypeVar, get_type_hints

from .method_options import (
    Antithetic,
    Branch,
    Correct,
    EssThreshold,
    Estimator,
    Eta,
    GlassSteps,
    Keep,
    Mc,
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
from .pipeline_options import (
    AllParticles,
    DecodeChunk,
    Dtype,
    GuidanceScale,
    Height,
    Kind,
    NegativePrompt,
    Offload,
    RewardDevice,
    Shard,
    Width,
)

__all__ = ["of_methods", "of_pipelines", "takes"]

Command = TypeVar("Command", bound=Callable[..., None])


def takes(options: Callable[..., None], before: str) -> Callable[[Command], Command]:
    """Gives a command, which accepts any keyword, the options of another function, ahead of one of its own."""

    def extended(command: Command) -> Command:
        own, more = _parameters(command), _parameters(options)
        place = [parameter.name for parameter in own].index(before)
        signature = inspect.Signature([*own[:place], *more, *own[place:]])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return command

    return extended


def _parameters(function: Callable[..., None]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [
        parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]


def of_methods(
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
) -> None:
    """Settings of the methods of alignment."""


def of_pipelines(
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
) -> None:
    """What is said of pipelines alone."""
