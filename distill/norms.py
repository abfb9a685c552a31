r"""Normalisations written out, so that derivatives of every order follow from those of sums and products.

Over the entries that are normalised together, with mean :math:`\langle \cdot \rangle`,

.. math:: y = w \odot \frac{x - \langle x \rangle}{\sqrt{\langle (x - \langle x \rangle)^2 \rangle + \epsilon}} + b.

Torch's own forward derivative of the norms of layers, instances and batches has a wrong gradient: it holds the mean and the
deviation fixed, https://github.com/pytorch/pytorch/issues/196700.

References:
    | Layer Normalization (Ba et al., 2016), https://arxiv.org/abs/1607.06450
    | Batch Normalization (Ioffe & Szegedy, 2015), https://arxiv.org/abs/1502.03167
    | Instance Normalization (Ulyanov et al., 2016), https://arxiv.org/abs/1607.08022
"""

from __future__ import annotations

import math

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor
from torch.nn import functional

__all__ = ["WRITTEN_OUT"]


def layer_norm(
    function: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    unit = _unit(input, tuple(range(-len(normalized_shape), 0)), eps)
    return _scaled(unit, weight, bias, 0)


def group_norm(
    function: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    groups = input.reshape(len(input), num_groups, math.prod(input.shape[1:]) // num_groups)
    return _scaled(_unit(groups, (-1,), eps).reshape(input.shape), weight, bias, input.ndim - 2)


def instance_norm(
    function: Any,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return function(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    if running_mean is not None:
        function(input.detach(), running_mean, running_var, momentum=momentum)
    return _scaled(_unit(input, tuple(range(2, input.ndim)), eps), weight, bias, input.ndim - 2)


def batch_norm(
    function: Any,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return function(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if running_mean is not None:
        function(input.detach(), running_mean, running_var, training=True, momentum=momentum)
    return _scaled(_unit(input, (0, *range(2, input.ndim)), eps), weight, bias, input.ndim - 2)


def _unit(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """`x` centred and scaled over `axes`, in float32 or better."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(axes, keepdim=True)
    return (centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()).to(x.dtype)


def _scaled(unit: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: int) -> Tensor:
    """`weight * unit + bias`, each of the two with so many `trailing` axes more."""
    if weight is not None:
        unit = unit * weight.to(unit.dtype).reshape(*weight.shape, *(1,) * trailing)
    return unit if bias is None else unit + bias.to(unit.dtype).reshape(*bias.shape, *(1,) * trailing)


WRITTEN_OUT: dict[Any, Callable[..., Tensor]] = {
    functional.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    functional.group_norm: group_norm,
    torch.group_norm: group_norm,
    functional.instance_norm: instance_norm,
    functional.batch_norm: batch_norm,
}
