"""Reading a model for a command, and what its file says beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from diamond.model import Model

__all__ = ["classes_of", "data_name", "device_named", "guided", "load_model"]


def load_model(path: Path, name: str, kinds: Sequence[str], device: str | torch.device = "cpu") -> Any:
    """The model in `path`, if it is one of `kinds`; `name` is the argument that it came by.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    from diamond.checkpoint import load, read_header

    try:
        kind = read_header(path).get("kind")
        if kind not in kinds:
            raise ValueError(f"{path} is of kind {kind!r}, expected {', '.join(kinds)}")
        return load(path, device)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def guided(model: Any, scale: float | None) -> Any:
    """The flow with classifier-free guidance of that scale, or as it is for None.

    Raises:
        ValueError: it is no flow with classes, or is guided already; or the scale is no finite number.
    """
    from diamond.classifier_free import ClassifierFree
    from diamond.validation import check_number

    if scale is None:
        return model
    check_number("guidance", scale, "a finite number")
    flow = getattr(model, "flow", model)  # GLASS looks at a flow
    if isinstance(flow, ClassifierFree) or not classes_of(flow):
        what = "guided already" if isinstance(flow, ClassifierFree) else "without classes"
        raise ValueError(f"guidance: got {scale:g} for a {type(flow).__name__} {what}, expected a flow with classes")
    return ClassifierFree(flow, scale)


def classes_of(model: Model) -> int:
    """How many class labels the model's network takes as `cond`; 0 for an unconditional one."""
    from diamond.nets import labels_of

    return labels_of(model)[0]


def data_name(given: str | None, model: Model, needed_for: str) -> str:
    """The data set that the user gave, or else that the model was trained on.

    Raises:
        ValueError: neither is there.
    """
    name = given or model.metadata.get("data")
    if not isinstance(name, str):
        raise ValueError(f"data: got None and the model's file names none, expected a data set for {needed_for}")
    return name


def device_named(name: str | None) -> torch.device:
    """The device of that name, or the best one there is.

    Raises:
        ValueError: no such device.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: got {name!r}, expected one that this machine has, like cpu") from error
