"""Class labels of conditional models: which there are, and whether a model learned to go without them.

Both are asked once, where samples are asked for, and not in each call of a network: to see the values of labels, an
accelerator would have to be waited for.
"""

from __future__ import annotations

import warnings

from typing import Any

import torch

from torch import Tensor

from .nets import Network, labels_of

__all__ = ["check_labels", "warn_of_no_label"]


def check_labels(model: Any, cond: Any) -> None:
    """Refuses `cond` unless it fits the classes of `model`, or of the model that it is a view of, if its network is one of
    this package and was made with classes.

    Raises:
        ValueError: it is no tensor, or holds a label that is neither a class nor the label of none.
    """
    while hasattr(model, "viewed"):
        model = getattr(model, model.viewed)
    net = getattr(model, "net", None)
    if cond is None or not isinstance(net, Network):
        return
    classes, none = labels_of(net)
    if not classes:
        return
    expected = f"classes from 0 to {classes - 1}" + ("" if none is None or none < classes else f", or {none} for none")
    if not isinstance(cond, Tensor):
        raise ValueError(f"cond: got {type(cond).__name__}, expected a tensor of whole numbers, {expected}")
    if cond.is_floating_point() or not cond.numel():
        return  # the network's own business
    low, high = (int(end) for end in torch.aminmax(cond))
    if low < 0 or (high >= classes and bool(((cond >= classes) & (cond != (-1 if none is None else none))).any())):
        raise ValueError(f"cond: got labels from {low} to {high}, expected {expected}")


def warn_of_no_label(model: Any, came: str = "cond: got None") -> None:
    """Warns, once a model, where its metadata say that it was trained without label dropout: what its network gives for no
    label was never learned. `came` is what asked for it."""
    if model.metadata.get("label_dropout") != 0 or model.told_of_no_label:
        return
    model.told_of_no_label = True
    warnings.warn(
        f"{came}, but this model was trained with label_dropout=0 and knows no law without labels; for one, train with "
        "label_dropout=0.1",
        stacklevel=3,
    )
