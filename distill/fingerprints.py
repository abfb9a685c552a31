"""What a teacher and data are known by: few digits that differ where their numbers do.

A run that is resumed must meet the teacher and the data that it began with, and a state file is no place to keep them.
"""

from __future__ import annotations

import zlib

from collections.abc import Iterable
from typing import Any

import torch

from torch import Tensor

from diamond.checkpoint import describe_model
from diamond.model import Model

__all__ = ["described", "fingerprint", "fingerprint_of_model"]

ROWS = 4096  # of data: enough to tell one set from another


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """The CRC-32 of the tensors' bytes, of rows spread evenly over those that have more than 4096: eight digits."""
    code = 0
    for tensor in tensors:
        if tensor.ndim and len(tensor) > ROWS:
            tensor = tensor[:: -(-len(tensor) // ROWS)]
        code = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), code)
    return f"{code:08x}"


def fingerprint_of_model(model: Model) -> str:
    """The class of a model, how it guides if it does, and the fingerprint of its weights."""
    names = ("scale", "interval")
    told = [f"{name} {getattr(model, name)}" for name in names if hasattr(model, name)]
    return ", ".join([type(model).__name__, *told, fingerprint(model.state_dict().values())])


def described(model: Model) -> dict[str, Any]:
    """How a model reads its weights: what a file would say of it, or what there is to say of one that has no file."""
    try:
        return describe_model(model)
    except ValueError:
        names = ("interpolant", "prediction", "no_label")
        return {name: str(getattr(model, name)) for name in names if hasattr(model, name)}
