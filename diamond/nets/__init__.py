"""Networks for vectors and small images.

All share one call: `net(x, t, cond=None, states=(), times=())` with states `(B, *event)`, times `(B,)` and labels
`(B,)`, giving `(B, *event)`. The further states and times are what turns the network of a flow into that of a map:
they enter through weights that are zero at the start.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .mlp import ResidualMLP
from .transformer import Transformer

__all__ = ["ResidualMLP", "Transformer", "grow", "network_named"]

NETWORKS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (ResidualMLP, Transformer)}


def network_named(name: str, **config: Any) -> nn.Module:
    """The network class called `name`, made with `config`.

    Raises:
        ValueError: no network has that name.
    """
    if name not in NETWORKS:
        raise ValueError(f"net: got {name!r}, expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name](**config)


def grow(net: nn.Module, states: int, times: int) -> nn.Module:
    """A network like `net` with `states` further states and `times` further times, which computes what `net` does.

    All weights of `net` are copied; the new ones end in zeros.

    Raises:
        ValueError: `net` is not a network of this package.
    """
    if type(net).__name__ not in NETWORKS or NETWORKS[type(net).__name__] is not type(net):
        raise ValueError(f"net: got {type(net).__name__}, expected one of {', '.join(NETWORKS)}")
    grown = type(net)(**{**net.config, "states": states, "times": times}).to(next(net.parameters()))
    grown.load_state_dict({**grown.state_dict(), **net.state_dict()})
    return grown
