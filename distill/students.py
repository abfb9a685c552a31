"""What a distillation starts from: the teacher's flow, and a network for the student.

A student's network is the teacher's own, grown by the inputs that a map has and silent in them, so that the map begins as the
teacher on its diagonal. Where there is nothing to grow, it is a perceptron in coordinates in which the data are white.
"""

from __future__ import annotations

import math

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torch import Tensor, nn

from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.interpolant import Interpolant
from diamond.mixture import GaussianMixtureFlow
from diamond.model import Model
from diamond.nets import Network, ResidualMLP, Whitened, grow
from diamond.randomness import seeded

from .training.batches import Batches

__all__ = ["flow_of", "frozen", "perceptron", "perceptron_for", "student_of"]


@contextmanager
def frozen(source: Model | None) -> Iterator[None]:
    """The teacher in evaluation mode and without gradients, until the end."""
    wanted = {} if source is None else {p: p.requires_grad for p in source.parameters()}
    modes = {} if source is None else {module: module.training for module in source.modules()}
    try:
        if source is not None:
            source.eval().requires_grad_(False)
        yield
    finally:
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)
        for module, mode in modes.items():
            module.training = mode


def flow_of(teacher: Model | None) -> Model | None:
    """The flow or mixture that `teacher` is, or that the GLASS flow is made of; None for None.

    Raises:
        ValueError: it is something else.
    """
    if teacher is None:
        return None
    flow = teacher.flow if isinstance(teacher, GlassFlow) else teacher
    if not isinstance(flow, (Flow, GaussianMixtureFlow)):
        raise ValueError(f"teacher: got a {type(flow).__name__}, expected a Flow, a GlassFlow or a GaussianMixtureFlow")
    return flow


def student_of(source: Model, seed: int, states: int, times: int) -> nn.Module:
    """The network of a flow, grown by further `states` and `times`, or a perceptron for a mixture.

    Raises:
        ValueError: the flow's network cannot grow, or predicts something else than the velocity.
    """
    if isinstance(source, Flow):
        if source.prediction != "velocity" or not isinstance(source.net, Network):
            raise ValueError(
                "net: got None, but the teacher's network cannot grow into a map's: it is not one of diamond.nets that "
                "predicts the velocity; expected a network made with the further states and times, like "
                f"diamond.nets.ResidualMLP({source.event_shape}, states={states}, times={times}) as net="
            )
        with seeded(seed):
            return grow(source.net, states, times)
    return perceptron_for(Batches(source), source.interpolant, seed, width=128, states=states, times=times)


def perceptron_for(
    batches: Batches, interpolant: Interpolant | None, seed: int, width: int = 256, **inputs: int
) -> Network:
    """A perceptron for the events and classes of `batches`, a few thousand of whose samples tell the mean and covariance.
    `inputs` are those of a map."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        samples, _ = batches.draw(4096, generator)
        return perceptron(samples.cpu(), interpolant, width, classes=batches.classes, **inputs)


def perceptron(
    samples: Tensor, interpolant: Interpolant | None, width: int = 256, depth: int = 3, **inputs: int
) -> Network:
    """A fresh perceptron in the coordinates in which `samples` `(N, *event)` are white; `inputs` are its `classes`, and a
    map's `states` and `times`."""
    event_shape = tuple(samples.shape[1:])
    inner = ResidualMLP((math.prod(event_shape),), width, depth, **inputs)
    return Whitened(inner, event_shape, interpolant, samples)
