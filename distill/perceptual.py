r"""Comparing clean samples by what a network sees in them.

Mean squares over pixels weigh a blurred stroke like a shifted one. Where the map's one-call draw :math:`a` has a target
:math:`b`, the end of the teacher's trajectory from the same noise, further terms compare features :math:`\phi_l` of both,
each by its relative error,

.. math:: d(a, b) = \frac{1}{L} \sum_{l=1}^L \frac{|\phi_l(a) - \phi_l(b)|^2}{|\phi_l(b)|^2} .

Errors that all pairs share are small beside each pair's own, and samples show them most: strokes a little thin, loops that
close too seldom. So the laws of all draws and of all targets can be compared as well, by an energy distance of their features
in the neighbourhood of each outer time: with :math:`\kappa_{ij} = e^{-(t_i - t_j)^2 / 2 h^2}`, divided by its sum over
:math:`i \ne j`, and :math:`|\cdot|` relative to the mean size of :math:`\phi_l(b)`,

.. math:: D^2 = \frac{1}{L} \sum_l \sum_{i \ne j} \kappa_{ij} \left( |\phi_l(a_i) - \phi_l(b_j)| + |\phi_l(b_i) - \phi_l(a_j)|
    - |\phi_l(a_i) - \phi_l(a_j)| - |\phi_l(b_i) - \phi_l(b_j)| \right) .

Given the times, and up to its two divisors, which are the batch's own, it estimates without bias the squared maximum mean
discrepancy of `(t, a)` and `(t, b)` under the kernel :math:`\kappa \, (|\phi| + |\phi'| - |\phi - \phi'|)`, whose first terms
cancel as `a` and `b` have their times in common: two rows are independent, and one row's own :math:`a_i, b_i`, which are not,
are never compared. Both come from one noise as well, which makes the estimate far less noisy than one of independent draws,
and so it may weigh far more than the pairs' own errors.

The target is a function of the noise and no draw given it, so that the exact map is a zero of both as it is of the
mean square, whatever the features: they change what a network that cannot reach it gives up first. Samples should then
be judged by features of another make.

References:
    | The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018),
      https://arxiv.org/abs/1801.03924
    | Equivalence of distance-based and RKHS-based statistics in hypothesis testing (Sejdinovic et al., 2013),
      https://arxiv.org/abs/1207.6076 (energy distances as mean discrepancies)
    | Multistep Distillation of Diffusion Models via Moment Matching (Salimans et al., 2024),
      https://arxiv.org/abs/2406.04103
    | Consistency Models (Song et al., 2023), https://arxiv.org/abs/2303.01469 (the same distance, in distillation)
"""

from __future__ import annotations

import math

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor, nn

from diamond.validation import check_number

from .fingerprints import fingerprint

__all__ = ["Perceptual"]

TINY = 1e-12
NEAR = 0.15  # h: outer times within which errors count as common


class Perceptual:
    """Distances of clean samples, to be added to the mean square of their difference: of the pairs that go all the way from
    noise, half of those that start there (`from_zero=`).

    Arguments:
        features: a frozen module in evaluation mode, or a function, from `(B, *event)` to a sequence of `(B, ...)`, one or
            more; differentiable.
        weight: of the distance, beside a mean square over entries.
        law: weight of the discrepancy of the laws, a number without unit that is added to the loss of a batch, whatever its
            shares and its weighting; 0 for none. Some 30 were worth having beside adaptive losses.

    Raises:
        ValueError: `features` cannot be called, `weight` is not a positive number, or `law` is negative.
    """

    def __init__(self, features: Callable[[Tensor], Sequence[Tensor]], weight: float = 0.3, law: float = 0.0) -> None:
        if not callable(features):
            raise ValueError(f"features: got {type(features).__name__}, expected a module or a function of samples")
        self.features = features
        self.weight = check_number("weight", weight, "a positive number", lambda weight: 0 < weight < math.inf)
        self.law = check_number("law", law, "0 or a positive number", lambda law: 0 <= law < math.inf)

    def __call__(self, samples: Tensor, targets: Tensor) -> Tensor:
        """The weighted distance of each pair, `(B,)`, differentiable in `samples` `(B, *event)`.

        Raises:
            ValueError: the features are no sequence of tensors with a row a sample, an empty one, or let no gradient pass.
        """
        with torch.no_grad():
            theirs = self._seen(targets.detach())
        terms = [
            _sum(one - other) / (_sum(other) + TINY) for one, other in zip(self._seen(samples), theirs, strict=True)
        ]
        return self.weight * torch.stack(terms).mean(0).to(samples.dtype)

    def discrepancy(self, samples: Tensor, targets: Tensor, t: Tensor) -> Tensor:
        """The weighted squared discrepancy of the laws of `samples` and `targets` `(B, *event)`, pairs from one noise, at
        outer times `t` `(B,)`: a scalar, of either sign, differentiable in `samples`, in float32 or better; 0 for less than
        two pairs."""
        if len(samples) < 2:  # of which features need not know a thing
            return samples.new_zeros(())
        with torch.no_grad():
            theirs = self._seen(targets.detach())
        wide = torch.promote_types(samples.dtype, torch.float32)
        near = (-(t[:, None] - t).to(wide).square() / (2 * NEAR**2)).exp().fill_diagonal_(0)
        near = near / near.sum().clamp_min(TINY)
        total = samples.new_zeros((), dtype=wide)
        for one, other in zip(self._seen(samples), theirs, strict=True):
            one, other = _flat(one).to(wide), _flat(other).to(wide)
            middle, size = other.mean(0), _sum(other).mean().sqrt() + TINY
            a, b = (one - middle) / size, (other - middle) / size  # products of what is centred keep their digits
            across = torch.cdist(a, b)
            total = total + (near * (across + across.mT - torch.cdist(a, a) - torch.cdist(b, b))).sum()
        return self.law * total / len(theirs)

    def _seen(self, samples: Tensor) -> Sequence[Tensor]:
        found = self.features(samples)
        expected = f"expected a sequence of tensors ({len(samples)}, ...), one or more"
        if not isinstance(found, Sequence) or not found:
            came = "a tensor" if isinstance(found, Tensor) else "nothing" if not found else f"a {type(found).__name__}"
            raise ValueError(f"features: they returned {came}, {expected}")
        for one in found:
            if not isinstance(one, Tensor) or one.shape[:1] != samples.shape[:1]:
                what = f"shape {tuple(one.shape)}" if isinstance(one, Tensor) else f"type {type(one).__name__}"
                raise ValueError(f"features: they returned one of {what}, {expected}")
        if torch.is_grad_enabled() and samples.requires_grad and not any(one.requires_grad for one in found):
            raise ValueError("features: no gradient passes through them to the samples, expected differentiable ones")
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
        return {"weight": self.weight, "law": self.law, "features": f"{known} {fingerprint(weights)}"}


def _flat(values: Tensor) -> Tensor:
    return values.unsqueeze(-1).flatten(1)  # a feature may be a plain number


def _sum(values: Tensor) -> Tensor:
    return _flat(values.square()).sum(1)
