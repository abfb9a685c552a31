r"""Mixtures and rewards whose tilted law is known.

Data :math:`z \sim \sum_k w_k N(m_k, S_k)` of two unequal components, with covariances of one decade of eigenvalues in
random directions, and the reward :math:`r(z) = -|z - c|^2 / 2 \tau^2`. The target :math:`c` lies between the
components, where they keep three quarters and a quarter of the tilted mass, and aside of both. Then :math:`Z`, the
tilted mean and the tilted covariance have closed forms (:mod:`diamond.mixture`), and so has what importance sampling
needs for one effective sample,

.. math:: \frac{E[e^{2r}]}{E[e^r]^2} .
"""

from __future__ import annotations

import math

from dataclasses import dataclass

import torch

from torch import Tensor

import diamond

__all__ = ["TILTS", "Tilt", "make_tilt"]

WEIGHTS = (0.35, 0.65)
SIZES = (0.3, 0.6)  # largest eigenvalue of each component's covariance
APART = 3.0  # distance of the components' means


@dataclass(frozen=True)
class Place:
    """Where the target lies.

    Attributes:
        width: the square of the reward's width tau.
        between: how far it is from the first component's mean to the second's, as a share.
        aside: its distance from the line between them.
    """

    width: float
    between: float
    aside: float


TILTS = {2: Place(0.1, 0.4735, 0.75), 16: Place(0.1, 0.492, 1.0), 64: Place(0.15, 0.708, 1.0)}


@dataclass(frozen=True)
class Tilt:
    """A mixture, a reward, and the law that the two make.

    Attributes:
        mixture: of the data, float32: what the models are made of.
        target: the reward's `c`, `(D,)`, float32.
        width: its `tau^2`.
        law: the tilted law, float64.
        log_z: `log E[exp r(z)]`.
        draws_needed: samples that importance sampling needs for one effective sample.
    """

    mixture: diamond.GaussianMixtureFlow
    target: Tensor
    width: float
    law: diamond.GaussianMixtureFlow
    log_z: float
    draws_needed: float

    @property
    def name(self) -> str:
        return f"d = {len(self.target)}"

    def reward(self, z: Tensor) -> Tensor:
        """`-|z - c|^2 / 2 tau^2`, `(N,)`."""
        return -(z - self.target).square().sum(1) / (2 * self.width)


def make_tilt(size: int) -> Tilt:
    """The tilt of that dimension, 2, 16 or 64: always the same one."""
    place, generator = TILTS[size], torch.Generator().manual_seed(0)
    numbers = {"dtype": torch.float64, "generator": generator}
    bases = [torch.linalg.qr(torch.randn(size, size, **numbers)).Q for _ in SIZES]  # type: ignore[call-overload]
    spectrum = torch.logspace(0, -1, size, dtype=torch.float64)
    covariances = torch.stack([q * (s * spectrum) @ q.mT for q, s in zip(bases, SIZES, strict=True)])
    along, across = torch.randn(2, size, **numbers)  # type: ignore[call-overload]
    along = along / along.norm()
    across = across - (across @ along) * along
    means = torch.stack([-WEIGHTS[1] * APART * along, WEIGHTS[0] * APART * along])
    target = torch.lerp(means[0], means[1], place.between) + place.aside * across / across.norm()
    data = diamond.GaussianMixtureFlow(torch.tensor(WEIGHTS), means, covariances)
    linear, precision, constant = target / place.width, 1 / place.width, target.square().sum() / (2 * place.width)
    log_z = data.log_normaliser(linear, precision) - constant
    twice = data.log_normaliser(2 * linear, 2 * precision) - 2 * constant
    return Tilt(
        mixture=diamond.GaussianMixtureFlow(torch.tensor(WEIGHTS), means.float(), covariances.float()),
        target=target.float(),
        width=place.width,
        law=data.tilt(linear, precision),
        log_z=float(log_z),
        draws_needed=math.exp(float(twice - 2 * log_z)),
    )
