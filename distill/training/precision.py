"""What the networks compute with: in bfloat16 while everything around them stays in single precision.

Weights, moments and averages are kept in float32, and so are the losses, whitening, and teachers in closed form: only the
forward calls of the innermost networks run under autocast, and what they return is float32 again. Forward derivatives pass
through it by :mod:`distill.pushforward`; torch's own stop at convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from accelerate import Accelerator
from torch import Tensor, nn

from diamond.nets import Network

from .schedule import PRECISIONS

__all__ = ["compiled_networks", "half_precision", "networks_of", "precision_of"]


def precision_of(wanted: str | None, accelerator: Accelerator) -> str:
    """The precision to train in: the one wanted, or else what accelerate was launched with.

    Raises:
        ValueError: accelerate was launched with one that is not offered here, or not the one wanted.
    """
    launched = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    if launched not in PRECISIONS:
        raise ValueError(f"precision: got {launched!r} from accelerate, expected one of {', '.join(PRECISIONS)}")
    if wanted == "fp32" and launched != "fp32":
        raise ValueError(f"precision: got 'fp32', but accelerate was launched with {launched!r}")
    return wanted or launched


def networks_of(*models: Any) -> list[nn.Module]:
    """The innermost networks of models, without the wrappers that compute scales, which need all their digits."""
    networks = {id(network): network for model in models if (network := _innermost(model)) is not None}
    return list(networks.values())


@contextmanager
def compiled_networks(networks: list[nn.Module]) -> Iterator[None]:
    """Surrounds work in which `networks` are compiled: for the very shapes that they meet, of which a run has few, and with
    convolutions over channels that lie together, as a GPU's matrix units want them."""
    for network in networks:
        on_gpu = any(parameter.is_cuda for parameter in network.parameters())
        network.compile(dynamic=False, options={"force_layout_optimization": True} if on_gpu else None)
    try:
        yield
    finally:
        for network in networks:
            network._compiled_call_impl = None  # as before
        torch.compiler.reset()  # of one function, which all networks' calls are, torch keeps only so many compiled forms


@contextmanager
def half_precision(networks: list[nn.Module], device_type: str) -> Iterator[None]:
    """Surrounds work in which `networks` run in bfloat16."""
    with ExitStack() as stack:
        for network in networks:
            network.__dict__["forward"] = _half(network.forward, device_type)
            stack.callback(network.__dict__.pop, "forward")
        yield


def _innermost(model: Any) -> nn.Module | None:
    network: Any = getattr(model, "net", None)
    while isinstance(inner := getattr(network, "net", None), Network):
        network = inner
    return network


def _half(forward: Callable[..., Tensor], device_type: str) -> Callable[..., Tensor]:
    def half(*inputs: Any, **more: Any) -> Tensor:
        with torch.autocast(device_type, torch.bfloat16):
            output = forward(*inputs, **more)
        return output.float()

    return half
