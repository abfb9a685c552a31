"""What the networks of this package have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["Network", "check_states"]


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
