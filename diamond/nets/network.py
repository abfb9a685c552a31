"""What the networks of this package have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["Network", "check_states", "labels_of", "silenced"]


class Network(nn.Module):
    """A network called as `net(x, t, cond=None, states=(), times=())`.

    Attributes:
        event_shape: the shape of one sample.
        config: the arguments that make it again, as JSON values.
    """

    event_shape: tuple[int, ...]
    config: dict[str, Any]


def check_states(states: tuple[Tensor, ...], taken: int) -> None:
    """Refuses any number of further states but the one that a network was made for.

    Raises:
        ValueError: there are more or fewer.
    """
    if len(states) != taken:
        raise ValueError(f"states: got {len(states)} states beside x, this network takes {taken}")


def labels_of(net: Any) -> tuple[int, int | None]:
    """How many class labels `net`, or a network inside it, takes as `cond`, and the label that stands for none: the one
    after its classes, unless its `no_label` says another, or None where it knows none. `(0, None)` without classes."""
    for part in net.modules() if isinstance(net, nn.Module) else (net,):
        classes = getattr(part, "classes", 0)
        if isinstance(classes, int) and classes > 0:
            return classes, getattr(part, "no_label", classes)
    return 0, None


def silenced(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters at zero: what begins as nothing, and is learned."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
