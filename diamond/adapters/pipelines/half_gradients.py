r"""Gradients through a network that computes in float16, whose range is small.

What is less than 6e-5 loses digits there, and what is less than 3e-8 is nothing, so a reward's gradient, which is spread
over a picture, would lose its own on the way back. The gradient :math:`J^\top g` is linear in what comes back: each sample's
:math:`g` is multiplied by the power of two :math:`c` that brings its largest entry between 1 and 2, in float32, before it
enters the network, and the gradient is multiplied by :math:`1 / c`, in float32, behind it. Both are exact. Other number
types have the range of float32, and stay as they are; so do gradients that are to be differentiated again, in which the
scale would come back.

References:
    | Mixed Precision Training (Micikevicius et al., 2017), https://arxiv.org/abs/1710.03740, section 3.2
"""

from __future__ import annotations

import torch

from torch import Tensor

__all__ = ["HalfGradients"]


class HalfGradients:
    """The scale of one call's gradients: its states go in through :meth:`enter`, what it makes of them comes out through
    :meth:`leave`.

    Arguments:
        dtype: the number type that the call computes in.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.needed = dtype == torch.float16
        self.scale = torch.ones(())

    def enter(self, given: Tensor) -> Tensor:
        """`given` `(B, ...)`, whose gradient has its own size again."""
        if not self.needed or not given.requires_grad:
            return given
        given = given.view_as(given)  # so that the gradients of its other uses are not touched
        given.register_hook(self._restore)
        return given

    def leave(self, output: Tensor) -> Tensor:
        """`output` `(B, ...)` in float32, whose gradient is scaled on its way back."""
        if not self.needed or not output.requires_grad:
            return output
        output = output.view_as(output)
        output.register_hook(self._enlarge)
        return output

    def _enlarge(self, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.scale = gradient.new_ones(len(gradient))
            return gradient
        largest = gradient.detach().flatten(1).abs().amax(1).clamp(1e-30, 1e30)
        self.scale = torch.exp2(-largest.log2().floor())
        return gradient * _alike(self.scale, gradient)

    def _restore(self, gradient: Tensor) -> Tensor:
        return gradient / _alike(self.scale, gradient)


def _alike(scale: Tensor, gradient: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (gradient.ndim - 1))
