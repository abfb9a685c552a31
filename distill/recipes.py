r"""From data to a flow model, and from a flow model to its maps.

**Diamond Map.** With data :math:`z`, an outer look :math:`x_t` and an inner look :math:`\bar x_s` of independent
noises, the map is trained on two identities of the GLASS posterior flow, whose velocity a frozen teacher gives
(:mod:`distill.losses`): its diagonal :math:`s = r`, and the Lagrangian identity off it. Both residuals are measured in
units of the noise that is left, :math:`w = (1 - r) / \sigma_{t_*(r, t)}`: the inner velocity has the scale
:math:`\sigma_{t_*} / (1 - r)`, and at late t a posterior much narrower than the data would otherwise go unnoticed.

**Flow map.** The same two identities, for the probability-flow ODE itself.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from accelerate import Accelerator
from torch import Tensor, nn

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import Interpolant
from diamond.mixture import GaussianMixtureFlow
from diamond.model import Model
from diamond.nets import Network, ResidualMLP, Whitened, grow

from .batches import Batches
from .objectives import FlowObjective, MapObjective
from .trainer import Schedule, train

__all__ = ["distill", "distill_flow_map", "train_flow"]


def train_flow(
    data: Any,
    net: nn.Module | None = None,
    *,
    steps: int = 1200,
    labels: Tensor | None = None,
    label_dropout: float = 0.0,
    flip: bool = False,
    interpolant: Interpolant | None = None,
    prediction: str = "velocity",
    out: str | Path | None = None,
    metadata: dict | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
    resume: bool = True,
    **schedule: Any,
) -> Flow:
    """Trains a flow model by flow matching.

    Arguments:
        data: a floating tensor `(N, *event)`, a map-style torch Dataset, or an exact mixture to sample.
        net: the network, trained in place; a perceptron in the data's whitened coordinates by default.
        steps: optimiser steps.
        labels: class labels `(N,)` to go with a tensor, for a network with classes.
        label_dropout: probability of leaving a label out, so that the network learns the unconditional law as well and
            can be guided.
        flip: whether to mirror images left to right at random.
        interpolant: the path, linear by default.
        prediction: what the network gives: "velocity", "denoiser" or "noise".
        out: a file to save the model to; metrics and an interrupted run's state stand beside it.
        metadata: what to note in the file.
        accelerator: devices, processes and precision.
        progress, resume: as in :func:`distill.trainer.train`.
        schedule: further fields of :class:`distill.trainer.Schedule`: `batch`, `learning_rate`, `warmup`, `ema`,
            `clip`, `seed`.

    Raises:
        ValueError: data, labels or settings that do not fit.
    """
    plan = Schedule(steps=steps, **schedule)
    batches = Batches(data, labels, _classes_of(net), label_dropout=label_dropout, flip=flip)
    if net is None:
        net = _network_for(batches, interpolant, plan.seed)
    flow = Flow(net, interpolant, batches.event_shape, prediction)
    flow.metadata = {**(metadata or {}), "steps": steps, "seed": plan.seed}
    _check_fit(flow, batches)
    train(
        flow, FlowObjective(), batches, plan, out=out, resume=resume, progress=progress, description="train flow",
        accelerator=accelerator,
    )  # fmt: skip
    return flow


def distill(
    teacher: Model,
    data: Any = None,
    net: nn.Module | None = None,
    loss: str = "lsd",
    *,
    steps: int = 4000,
    labels: Tensor | None = None,
    off_diagonal: float | None = None,
    from_zero: float = 0.8,
    **training: Any,
) -> DiamondMap:
    """Distils the GLASS flow of `teacher` into a Diamond Map.

    Arguments:
        teacher: a :class:`~diamond.Flow`, a :class:`~diamond.GlassFlow` or a :class:`~diamond.GaussianMixtureFlow`; it
            is frozen, and asked for its denoiser only.
        data: as in :func:`train_flow`; a mixture's own samples by default.
        net: the map's network (`states=1, times=3`); by default the teacher's own, grown by the new inputs, so that
            the map starts as the teacher on its diagonal, or a small one for a mixture.
        loss: what holds off the diagonal: "lsd", the Lagrangian identity; or "trajectory", a regression on the teacher's
            integrated flow: faster for a small network whose teacher costs no more than it does.
        off_diagonal: share of a batch that goes to it, half by default, or nine tenths for trajectories; the rest goes
            to the diagonal.
        from_zero: share of the former that starts at s = 0.
        steps, labels, training: as in :func:`train_flow` (`label_dropout`, `flip`, `out` and the like among them), but
            for a learning rate of 2e-3.

    Raises:
        ValueError: a teacher, data, or settings that do not fit.
    """
    source = _flow_of(teacher)
    return _distil(
        lambda seed: DiamondMap(
            net or _student(source, seed, states=1, times=3), source.interpolant, source.event_shape
        ),
        source, data, labels, MapObjective(source, loss, off_diagonal, from_zero), steps, "distil", **training,
    )  # fmt: skip


def distill_flow_map(
    teacher: Model,
    data: Any = None,
    net: nn.Module | None = None,
    loss: str = "lsd",
    *,
    steps: int = 4000,
    labels: Tensor | None = None,
    off_diagonal: float | None = None,
    from_zero: float = 0.5,
    **training: Any,
) -> FlowMap:
    """Distils the probability-flow ODE of `teacher` into a deterministic flow map; arguments as in :func:`distill`,
    with a network made with `times=1`."""
    source = _flow_of(teacher)
    return _distil(
        lambda seed: FlowMap(net or _student(source, seed, states=0, times=1), source.interpolant, source.event_shape),
        source, data, labels, MapObjective(source, loss, off_diagonal, from_zero), steps, "distil flow map", **training,
    )  # fmt: skip


def _distil(
    make: Callable[[int], Any],
    source: Model,
    data: Any,
    labels: Tensor | None,
    objective: MapObjective,
    steps: int,
    description: str,
    *,
    label_dropout: float = 0.0,
    flip: bool = False,
    out: str | Path | None = None,
    metadata: dict | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
    resume: bool = True,
    **schedule: Any,
) -> Any:
    plan = Schedule(steps=steps, **{"learning_rate": 2e-3, **schedule})
    if data is None:
        if not isinstance(source, GaussianMixtureFlow):
            raise ValueError(
                "data: got None, but only a mixture teacher can be sampled for data; expected a tensor or Dataset"
            )
        data = source
    model = make(plan.seed)
    batches = Batches(data, labels, _classes_of(model.net), label_dropout=label_dropout, flip=flip)
    _check_fit(model, batches)
    model.metadata = {**source.metadata, **(metadata or {}), "steps": steps, "seed": plan.seed}
    wanted = {p: p.requires_grad for p in source.parameters()}
    try:
        source.eval().requires_grad_(False)
        train(
            model, objective, batches, plan, out=out, resume=resume, progress=progress, description=description,
            accelerator=accelerator,
        )  # fmt: skip
    finally:
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)
    return model


def _flow_of(teacher: Model) -> Model:
    flow = teacher.flow if isinstance(teacher, GlassFlow) else teacher
    if not isinstance(flow, (Flow, GaussianMixtureFlow)):
        raise ValueError(f"teacher: got a {type(flow).__name__}, expected a Flow, a GlassFlow or a GaussianMixtureFlow")
    return flow


def _student(source: Model, seed: int, states: int, times: int) -> nn.Module:
    if isinstance(source, Flow):
        if source.prediction != "velocity" or not isinstance(source.net, Network):
            raise ValueError(
                "net: got None, but the teacher's network cannot grow into a map's: it is not one of diamond.nets that "
                "predicts the velocity; expected a network made with the further states and times"
            )
        with seeded(seed):
            return grow(source.net, states, times)
    return _network_for(Batches(source), source.interpolant, seed, width=128, states=states, times=times)


def _network_for(
    batches: Batches, interpolant: Interpolant | None, seed: int, width: int = 256, **inputs: int
) -> Network:
    """A perceptron in whitened coordinates; a few thousand samples tell the mean and covariance."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        inner = ResidualMLP((math.prod(batches.event_shape),), width, **inputs)
        return Whitened(inner, batches.event_shape, interpolant, batches.draw(4096, generator)[0])


def _classes_of(net: Any) -> int:
    """How many classes the network, or one inside it, was made with; 0 without any."""
    parts = net.modules() if isinstance(net, nn.Module) else ()
    return max((classes for part in parts if isinstance(classes := getattr(part, "classes", 0), int)), default=0)


def _check_fit(model: Model, batches: Batches) -> None:
    if model.event_shape != batches.event_shape:
        raise ValueError(f"data: got events of shape {batches.event_shape}, expected the model's, {model.event_shape}")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights are initialised from `seed`, and the global random state is put back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield
