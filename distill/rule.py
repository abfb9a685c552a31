"""What a rule of forward derivatives is made of: a function of values and changes, with a gradient of its own.

Torch binds the arguments of such a function by its signature at each call, where it keeps what it saves apart from what it
computes, as transformations of `torch.func` ask for. That takes several times as long as the call itself. So each rule has a
twin that does both at once, which serves wherever no transformation is around.
"""

from __future__ import annotations

from typing import Any

import torch

from torch._C._functorch import maybe_current_level

__all__ = ["Rule"]


class Rule(torch.autograd.Function):
    """A subclass has `forward(*inputs)`, `setup_context` and `backward`, and is called as `of(*inputs)`."""

    twin: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()

        class Twin(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Any) -> Any:  # type: ignore[override]
                output = cls.forward(*inputs)
                cls.setup_context(ctx, inputs, output)
                return output

            backward = staticmethod(cls.backward)

        cls.twin = Twin

    @classmethod
    def of(cls, *inputs: Any) -> Any:
        """What `forward` makes of `inputs`, with the gradient that `backward` gives."""
        return (cls.twin if maybe_current_level() is None else cls).apply(*inputs)
