r"""The head of two rewards: five linear layers one after the other, with dropout in training and nothing between them,

.. math:: 768 \to 1024 \to 128 \to 64 \to 16 \to 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["LAYERS", "head_from"]

LAYERS = (0, 2, 4, 6, 7)  # which of the numbered layers are linear; the others are dropout


def head_from(state: Mapping[str, Tensor], start: str, name: str) -> nn.Sequential:
    """The head whose tensors are called `{start}0.weight` to `{start}7.bias`; any other one is refused.

    Raises:
        ValueError: they are others, or do not fit together; the message starts with `name`.
    """
    own = {key[len(start) :]: tensor for key, tensor in state.items() if key.startswith(start)}
    expected = {f"{number}.{kind}" for number in LAYERS for kind in ("weight", "bias")}
    if set(own) != expected:
        raise ValueError(
            f"{name}: got a head of {', '.join(sorted(own)) or 'nothing'}, expected linear layers "
            f"{start}N.weight and .bias, N = {', '.join(map(str, LAYERS))}, with no activations between them"
        )
    head = nn.Sequential(*(nn.Identity() for _ in range(LAYERS[-1] + 1)))
    for number in LAYERS:
        out_features, in_features = own[f"{number}.weight"].shape
        head[number] = nn.Linear(in_features, out_features)
    try:
        head.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"{name}: its head's layers do not fit, expected weights and biases ({error})") from error
    return head
