"""Networks for vectors, images and latents.

All share one call: `net(x, t, cond=None, states=(), times=())` with states `(B, *event)`, times `(B,)` and labels
`(B,)`, giving `(B, *event)`. The further states and times are what turns the network of a flow into that of a map.
Every network can be differentiated in forward mode.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from ..validation import check_positive
from .mlp import ResidualMLP
from .network import Network, labels_of, silenced
from .preconditioned import Preconditioned
from .transformer import Transformer
from .unet import UNet
from .whitened import Whitened

__all__ = [
    "Network",
    "Preconditioned",
    "ResidualMLP",
    "Transformer",
    "UNet",
    "Whitened",
    "deepen",
    "describe",
    "grow",
    "labels_of",
    "make",
]

KINDS = (Preconditioned, ResidualMLP, Transformer, UNet, Whitened)
NETWORKS: dict[str, type[Network]] = {kind.__name__: kind for kind in KINDS}
OF_ONE_S_OWN = (
    "; keep the weights of one's own with safetensors.torch.save_model(net, path), and later load them into such a net "
    "with load_model(net, path) and make the model around it again"
)
ADAPTERS = {"DiffusersNetwork": "diamond.adapters.diffusers_network"}  # known too, but imported when asked for


def describe(net: Any) -> dict[str, Any]:
    """What a file needs to make `net` again, as JSON values: its class and arguments, networks inside it likewise.

    Raises:
        ValueError: it, or one inside it, is not a network of this package; the message says how to keep its weights.
    """
    _check_known(net, OF_ONE_S_OWN if isinstance(net, nn.Module) else "")
    return {
        "name": type(net).__name__,
        "config": {k: describe(v) if isinstance(v, nn.Module) else v for k, v in net.config.items()},
    }


def make(description: dict[str, Any]) -> Network:
    """The network that :func:`describe` described, with fresh weights.

    Raises:
        ValueError: no network has that name.
    """
    name = description["name"]
    kind = _kind(name)
    if kind is None:
        raise ValueError(f"net: got {name!r}, expected one of {', '.join(NETWORKS)}")
    config = description["config"]
    return kind(**{k: make(v) if isinstance(v, dict) else v for k, v in config.items()})


def grow(net: Any, states: int, times: int) -> Network:
    """A network like `net` with `states` further states and `times` further times, which computes what `net` does.

    All weights of `net` are copied; those of the new inputs end in zeros.

    Raises:
        ValueError: `net` is not a network of this package, or has further states or times already.
    """
    _check_known(net)
    if isinstance(net, (Preconditioned, Whitened)):
        inner = {"net": grow(net.net, states, times), "interpolant": net.interpolant}
        grown: Network = type(net)(**{**net.config, **inner})
    elif net.config["states"] or net.config["times"]:
        raise ValueError("net: got a network with further states or times already, expected the network of a flow")
    elif type(net).__name__ in ADAPTERS:
        return net.grown(states, times)
    else:
        grown = type(net)(**{**net.config, "states": states, "times": times})
    grown = grown.to(next(net.parameters()))
    grown.load_state_dict({**grown.state_dict(), **net.state_dict()})
    return grown


def deepen(net: Any, blocks: int | tuple[int, ...]) -> Network:
    """A network like `net` with more residual blocks, which computes what `net` does: what is new begins as the identity.

    Arguments:
        net: a network of this package, of any number of further states and times.
        blocks: how many it shall have; of a :class:`UNet`, at each resolution or for each one.

    Raises:
        ValueError: `net` is not a network that can be deepened, or has more blocks already.
    """
    _check_known(net)
    if isinstance(net, (Preconditioned, Whitened)):
        inner = {"net": deepen(net.net, blocks), "interpolant": net.interpolant}
        deeper: Network = type(net)(**{**net.config, **inner})
    elif isinstance(net, (ResidualMLP, Transformer, UNet)):
        name = "blocks" if isinstance(net, UNet) else "depth"
        if name == "depth":
            check_positive("blocks", blocks)
        deeper = type(net)(**{**net.config, name: blocks})
        if isinstance(deeper, ResidualMLP):  # the others' blocks begin so by themselves
            for block in deeper.blocks[net.config["depth"] :]:
                silenced(block.get_submodule("narrow"))
    else:
        raise ValueError(f"net: got {type(net).__name__}, expected ResidualMLP, Transformer or UNet")
    deeper = deeper.to(next(net.parameters()))
    known, weights = deeper.state_dict(), net.state_dict()
    lost = sorted(weights.keys() - known.keys())
    if lost:
        raise ValueError(
            f"blocks: got {blocks}, which leaves no place for {lost[0]}, expected as many as there are or more"
        )
    deeper.load_state_dict({**known, **weights})
    return deeper.train(net.training)


def _check_known(net: Any, advice: str = "") -> None:
    if _kind(type(net).__name__) is not type(net):
        raise ValueError(f"net: got {type(net).__name__}, expected one of {', '.join(NETWORKS)}{advice}")


def _kind(name: str) -> type[Network] | None:
    if name in ADAPTERS:
        return getattr(import_module(ADAPTERS[name]), name)
    return NETWORKS.get(name)
