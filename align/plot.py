"""The picture of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .alignment import Alignment

__all__ = ["plot"]

BLUE, ORANGE = "#33658a", "#f26419"


def plot(result: Alignment) -> Any:
    """A matplotlib figure of three panels: the rewards of all populations, by weight and as drawn; each population's
    effective sample size after every step; and how many particles of every step have descendants at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _rewards(left, result)
    particles = result.rewards.shape[1]
    steps = range(1, len(result.ess) + 1)
    faint = max(0.15, 1 / max(result.ess.shape[1], 1))
    middle.plot(steps, result.ess.cpu(), color=ORANGE, alpha=faint)
    middle.set(xlabel="step", ylabel="effective sample size", ylim=(0, particles * 1.05), title=_evidence(result))
    right.plot(range(len(result.ancestors)), result.unique_ancestors().cpu(), color=BLUE, alpha=faint)
    right.set(xlabel="step", ylabel="particles with descendants", ylim=(0, particles * 1.05), title="lineage")
    return figure


def _rewards(axes: Any, result: Alignment) -> None:
    rewards = result.rewards.flatten().double().cpu()
    weights = result.log_weights.softmax(-1).flatten().cpu() / len(result.rewards)
    finite = rewards.isfinite()
    ends = rewards[finite].aminmax() if bool(finite.any()) else (0.0, 0.0)
    bins = torch.linspace(float(ends[0]), float(ends[1]) + 1e-6, 31, dtype=rewards.dtype).tolist()
    even = [1 / len(rewards)] * int(finite.sum())
    axes.hist(rewards[finite], bins=bins, weights=weights[finite], color=BLUE, label="by weight")
    axes.hist(rewards[finite], bins=bins, weights=even, histtype="step", color="black", label="as drawn")
    axes.set(xlabel="reward", ylabel="share", title=result.method)
    axes.legend(frameon=False)


def _evidence(result: Alignment) -> str:
    if result.log_z is None or not result.replicates:
        return ""
    log_z, error = result.evidence()
    return f"log_z {log_z:.3g}" + (f" +- {error:.1g}" if error == error else "")
