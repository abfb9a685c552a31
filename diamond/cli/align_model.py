"""A model of ours, aligned with a reward: what `diamond align --model` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .method_options import settings_of
from .models import classes_of, data_name, device_named, load_model
from .outputs import check_folder

if TYPE_CHECKING:
    import torch

    from align import Alignment
    from diamond.data import Data
    from diamond.model import Model

__all__ = ["align_model", "as_sampler", "generators", "run_method"]

MODELS = ("DiamondMap", "WeightedDiamondMap", "GlassFlow", "FlowMap", "GaussianMixtureFlow", "Flow")


def align_model(options: dict[str, Any]) -> None:
    """Aligns a model's samples as the options of the command say, and writes what came of it.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: options that do not fit.
    """
    from diamond.validation import check_positive

    from .alignment_report import write_report
    from .rewards import parse_terms, reward_named

    check_folder(options["out"])
    settings = settings_of(options["method"], options)
    batch = check_positive("batch", options["batch"])
    parse_terms(options["reward"])
    model = load_model(options["model"], "model", MODELS, device_named(options["device"]))
    sampler = as_sampler(model, options["glass_steps"])
    cond = _labels(sampler, options["label"], batch)
    scorer = reward_named(options["reward"], lambda: _data_of(sampler, options["data"], options["root"]))
    if hasattr(scorer, "to"):
        scorer = scorer.to(sampler.device)
    result = run_method(
        options["method"], sampler, scorer, **settings, batch=batch, cond=cond,
        generator=generators(options["seed"], batch), chunk=options["chunk"], progress=not options["quiet"],
    )  # fmt: skip
    notes = {"model": str(options["model"]), "reward": options["reward"], "seed": options["seed"], "batch": batch}
    write_report(result, options["out"], notes if cond is None else notes | {"labels": cond.tolist()})


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
    plain = {"log_weights": even, "ess": methods.resampling.ess(even).expand(len(result.ess), -1), "log_z": None}
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
        if glass_steps is None:
            return model if isinstance(model, GlassFlow) else GlassFlow(model)
        if isinstance(model, GlassFlow):
            return GlassFlow(model.flow, glass_steps, model.solver, model.grid)
        return GlassFlow(model, glass_steps)
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
