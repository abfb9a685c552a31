r"""From data to a flow model, and from a flow model to its maps.

**Diamond Map.** With data :math:`z`, an outer look :math:`x_t` and an inner look :math:`\bar x_s` of independent
noises, the map is trained on two identities of the GLASS posterior flow, whose velocity a frozen teacher gives
(:mod:`distill.losses`): its diagonal :math:`s = r`, and the Lagrangian identity off it. Both residuals are measured in
units of the noise that is left, :math:`w = (1 - r) / \sigma_{t_*(r, t)}`: the inner velocity has the scale
:math:`\sigma_{t_*} / (1 - r)`, and at late t a posterior much narrower than the data would otherwise go unnoticed.

**Flow map.** The same two identities, for the probability-flow ODE itself.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from diamond.nets import ResidualMLP, grow

from .batches import Batches
from .objectives import DiamondObjective, FlowMapObjective, FlowObjective
from .trainer import Schedule, train

__all__ = ["distill", "distill_flow_map", "train_flow"]


def train_flow(
    data: Any,
    net: nn.Module | None = None,
    *,
    steps: int = 3000,
    labels: Tensor | None = None,
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
        net: the network, a :class:`~diamond.nets.ResidualMLP` by default; trained in place.
        steps: optimiser steps.
        labels: class labels `(N,)` to go with a tensor, for a network with classes.
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
    batches = Batches(data, labels, conditional=bool(getattr(net, "config", {}).get("classes", 0)))
    if net is None:
        with seeded(plan.seed):
            net = ResidualMLP(batches.event_shape)
    flow = Flow(net, interpolant, batches.event_shape, prediction)
    flow.metadata = {**(metadata or {}), "steps": steps, "seed": plan.seed}
    _check_fit(flow, batches)
    train(
        flow, FlowObjective(), batches, plan, out=out, resume=resume, progress=progress, description="train flow",
        accelerator=accelerator,
    )  # fmt: skip
    if out is not None:
        flow.save(out)
    return flow


def distill(
    teacher: Model,
    data: Any = None,
    net: nn.Module | None = None,
    loss: str = "lsd",
    *,
    steps: int = 4000,
    labels: Tensor | None = None,
    off_diagonal: float = 0.5,
    from_zero: float = 0.5,
    out: str | Path | None = None,
    metadata: dict | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
    resume: bool = True,
    **schedule: Any,
) -> DiamondMap:
    """Distils the GLASS flow of `teacher` into a Diamond Map.

    Arguments:
        teacher: a :class:`~diamond.Flow`, a :class:`~diamond.GlassFlow` or a :class:`~diamond.GaussianMixtureFlow`; it
            is frozen, and asked for its denoiser only.
        data: as in :func:`train_flow`; a mixture teacher's own samples by default.
        net: the map's network (`states=1, times=3`); by default the teacher's own, grown by the new inputs, so that
            the map starts as the teacher on its diagonal, or a :class:`~diamond.nets.ResidualMLP` for a mixture.
        loss: what holds off the diagonal: "lsd", the Lagrangian identity.
        off_diagonal: share of a batch that goes to it; the rest goes to the diagonal.
        from_zero: share of the former that starts at s = 0.
        steps, labels, out, metadata, accelerator, progress, resume, schedule: as in :func:`train_flow`.

    Raises:
        ValueError: a teacher, data, or settings that do not fit.
    """
    plan = Schedule(steps=steps, **schedule)
    flow = _teacher(teacher)
    batches = _batches(flow, data, labels, net)
    model = DiamondMap(net or _student(flow, plan.seed, states=1, times=3), flow.interpolant, flow.event_shape)
    model.metadata = {**(metadata or {}), "loss": loss, "steps": steps, "seed": plan.seed}
    _check_fit(model, batches)
    objective = DiamondObjective(flow, loss, off_diagonal, from_zero)
    train(
        model, objective, batches, plan, out=out, resume=resume, progress=progress, description="distill",
        accelerator=accelerator,
    )  # fmt: skip
    if out is not None:
        model.save(out)
    return model
