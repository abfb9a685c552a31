"""Networks that work in bfloat16 while everything around them stays in single precision.

Weights, moments and averages are kept in float32, and so are the losses, whitening, and teachers in closed form: only the
forward calls of the innermost networks run under autocast, and what they return is float32 again. Forward-mode
differentiation passes through matrix products under autocast, but not through convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from accelerate import Accelerator
from torch import Tensor, nn

from diamond.nets import Network

from .schedule import PRECISIONS

__all__ = ["half_precision", "precision_of"]


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


@contextmanager
def half_precision(models: list[Any], device_type: str) -> Iterator[None]:
    """Surrounds work in which the networks of `models` run in bfloat16.

    Raises:
        ValueError: a network cannot be differentiated forward in it.
    """
    networks = {id(network): network for model in models for network in [_innermost(model)] if network is not None}
    with ExitStack() as stack:
        for network in networks.values():
            context = _Autocast(device_type)
            stack.callback(network.register_forward_pre_hook(context.enter).remove)
            stack.callback(network.register_forward_hook(context.leave, always_call=True).remove)
        try:
            yield
        except RuntimeError as error:
            if not str(error).startswith("Input type") or not any(map(_convolves, networks.values())):
                raise
            raise ValueError(
                "precision: got 'bf16', but a convolution cannot be differentiated forward in it, as this loss asks; "
                "expected 'fp32', a loss without such derivatives, or a network without convolutions"
            ) from error


def _innermost(model: Any) -> nn.Module | None:
    network: Any = getattr(model, "net", None)
    while isinstance(inner := getattr(network, "net", None), Network):  # wrappers compute scales, to all their digits
        network = inner
    return network


def _convolves(network: nn.Module) -> bool:
    return any(isinstance(part, nn.modules.conv._ConvNd) for part in network.modules())


class _Autocast:
    """Hooks around a forward call."""

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.open: list[torch.autocast] = []

    def enter(self, module: nn.Module, inputs: Any) -> None:
        self.open.append(torch.autocast(self.device_type, torch.bfloat16))
        self.open[-1].__enter__()

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        self.open.pop().__exit__(None, None, None)
        return output.float() if isinstance(output, Tensor) else output
