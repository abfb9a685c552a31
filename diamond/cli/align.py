"""`diamond align`: samples of a model, aligned with a reward."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .models import classes_of, data_name, device_named, load_model
from .options import DataName, Device, ModelFile, Quiet, Root, Seed
from .outputs import check_folder

if TYPE_CHECKING:
    import torch

    from align import Alignment
    from diamond.data import Data
    from diamond.model import Model

__all__ = ["METHODS", "align"]

MODELS = ("DiamondMap", "WeightedDiamondMap", "GlassFlow", "FlowMap", "GaussianMixtureFlow", "Flow")
METHODS = {  # the settings that each takes
    "best-of-n": ("particles", "steps", "rho"),
    "search": ("particles", "branch", "steps", "mc", "rho", "keep", "antithetic"),
    "smc": ("particles", "steps", "mc", "rho", "antithetic", "proposal", "proposal_strength", "tempering", "potential",
            "resampling", "ess_threshold"),
    "guide": ("particles", "steps", "mc", "estimator", "antithetic", "scale", "strength", "eta", "correct"),
    "base": ("particles", "steps", "rho"),
}  # fmt: skip
USUAL = "the method's"


def align(
    model: ModelFile,
    reward: Annotated[
        str,
        typer.Option(
            help="brightness, contrast, symmetry, sparsity, jpeg-size, mean-colour:red, class:3, margin:3, or "
            "module.path:attribute, any callable reward(z) -> (N,); factors and sums too: 2.0*brightness+symmetry."
        ),
    ],
    method: Annotated[str, typer.Option(help="best-of-n, search, smc, guide, or base (no alignment).")] = "smc",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    particles: Annotated[int | None, typer.Option(help="Samples per population.", show_default=USUAL)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps from noise to data.", show_default=USUAL)] = None,
    mc: Annotated[int | None, typer.Option(help="Posterior draws per value or gradient.", show_default=USUAL)] = None,
    branch: Annotated[int | None, typer.Option(help="Candidates per particle in search.", show_default=USUAL)] = None,
    rho: Annotated[float | None, typer.Option(help="Correlation of transitions.", show_default="DDPM's")] = None,
    antithetic: Annotated[bool, typer.Option("--antithetic", help="Posterior draws of opposite noise.")] = False,
    proposal: Annotated[
        str | None,
        typer.Option(help="How smc's particles move: lookahead, reparam, score, plugin.", show_default="transitions"),
    ] = None,
    proposal_strength: Annotated[
        float | None, typer.Option(help="Factor of a proposal's gradient.", show_default="1")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Of search: all candidates' best, or each particle's.", show_default="all")
    ] = None,
    tempering: Annotated[
        float | None, typer.Option(help="Share of effective particles that smc tempers by.", show_default="none")
    ] = None,
    potential: Annotated[
        str | None, typer.Option(help="Of smc on the way: diff, max or sum.", show_default="diff")
    ] = None,
    resampling: Annotated[
        str | None, typer.Option(help="Systematic, stratified, residual, multinomial.", show_default="systematic")
    ] = None,
    ess_threshold: Annotated[
        float | None, typer.Option(help="Share of effective particles that smc resamples below.", show_default="0.5")
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(help="Of guide's gradient: reparam, score (black-box) or plugin.", show_default="reparam"),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Factor of guide's gradient.", show_default="1")] = None,
    strength: Annotated[
        str | None, typer.Option(help="Of guide: exact, constant or drift.", show_default="exact")
    ] = None,
    eta: Annotated[float | None, typer.Option(help="Share of DDPM's noise in guide's steps.", show_default="0")] = None,
    correct: Annotated[bool, typer.Option("--correct", help="Weigh guided samples; needs eta above 0.")] = False,
    glass_steps: Annotated[
        int | None, typer.Option(help="Inner steps of a plain flow's GLASS view.", show_default="16")
    ] = None,
    batch: Annotated[int, typer.Option(help="Independent populations.")] = 1,
    chunk: Annotated[int | None, typer.Option(help="Samples per network call.", show_default="all at once")] = None,
    label: Annotated[
        int | None, typer.Option(help="Class of a conditional model.", show_default="each in turn, by population")
    ] = None,
    data: DataName = None,
    root: Root = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Align a model's samples with a reward: pictures, tensors and figures in one folder."""
    from diamond.validation import check_choice, check_positive

    from .alignment_report import write_report
    from .rewards import parse_terms, reward_named

    check_folder(out)
    check_choice("method", method, METHODS)
    check_positive("batch", batch)
    parse_terms(reward)
    given = {
        "particles": particles, "branch": branch, "steps": steps, "mc": mc, "rho": rho, "keep": keep,
        "antithetic": antithetic or None, "proposal": proposal, "proposal_strength": proposal_strength,
        "tempering": tempering, "potential": potential, "resampling": resampling, "ess_threshold": ess_threshold,
        "estimator": estimator, "scale": scale, "strength": strength, "eta": eta, "correct": correct or None,
    }  # fmt: skip
    settings = _settings_of(method, given)
    sampler = as_sampler(load_model(model, "model", MODELS, device_named(device)), glass_steps)
    cond = _labels(sampler, label, batch)
    scorer = reward_named(reward, lambda: _data_of(sampler, data, root))
    if hasattr(scorer, "to"):
        scorer = scorer.to(sampler.device)
    result = run_method(
        method, sampler, scorer, **settings, batch=batch, cond=cond, generator=generators(seed, batch), chunk=chunk,
        progress=not quiet,
    )  # fmt: skip
    notes = {"model": str(model), "reward": reward, "seed": seed, "batch": batch}
    write_report(result, out, notes if cond is None else notes | {"labels": cond.tolist()})


def run_method(name: str, model: Model, reward: Any, particles: int | None = None, **settings: Any) -> Alignment:
    """The result of the method called `name`; "base" is the model's own samples, each of the same weight.

    Raises:
        ValueError: as the method itself.
    """
    import dataclasses

    import torch

    import align as methods

    sizes = {} if particles is None else {"n" if name in ("best-of-n", "base") else "particles": particles}
    runs: dict[str, Any] = {"search": methods.search, "smc": methods.smc, "guide": methods.guide}
    run = runs.get(name, methods.best_of_n)
    result = run(model, reward, **sizes, **settings)
    if name != "base":
        return result
    even = torch.zeros_like(result.log_weights)
    plain = {"log_weights": even, "ess": methods.resampling.ess(even)[None], "log_z": None}
    return dataclasses.replace(result, **plain, method="base", law="p(z), the model's own")


def as_sampler(model: Model, glass_steps: int | None = None) -> Model:
    """`model`, or the GLASS view of it if it is a plain flow.

    Raises:
        ValueError: `glass_steps` for a model that has no GLASS view here.
    """
    from diamond.flow import Flow
    from diamond.glass import GlassFlow
    from diamond.validation import check_positive

    if glass_steps is not None:
        check_positive("glass_steps", glass_steps)
    if isinstance(model, (Flow, GlassFlow)):
        if isinstance(model, GlassFlow) and glass_steps is None:
            return model
        return GlassFlow(getattr(model, "flow", model), 16 if glass_steps is None else glass_steps)
    if glass_steps is not None:
        raise ValueError(f"glass_steps: got {glass_steps} for a {type(model).__name__}, which takes none: leave it out")
    return model


def generators(seed: int, batch: int) -> list[torch.Generator]:
    """One generator a population: what a population draws does not depend on how many there are."""
    import torch

    source = torch.Generator().manual_seed(seed)
    # drawn one by one: the first are the same however many follow
    seeds = [int(torch.randint(2**62, (), generator=source)) for _ in range(batch)]
    return [torch.Generator().manual_seed(own) for own in seeds]


def _settings_of(method: str, given: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in given.items() if value is not None}
    for name in settings:
        if name not in METHODS[method]:
            raise ValueError(f"{name}: {method} has no such setting, expected only {', '.join(METHODS[method])}")
    return settings


def _data_of(model: Model, data: str | None, root: Path | None) -> Data:
    """The data that a classifier is to be trained on."""
    from diamond.data import load_data

    part = load_data(data_name(data, model, "the classifier"), root=root, size=model.metadata.get("size"))
    if tuple(part.images.shape[1:]) != model.event_shape:
        raise ValueError(
            f"data: {part.name} has images of shape {tuple(part.images.shape[1:])}, expected the model's, "
            f"{model.event_shape}"
        )
    return part


def _labels(model: Model, label: int | None, batch: int) -> torch.Tensor | None:
    """The class of each population, `(batch,)`."""
    import torch

    classes = classes_of(model)
    if label is not None and not 0 <= label < classes:
        expected = f"a class from 0 to {classes - 1}" if classes else "none: this model takes no labels"
        raise ValueError(f"label: got {label}, expected {expected}")
    if not classes:
        return None
    labels = torch.arange(batch) % classes if label is None else torch.full((batch,), label)
    return labels.to(model.device)
