"""The `diamond` command: from data to a flow model, to a Diamond Map, to samples aligned with a reward.

One file holds one command. This package alone knows all three of `diamond`, `distill` and `align`, and it imports what
is heavy only when a command runs, so that help is there at once.
"""

from __future__ import annotations

import warnings

from pathlib import Path
from typing import Annotated

import typer

from .align import align as align_command
from .bench import bench as bench_command
from .distill import distill as distill_command
from .errors import Door
from .evaluate import evaluate as evaluate_command
from .info import info as info_command
from .options import Seed
from .train import train as train_command

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Door,
    name="diamond",
    help="Diamond Maps: make a flow model adaptable to any reward at inference time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train_command)
app.command("distill")(distill_command)
app.command("align")(align_command)
app.command("bench")(bench_command)
app.command("eval")(evaluate_command)
app.command("info")(info_command)


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the models, the pictures and the report.")] = Path("demo"),
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer training steps: rough, but soon done.")] = False,
) -> None:
    """All of it on real handwritten digits, with a report to look at."""
    from .demo import run

    run(Path(out), seed=seed, quick=quick)


def _show_version(wanted: bool) -> None:
    if wanted:
        from diamond import __version__

        typer.echo(f"diamond-maps {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the code an error came from.")] = False,
) -> None:
    """`traceback` is read by :class:`diamond.cli.errors.Door`."""


def main() -> None:
    """Runs the command line of this process. Exit codes: 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C."""
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=FutureWarning)
    app()
