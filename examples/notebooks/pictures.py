"""The pictures that the notebooks share: sheets of images, and axes without clutter.

Images are `(N, C, H, W)` in [-1, 1], grey ones drawn as dark ink on white paper.
"""

from __future__ import annotations

import warnings

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad
from torchvision.utils import make_grid

__all__ = ["BLUE", "COLOURS", "GREY", "INK", "ORANGE", "axes_of", "rows", "sheet", "tidy"]

warnings.filterwarnings("ignore", "IProgress not found")  # what tqdm says where its widget is not installed

INK, BLUE, ORANGE, GREY = "#22303c", "#33658a", "#f26419", "#9ca3af"
COLOURS = (BLUE, ORANGE, "#0f766e", "#6d28d9", "#b45309", GREY, "#be185d")

plt.rcParams.update(
    {
        "figure.dpi": 80,
        "font.size": 10,
        "axes.titlesize": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


def axes_of(*columns: str, height: float = 2.9, width: float = 9.0, **options) -> tuple[Figure, list[Axes]]:
    """A figure with one tidy panel for each title, side by side."""
    figure, panels = plt.subplots(
        1, len(columns), figsize=(width, height), layout="constrained", squeeze=False, **options
    )
    for axes, title in zip(panels[0], columns, strict=True):
        tidy(axes).set_title(title)
    return figure, list(panels[0])


def tidy(axes: Axes) -> Axes:
    """A light grid behind what is drawn."""
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def sheet(axes: Axes, images: Tensor, columns: int, *, low: float = -1.0, high: float = 1.0, cmap: str = "gray_r"):
    """Images in rows of `columns`, entries from `low` to `high`, without axes."""
    paper = low - 0.04 * (high - low)  # between the images, a shade beside their own background
    framed = pad(images.detach().clamp(low, high), (0, 1, 0, 1), value=paper if images.shape[1] == 1 else high)
    grid = make_grid(framed, nrow=columns, padding=0)[:, :-1, :-1]
    colour = images.shape[1] == 3
    shown = (grid.permute(1, 2, 0) - low) / (high - low) if colour else grid[0]
    axes.imshow(shown.numpy(), cmap=None if colour else cmap, vmin=paper, vmax=high, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)


def rows(
    named: Mapping[str, Tensor],
    *,
    title: str = "",
    heads: Sequence[str] = (),
    notes: Sequence[str] = (),
    width: float = 9.0,
    **options,
) -> Figure:
    """One row of images for each name, as many in each.

    Arguments:
        named: what stands to the left of each row, and its images `(n, C, H, W)`.
        title: above all of it.
        heads: above the columns.
        notes: to the right of the rows.
        width: of the figure in inches; other options go to :func:`sheet`.
    """
    images = list(named.values())
    (count, _, high, wide), lines = images[0].shape, len(images)
    tall = width * 0.78 / (count * (wide + 1)) * (high + 1) * lines
    figure, axes = plt.subplots(figsize=(width, tall + 0.3 * bool(title) + 0.25 * bool(heads)), layout="constrained")
    sheet(axes, torch.cat(images), count, **options)
    axes.tick_params(length=0)
    centres = [(high + 1) * i + (high - 1) / 2 for i in range(lines)]
    axes.set_yticks(centres, list(named))
    if heads:
        axes.xaxis.tick_top()
        axes.set_xticks([(wide + 1) * i + (wide - 1) / 2 for i in range(count)], heads)
    if notes:
        right = axes.secondary_yaxis("right")
        right.set_yticks(centres, notes)
        right.tick_params(length=0)
        right.spines[:].set_visible(False)
    if title:
        axes.set_title(title)
    return figure
