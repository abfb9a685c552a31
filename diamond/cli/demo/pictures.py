"""The pictures of digits. Each function makes one matplotlib figure; ink is dark on white paper.

Digits are `(N, 1, 8, 8)` in [-1, 1], shown pixel by pixel.
"""

from __future__ import annotations

from typing import Any

import torch

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

__all__ = ["alignment_rows", "posterior_draws", "sample_grids", "sheet"]

PAPER = -1.15  # between the digits, a shade lighter than their own background


def sheet(axes: Axes, digits: Tensor, columns: int) -> None:
    """Digits in rows of `columns`, without axes."""
    framed = torch.nn.functional.pad(digits.clamp(-1, 1), (0, 1, 0, 1), value=PAPER)
    grid = make_grid(framed, nrow=columns, padding=0)[0]
    axes.imshow(grid[:-1, :-1].numpy(), cmap="gray_r", vmin=PAPER, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def sample_grids(samples: dict[str, Tensor], titles: dict[str, str]) -> Figure:
    """64 samples of each kind, side by side."""
    figure = Figure(figsize=(9, 3.15), layout="constrained")
    figure.get_layout_engine().set(wspace=0.03)  # type: ignore[union-attr, call-arg]
    for axes, (name, digits) in zip(figure.subplots(1, len(samples)), samples.items(), strict=True):
        sheet(axes, digits, 8)
        axes.set_title(titles[name], fontsize=11)
    return figure


def posterior_draws(shown: list[dict[str, Any]], steps: int) -> Figure:
    """For each noise level the noisy digit, the posterior mean, and draws by the map above those by GLASS."""
    figure = Figure(figsize=(9, 1.22 * len(shown) + 0.25), layout="constrained")
    parts = figure.subplots(len(shown), 3, width_ratios=[1, 1, 5.15], squeeze=False)
    figure.get_layout_engine().set(wspace=0.01, hspace=0.0, h_pad=0.03, w_pad=0.02)  # type: ignore[union-attr, call-arg]
    for row, (left, middle, right) in zip(shown, parts, strict=True):
        sheet(left, row["noisy"][None], 1)
        sheet(middle, row["mean"][None], 1)
        sheet(right, torch.cat([row["map"], row["glass"]]), len(row["map"]))
        left.set_ylabel(f"t = {row['t']:g}", rotation=0, ha="right", va="center", fontsize=11, labelpad=8)
        right.yaxis.tick_right()
        right.set_yticks([3.5, 12.5], ["map,\n1 call", f"GLASS,\n{steps} calls"], fontsize=9)
        right.tick_params(length=0)
    for axes, title in zip(parts[0], ("noisy", "mean", "draws of what it could have been"), strict=True):
        axes.set_title(title, fontsize=10.5)
    return figure


def alignment_rows(rows: dict[str, Tensor], titles: list[str], above: int = 0) -> Figure:
    """One row of pictures a method, one column a target; the first `above` rows are set off from the others."""
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(9, 0.825 * len(rows) + 0.25), layout="constrained")
    axes = figure.subplots()
    sheet(axes, torch.cat(list(rows.values())), columns)
    axes.set_yticks([9 * i + 3.5 for i in range(len(rows))], [name.replace(", ", ",\n") for name in rows], fontsize=10)
    for label in axes.get_yticklabels()[:above]:
        label.set_fontweight("bold")
    axes.tick_params(length=0)
    if any(titles):
        axes.xaxis.tick_top()
        axes.set_xticks([9 * i + 3.5 for i in range(columns)], titles, fontsize=10.5)
    return figure
