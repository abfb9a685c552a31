r"""Comparing clean samples by what a network sees in them.

Mean squares over pixels weigh a blurred stroke like a shifted one. Where the map's one-call draw :math:`a` has a target
:math:`b`, the end of the teacher's trajectory from the same noise, further terms compare features :math:`\phi_l` of both,
each by its relative error,

.. math:: d(a, b) = \frac{1}{L} \sum_{l=1}^L \frac{|\phi_l(a) - \phi_l(b)|^2}{|\phi_l(b)|^2} .

The target is a function of the noise and no draw given it, so that the exact map is a zero of this distance as it is of
the mean square, whatever the features: they change what a network that cannot reach it gives up first. Samples should then
be judged by features of another make.

References:
    | The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018),
      https://arxiv.org/abs/1801.03924
    | Consistency Models (Song et al., 2023), https://arxiv.org/abs/2303.01469 (the same distance, in distillation)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor, nn

from .fingerprints import fingerprint

__all__ = ["Perceptual"]

TINY = 1e-12


class Perceptual:
    """A distance of clean samples, to be added to the mean square of their difference.

    Arguments:
        features: a frozen module in evaluation mode, or a function, from `(B, *event)` to a sequence of `(B, ...)`, one or
            more; differentiable.
        weight: of the distance, beside a mean square over entries.

    Raises:
        ValueError: `features` cannot be called, or `weight` is not a positive number.
    """

    def __init__(self, features: Callable[[Tensor], Sequence[Tensor]], weight: float = 0.3) -> None:
        if not callable(features):
            raise ValueError(f"features: got {type(features).__name__}, expected a module or a function of samples")
        if not 0 < weight < float("inf"):
            raise ValueError(f"weight: got {weight}, expected a positive number")
        self.features, self.weight = features, float(weight)

    def __call__(self, samples: Tensor, targets: Tensor) -> Tensor:
        """The weighted distance of each pair, `(B,)`, differentiable in `samples` `(B, *event)`.

        Raises:
            ValueError: the features are no sequence, or an empty one.
        """
        with torch.no_grad():
            theirs = self._seen(targets)
        terms = [
            _sum(one - other) / (_sum(other) + TINY) for one, other in zip(self._seen(samples), theirs, strict=True)
        ]
        return self.weight * torch.stack(terms).mean(0).to(samples.dtype)

    def _seen(self, samples: Tensor) -> Sequence[Tensor]:
        found = self.features(samples)
        if isinstance(found, Tensor) or not len(found):
            raise ValueError(
                f"features: they returned {'a tensor' if isinstance(found, Tensor) else 'nothing'}, expected a sequence of "
                "tensors, one or more"
            )
        return found

    def to(self, device: torch.device) -> None:
        """Moves the features there, if they are a module."""
        if isinstance(self.features, nn.Module):
            self.features.to(device)

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must have in common with one that it resumes."""
        features = self.features
        known = getattr(features, "__name__", type(features).__name__)
        weights = features.state_dict().values() if isinstance(features, nn.Module) else ()
        return {"weight": self.weight, "features": f"{known} {fingerprint(weights)}"}


def _sum(values: Tensor) -> Tensor:
    return values.square().flatten(1).sum(1)
