"""What `diamond align` leaves: a picture, the tensors, the figures, a plot, and a table on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .outputs import say_wrote, write_json
from .pictures import is_image, picture, shown_samples

if TYPE_CHECKING:
    from align import Alignment

__all__ = ["figures_of", "write_report"]

SHOWN_BY = {"smc": "weight", "guide": "order", "base": "order"}


def write_report(result: Alignment, out: Path, notes: dict[str, Any]) -> None:
    """Writes `samples.png` (of images), `alignment.safetensors`, `.json` and `.png` to the folder `out`, and prints
    the figures; `notes` goes into the JSON file too."""
    figures = {**notes, **figures_of(result)}
    grid = None
    if is_image(tuple(result.samples.shape[2:])):
        grid = picture(shown_samples(result, SHOWN_BY.get(result.method, "reward")))
    plot = result.plot()
    out.mkdir(parents=True, exist_ok=True)
    written = [out / f"alignment.{ending}" for ending in ("safetensors", "json", "png")]
    result.save(written[0])
    write_json(written[1], figures)
    plot.savefig(written[2], dpi=120)
    if grid is not None:
        written.insert(0, out / "samples.png")
        grid.save(written[0])
    _print_table(figures)
    say_wrote(*written)


def figures_of(result: Alignment) -> dict[str, Any]:
    """The figures of a result, ready for JSON. Means are over all populations; the weighted one is by their weights,
    the best one that of each population's best sample."""
    rewards = result.rewards.double()
    weights = result.log_weights.double().softmax(1)
    weighted = (weights * rewards.where(weights > 0, 0.0)).sum(1)
    return {
        "method": result.method,
        "law": result.law,
        "settings": result.settings,
        "mean_reward": float(rewards.mean()),
        "weighted_mean_reward": float(weighted.mean()),
        "best_reward": float(rewards.amax(1).mean()),
        "log_z": None if result.log_z is None else result.log_z.tolist(),
        "ess": [float(ess) for ess in result.ess[-1]],
        "nfe": result.nfe,
        "nfe_backward": result.nfe_backward,
        "reward_calls": result.reward_calls,
        "seconds": result.seconds,
    }


def _print_table(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=f"{figures['method']} for {figures['reward']}", title_justify="left")
    table.add_row("law", figures["law"])
    table.add_row("settings", _pairs(figures["settings"]))
    if figures.get("labels") is not None:
        table.add_row("class", ", ".join(map(str, figures["labels"])))
    for name, shown in {
        "mean_reward": "mean reward", "weighted_mean_reward": "mean reward by weight", "best_reward": "best reward",
    }.items():  # fmt: skip
        table.add_row(shown, f"{figures[name]:.4f}")
    if figures["log_z"] is not None:
        table.add_row("log Z", ", ".join(f"{value:.4f}" for value in figures["log_z"][:8]))
    backward = f" ({figures['nfe_backward']} differentiated)" if figures["nfe_backward"] else ""
    table.add_row("network calls", f"{figures['nfe']}{backward} per population")
    table.add_row("reward calls", f"{figures['reward_calls']} per population")
    table.add_row("seconds", f"{figures['seconds']:.2f}")
    Console().print(table)


def _pairs(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
