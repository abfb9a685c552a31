"""What must fit together before training begins: data, network, path and teacher."""

from __future__ import annotations

import math

from typing import Any

import torch

from diamond.flow import Flow
from diamond.interpolant import Interpolant
from diamond.model import Model

from .training.batches import Batches
from .training.precision import networks_of

__all__ = ["check_fit", "check_metadata", "check_path"]

WIDE = (torch.float32, torch.float64)


def check_path(interpolant: Any) -> None:
    """Refuses what is neither a path nor None.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(interpolant, Interpolant | None):
        raise ValueError(f"interpolant: got {interpolant!r}, expected diamond.Linear(), diamond.Cosine() or None")


def check_metadata(metadata: Any) -> dict[str, Any]:
    """What is to be noted in a file, nothing for None.

    Raises:
        ValueError: it is no dictionary.
    """
    if not isinstance(metadata, dict | None):
        raise ValueError(f"metadata: got {type(metadata).__name__}, expected a dict of JSON values or None")
    return metadata or {}


def check_fit(model: Any, batches: Batches, teacher: Model | None = None, *, states: int = 0, times: int = 0) -> None:
    """Refuses a model that cannot be trained on `batches`, or with the `teacher` that is to be asked.

    Raises:
        ValueError: events of another shape; a network of other further `states` and `times`; weights in half precision,
            in which small steps are lost, or of another number type than the teacher's.
    """
    if model.event_shape != batches.event_shape:
        raise ValueError(f"data: got events of shape {batches.event_shape}, expected the model's, {model.event_shape}")
    shape = getattr(model.net, "event_shape", batches.event_shape)
    if math.prod(shape) != math.prod(batches.event_shape):
        raise ValueError(f"data: got events of shape {batches.event_shape}, expected the network's, {tuple(shape)}")
    made = getattr(next(iter(networks_of(model)), None), "config", {})
    if (made.get("states", states), made.get("times", times)) != (states, times):
        raise ValueError(
            f"net: got a network made with states={made.get('states')} and times={made.get('times')}, expected "
            f"states={states} and times={times}"
        )
    if model.dtype not in WIDE:
        raise ValueError(
            f"net: got weights of {model.dtype}, expected float32 or float64; precision='bf16' lets the networks work in "
            "bfloat16"
        )
    if isinstance(teacher, Flow) and teacher.dtype != model.dtype:
        raise ValueError(f"teacher: got weights of {teacher.dtype}, expected the type of the map's, {model.dtype}")
