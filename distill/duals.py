r"""Dual tensors: a value and its derivative along a direction, in one.

Torch has one level of them. Its public functions make sure of that at each call, for several times the price of what they do
then; these are for inside a level, where it is sure.
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

__all__ = ["dual_of", "parts_of"]


def dual_of(value: Tensor, tangent: Tensor) -> Tensor:
    """The dual tensor of a value and a derivative of the same shape and number type."""
    return torch._make_dual(value, tangent, level=0)


def parts_of(dual: Tensor) -> tuple[Tensor, Any]:
    """Its value and its derivative; None for the latter, where it does not move."""
    return torch._unpack_dual(dual, level=0)
