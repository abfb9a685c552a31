"""Pictures of many prompts and seeds, one after the other: kept as they are finished, gone on with, and shared."""

from __future__ import annotations

import os
import platform

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from diamond.progress import progress_bar

from .generation_report import report
from .jobs import Job, check_same_settings, claim, process_share, read_record, share_of
from .layouts import Layout
from .outputs import check_folder, drafted, write_json
from .recipe import Recipe, recipe_from

if TYPE_CHECKING:
    from PIL.Image import Image

    from align import Alignment

    from .studio import Studio

__all__ = ["generate"]

PACKAGES = ("diamond-maps", "torch", "diffusers", "transformers")
QUALITY = 95  # of a JPEG


def generate(options: dict[str, Any], layout: Layout) -> None:
    """Makes this process's share of the pictures of a layout, those that are not finished, as a command's options say.

    Raises:
        FileNotFoundError: a pipeline or a reward's network that cannot be had.
        ValueError: options that do not fit, or a folder of other pictures.
        KeyboardInterrupt: as it came, with a sentence on what is finished.
        typer.Exit: with code 1, a reward that could not be had.
    """
    out, share = check_folder(layout.out), process_share(options["shard"])
    recipe, place = recipe_from(options)
    settings = recipe.described() | {"all_particles": options["all_particles"]}
    check_same_settings(out, settings)
    mine = share_of(layout.jobs, share)
    missing = [job for job in mine if read_record(job) is None]
    if len(missing) < len(mine):
        typer.echo(f"found {len(mine) - len(missing)} of {len(mine)} pictures finished in {out}")
    if missing:
        from .studio import Studio

        studio = Studio(recipe, place, options["quiet"])
        with _stopping(out, mine):
            for job in _behind_a_bar(missing, options["quiet"]):
                result = studio.make(job.prompt, job.seed)
                if job is missing[0]:  # a run that makes no picture leaves nothing, and binds the folder to nothing
                    claim(out, settings)
                    _write_texts(layout.texts)
                _write(studio, job, result, options["all_particles"])
    report(layout, recipe.described(), share)


@contextmanager
def _stopping(out: Path, jobs: list[Job]) -> Iterator[None]:
    """Surrounds the making of pictures: says what is finished if it is stopped, or a reward cannot be had."""
    from align import RewardFailure

    def kept() -> str:
        finished = sum(read_record(job, look=False) is not None for job in jobs)
        return f"{finished} of {len(jobs)} pictures are finished in {out}, and the same command goes on from there"

    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {kept()}") from None
    except (RewardFailure, OSError) as failure:
        typer.echo(f"Error: {' '.join(str(failure).split())}; {kept()}", err=True)
        raise typer.Exit(1) from failure


def _write(studio: Studio, job: Job, result: Alignment, every: bool) -> None:
    """The best picture of a population and its record; with `every` its fellow particles too, the best first."""
    model = studio.model(job.prompt)
    order = result.rewards[0].argsort(descending=True)
    _save(model.images(result.samples[0, order[:1]])[0], job.image)
    figures = _figures(result, int(order[0]), studio.recipe, job) | {"device": str(studio.place.device)}
    if every:
        files = []
        for place, index in enumerate(order.tolist()):
            files.append(job.image.with_suffix("") / f"{place:03d}{job.image.suffix}")
            _save(model.images(result.samples[0, index : index + 1])[0], files[-1])
        figures["particles"] = [
            {
                "image": str(file.relative_to(job.image.parent)),
                "reward": float(result.rewards[0, index]),
                "log_weight": float(result.log_weights[0, index]),
            }
            for file, index in zip(files, order.tolist(), strict=True)
        ]
    write_json(job.record, figures)


def _figures(result: Alignment, best: int, recipe: Recipe, job: Job) -> dict[str, Any]:
    """What there is to say of the picture and of the population that it is the best of, ready for JSON."""
    return {
        "prompt": job.prompt,
        "seed": job.seed,
        "image": job.image.name,
        "reward": float(result.rewards[0, best]),
        "parts": {name: float(part[0, best]) for name, part in result.components.items()},
        "mean_reward": float(result.rewards.double().mean()),
        "method": recipe.method,
        "law": result.law,
        "settings": result.settings,
        "log_z": None if result.log_z is None else float(result.log_z[0]),
        "ess": [float(size) for size in result.ess[:, 0]],
        "nfe": result.nfe,
        "nfe_backward": result.nfe_backward,
        "reward_calls": result.reward_calls,
        "seconds": result.seconds,
        "notes": job.notes,
        "made_with": recipe.described(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    from diamond import __version__

    found = {"python": platform.python_version(), "diamond-maps": __version__}
    for package in PACKAGES[1:]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _save(image: Image, path: Path) -> None:
    """Writes a picture, whole or not at all."""
    with drafted(path) as draft:
        image.save(draft, "PNG" if path.suffix == ".png" else "JPEG", quality=QUALITY)


def _write_texts(texts: dict[Path, str]) -> None:
    """Writes the files that belong beside the pictures, those that are not there as they should be."""
    for path, text in texts.items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        with drafted(path) as draft:
            draft.write_text(text, encoding="utf-8")


def _behind_a_bar(jobs: list[Job], quiet: bool) -> Iterator[Job]:
    hidden = quiet or os.environ.get("RANK", "0") != "0"
    return iter(progress_bar(jobs, desc="pictures", unit="picture", disable=hidden))
