"""What a run of many pictures leaves beside them: `summary.json`, and a table on the screen.

The process that finds all pictures of the list finished writes it, whichever shares they were in; where they are not, it is
said how many there are.
"""

from __future__ import annotations

from typing import Any

import typer

from .jobs import read_record
from .layouts import Layout
from .outputs import say_wrote, write_json

__all__ = ["report", "summary"]

COSTS = ("nfe", "nfe_backward", "reward_calls", "seconds")
SHOWN = 20  # prompts in the table


def report(layout: Layout, made_with: dict[str, Any], share: tuple[int, int]) -> None:
    """Says how far the run is, and sums it up where all of it is finished."""
    records = [read_record(job, look=False) for job in layout.jobs]
    finished = [record for record in records if record is not None]
    if len(finished) < len(records):
        mine = f"share {share[0]}/{share[1]} is finished"
        typer.echo(f"{mine}; {len(finished)} of all {len(records)} pictures stand in {layout.out}")
        return
    figures = summary(finished, made_with)
    write_json(layout.out / "summary.json", figures)
    _print_table(figures)
    say_wrote(layout.out / "summary.json")


def summary(records: list[dict[str, Any]], made_with: dict[str, Any]) -> dict[str, Any]:
    """Means of the rewards and their parts, over all pictures and by prompt, and what all of it cost."""
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_prompt.setdefault(record["prompt"], []).append(record)
    return {
        "pictures": len(records),
        "made_with": made_with,
        **_means(records),
        "cost": {name: _total(records, name) for name in COSTS},
        "by_prompt": [{"prompt": text, "pictures": len(own), **_means(own)} for text, own in by_prompt.items()],
    }


def _means(records: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(records[0].get("parts", {}))
    parts = {name: _mean([record.get("parts", {}).get(name) for record in records]) for name in names}
    return {"mean_reward": _mean([record.get("reward") for record in records]), "mean_parts": parts}


def _mean(values: list[float | None]) -> float | None:
    """None where a value is missing, as infinities are in JSON."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _total(records: list[dict[str, Any]], name: str) -> float | None:
    values = [record.get(name) for record in records]
    return None if None in values else sum(values)  # type: ignore[arg-type]


def _print_table(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    made, cost = figures["made_with"], figures["cost"]
    table = Table(title=f"{made['method']} for {made['reward']}, {figures['pictures']} pictures", title_justify="left")
    for heading in ("prompt", "pictures", "mean reward"):
        table.add_column(heading)
    for row in figures["by_prompt"][:SHOWN]:
        table.add_row(row["prompt"], str(row["pictures"]), _shown(row["mean_reward"]))
    if len(figures["by_prompt"]) > SHOWN:
        table.add_row(f"... and {len(figures['by_prompt']) - SHOWN} more", "", "")
    table.add_section()
    table.add_row("all", str(figures["pictures"]), _shown(figures["mean_reward"]))
    Console().print(table)
    typer.echo(
        f"{cost['nfe']} network calls, {cost['nfe_backward']} of them differentiated, {cost['reward_calls']} reward calls, "
        f"{cost['seconds']:.1f} seconds"
    )


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
