"""The methods of alignment and their settings, as options of `diamond align` and `diamond bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

__all__ = [
    "METHODS", "SETTINGS", "Antithetic", "Branch", "Chunk", "Correct", "EssThreshold", "Estimator", "Eta", "GlassSteps",
    "Keep", "Mc", "Method", "Particles", "Potential", "Proposal", "ProposalStrength", "Resampling", "Rho", "Scale",
    "Steps", "Strength", "TemperingShare", "settings_of",
]  # fmt: skip

METHODS: dict[str, tuple[str, ...]] = {  # the settings that each takes
    "best-of-n": ("particles", "steps", "rho"),
    "search": ("particles", "branch", "steps", "mc", "rho", "keep", "antithetic"),
    "smc": ("particles", "steps", "mc", "rho", "antithetic", "proposal", "proposal_strength", "tempering", "potential",
            "resampling", "ess_threshold"),
    "guide": ("particles", "steps", "mc", "estimator", "antithetic", "scale", "strength", "eta", "correct"),
    "base": ("particles", "steps", "rho"),
}  # fmt: skip
SETTINGS = tuple(dict.fromkeys(name for names in METHODS.values() for name in names))
USUAL = "the method's"

Method = Annotated[str, typer.Option(help="best-of-n, search, smc, guide, or base (no alignment).")]
Particles = Annotated[
    int | None, typer.Option(help="Samples per population.", show_default="the method's; 4 of a pipeline")
]
Steps = Annotated[int | None, typer.Option(help="Steps from noise to data.", show_default=USUAL)]
Mc = Annotated[int | None, typer.Option(help="Posterior draws per value or gradient.", show_default=USUAL)]
Branch = Annotated[int | None, typer.Option(help="Candidates per particle in search.", show_default=USUAL)]
Rho = Annotated[float | None, typer.Option(help="Correlation of transitions.", show_default="DDPM's")]
Antithetic = Annotated[bool, typer.Option("--antithetic", help="Posterior draws of opposite noise.")]
Proposal = Annotated[
    str | None,
    typer.Option(help="How smc's particles move: lookahead, reparam, score, plugin.", show_default="transitions"),
]
ProposalStrength = Annotated[float | None, typer.Option(help="Factor of a proposal's gradient.", show_default="1")]
Keep = Annotated[
    str | None, typer.Option(help="Of search: all candidates' best, or each particle's.", show_default="all")
]
TemperingShare = Annotated[
    float | None, typer.Option(help="Share of effective particles that smc tempers by.", show_default="none")
]
Potential = Annotated[str | None, typer.Option(help="Of smc on the way: diff, max or sum.", show_default="diff")]
Resampling = Annotated[
    str | None, typer.Option(help="Systematic, stratified, residual, multinomial.", show_default="systematic")
]
EssThreshold = Annotated[
    float | None, typer.Option(help="Share of effective particles that smc resamples below.", show_default="0.5")
]
Estimator = Annotated[
    str | None, typer.Option(help="Of guide's gradient: reparam, score (black-box) or plugin.", show_default="reparam")
]
Scale = Annotated[float | None, typer.Option(help="Factor of guide's gradient.", show_default="1")]
Strength = Annotated[str | None, typer.Option(help="Of guide: exact, constant or drift.", show_default="exact")]
Eta = Annotated[float | None, typer.Option(help="Share of DDPM's noise in guide's steps.", show_default="0")]
Correct = Annotated[bool, typer.Option("--correct", help="Weigh guided samples; needs eta above 0.")]
GlassSteps = Annotated[
    int | None, typer.Option(help="Inner steps of a flow's GLASS view.", show_default="16; 4 of a pipeline")
]
Chunk = Annotated[int | None, typer.Option(help="Samples per network call.", show_default="all at once")]


def settings_of(
    method: str, options: Mapping[str, Any], methods: Mapping[str, Sequence[str]] = METHODS
) -> dict[str, Any]:
    """The settings of the method among a command's options; flags and numbers that were not given are left out.

    Raises:
        ValueError: an unknown method, or a setting that it has not.
    """
    from diamond.validation import check_choice

    own = methods[check_choice("method", method, methods)]
    settings = {name: options[name] for name in SETTINGS if options[name] is not None and options[name] is not False}
    for name in settings:
        if name not in own:
            raise ValueError(f"{name}: {method} has no such setting, expected only {', '.join(own)}")
    return settings
