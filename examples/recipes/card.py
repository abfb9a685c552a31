"""The card of a model that ships: its data, recipe and figures, in Markdown beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from diamond.checkpoint import save

from .stages import Recipe

__all__ = ["card_of", "ship"]

COLUMNS = {"accuracy": "class right", "frechet": "Frechet", "precision": "precision", "recall": "recall"}
SEEN = (
    " The map was trained with features of another classifier of the same images beside their pixels, which favours it "
    "before a judge's features; the comparison of posteriors is one of pixels."
)
LARGEST = 16_000_000  # bytes


def ship(model: Any, name: str, recipe: Recipe, figures: dict[str, Any], folder: Path) -> Path:
    """Writes `NAME.safetensors`, its parameters in half precision, and the card `NAME.md`.

    Raises:
        ValueError: the file is too large to ship.
    """
    path = folder / f"{name}.safetensors"
    save(model, path, torch.float16)
    if path.stat().st_size > LARGEST:
        path.unlink()
        raise ValueError(
            f"width: got {recipe.width}, whose file is larger than {LARGEST} bytes, expected a smaller one"
        )
    path.with_suffix(".md").write_text(card_of(model, name, recipe, figures), encoding="utf-8")
    return path


def card_of(model: Any, name: str, recipe: Recipe, figures: dict[str, Any]) -> str:
    """The card."""
    kind, known = type(model).__name__, model.metadata
    what = {
        "DiamondMap": "A class-conditional Diamond Map: one call draws from `p(z | x_t)`, and from noise a sample.",
        "Flow": "A class-conditional flow model, the teacher of the map whose name is the same without `-teacher`.",
    }[kind]
    count = sum(parameter.numel() for parameter in model.parameters())
    training = {**recipe.shared, **(recipe.map if kind == "DiamondMap" else recipe.teacher)}
    trained = f"{_steps(known)}, {_told(training)}; {known['minutes']} minutes"
    seen = training
    if "before" in known:
        trained = _told_rounds(recipe, training, [*known["before"], known])
        seen = {**training, **recipe.refine[len(known["before"]) - 1]}
    lines = [
        f"# {name}", "", f"{what} `diamond.load({name!r})` reads it.", "",
        "## Data", "", f"`{recipe.data}`, images {'x'.join(map(str, model.event_shape))} in [-1, 1], the training split "
        f"without the held-out one. {recipe.source}", "",
        "## Recipe", "",
        f"`python -m examples.recipes.{recipe.data}`: {trained}, on {known['machine']}. Width {recipe.width}, {count:,} "
        "parameters, kept in single precision while trained and stored in half. Labels were left out at random, so that "
        "`cond=None` samples without a class.", "",
        "## Figures", "", *_figures(figures), "",
        "## Limits", "",
        "Small on purpose: an example to try alignment on. The figures judge class and quality, and do not tell memorised "
        f"images from new ones.{SEEN if 'perceptual' in seen else ''}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _told_rounds(recipe: Recipe, training: dict[str, Any], rounds: list[dict[str, Any]]) -> str:
    """The map's training, and each round that refined it by what it changed."""
    told, before = [], {}
    for known, more in zip(rounds, ({}, *recipe.refine), strict=False):
        settings = {**training, **more}
        changed = {key: value for key, value in settings.items() if before.get(key) != value}
        left_out = [f"no {key}" for key in before if key not in settings]
        told.append(", ".join([_steps(known), _told(changed), *left_out]) + f"; {known['minutes']} minutes")
        before = settings
    told[1] = f"by a network of {recipe.blocks} blocks that goes on from there, {told[1]}"
    return "; then, ".join(told)


def _steps(known: dict[str, Any]) -> str:
    planned = f" of {known['planned_steps']} planned" if "planned_steps" in known else ""
    return f"{known['steps']} steps{planned}, seed {known['seed']}"


def _told(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key != "compiled")


def _figures(figures: dict[str, Any]) -> list[str]:
    guided = (
        f" The teacher is guided at scale {figures['guidance']:g}, as the map knows it."
        if "guidance" in figures
        else ""
    )
    lines = [f"Of the weights as they are stored, on held-out data, seed 0.{guided}", ""]
    if "samples" in figures:
        lines += [
            f"Samples of the held-out classes; {figures['judge']}; Frechet distance in its features, to the held-out images:",
            "",
            f"| | {' | '.join(COLUMNS.values())} |",
            f"|---|{'---:|' * len(COLUMNS)}",
        ]
        for name, row in figures["samples"].items():
            cells = [f"{row[key]:.3f}" if key in row else "" for key in COLUMNS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    even, fitted = (
        ", ".join(f"{value:.1f} at t = {t}" for t, value in figures[name].items())
        for name in ("posterior", "posterior, fitted")
    )
    lines.append(
        f"One call of the map is worth so many steps of GLASS as published, by the energy distance to GLASS with 128: {even}. "
        f"Of steps fitted to the posterior's width: {fitted}."
    )
    return lines
