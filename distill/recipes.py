r"""From data to a flow model, and from a flow model to its maps.

**Diamond Map.** With data :math:`z`, an outer look :math:`x_t` and an inner look :math:`\bar x_s` of independent
noises, the map is trained on two identities of the GLASS posterior flow, whose velocity a frozen teacher gives
(:mod:`distill.losses`): its diagonal :math:`s = r`, and the Lagrangian identity, or another, off it. All residuals are
measured in units of the noise that is left, :math:`w = (1 - r) / \sigma_{t_*(r, t)}`: the inner velocity has the scale
:math:`\sigma_{t_*} / (1 - r)`, and at late t a posterior much narrower than the data would otherwise go unnoticed.

**Flow map.** The same two identities, for the probability-flow ODE itself.

**Data alone.** The velocity on the diagonal is a mean, which a regression on data finds: :math:`E[z - \bar\epsilon \mid
\bar x_s, x_t]`, the noise of the inner look being :math:`\bar\epsilon`. Then no teacher is needed, and off the diagonal
the map's own diagonal stands for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.interpolant import Interpolant
from diamond.mixture import GaussianMixtureFlow
from diamond.model import Model
from diamond.nets import labels_of

from .compatibility import check_fit, check_metadata, check_path
from .objectives import FlowObjective, MapObjective
from .perceptual import Perceptual
from .shares import shares_of, usual_loss
from .students import flow_of, frozen, perceptron_for, student_of
from .training.batches import Batches
from .training.fitness import classes_in
from .training.trainer import Schedule, train

__all__ = ["distill", "distill_flow_map", "train_flow"]

OF_DATA = ("data", "size")  # what a teacher's metadata say of its data, which are the map's as well


def train_flow(
    data: Any,
    net: nn.Module | None = None,
    *,
    steps: int = 1200,
    labels: Tensor | None = None,
    label_dropout: float = 0.0,
    flip: bool = False,
    workers: int = 0,
    interpolant: Interpolant | None = None,
    prediction: str = "velocity",
    times: str = "uniform",
    metadata: dict | None = None,
    **training: Any,
) -> Flow:
    """Trains a flow model by flow matching.

    Arguments:
        data: a floating tensor `(N, *event)`, a torch Dataset, map-style or iterable, or an exact mixture to sample: see
            :class:`distill.training.batches.Batches`.
        net: the network, trained in place; a perceptron in the data's whitened coordinates by default, with classes
            where there are `labels`.
        steps: optimiser steps.
        labels: class labels `(N,)`, whole numbers from 0 on, to go with a tensor, for a network with classes; the default
            one's last class is the largest label.
        label_dropout: probability of leaving a label out, so that the network learns the unconditional law as well and
            can be guided.
        flip: whether to mirror images left to right at random.
        workers: processes that fetch the items of a Dataset ahead.
        interpolant: the path, linear by default.
        prediction: what the network gives: "velocity", "denoiser" or "noise".
        times: the law of the times: "uniform", "logit-normal" or "early": see :mod:`distill.times`.
        metadata: what to note in the file.
        training: further fields of :class:`distill.training.trainer.Schedule`: `batch`, `learning_rate`, `warmup`, `ema`,
            `clip`, `seed`, `accumulate`, `precision`, `optimizer`; and options of :func:`distill.training.trainer.train`:
            `out`, a file to save the model to, beside which metrics and an interrupted run's state stand, `resume`,
            `save_every`, `keep`, `log_every`, `log_with`, `sample_every`, `compiled`, `progress`, `accelerator`.

    Raises:
        ValueError: data, labels or settings that do not fit.
    """
    check_path(interpolant)
    noted = check_metadata(metadata)
    plan, options = _planned(steps, training)
    batches = _batches(net, data, labels, label_dropout=label_dropout, flip=flip, workers=workers)
    if net is None:
        net = perceptron_for(batches, interpolant, plan.seed)
    flow = Flow(net, interpolant, batches.event_shape, prediction)
    flow.metadata = {**noted, **_learned(net, label_dropout), "steps": steps, "seed": plan.seed}
    check_fit(flow, batches)
    return train(flow, FlowObjective(times), batches, plan, description="train flow", **options)


def distill(
    teacher: Model | None,
    data: Any = None,
    net: nn.Module | None = None,
    loss: str = "",
    *,
    supervision: str = "teacher",
    weighting: str | None = None,
    times: str = "early",
    interpolant: Interpolant | None = None,
    steps: int = 4000,
    labels: Tensor | None = None,
    off_diagonal: float | None = None,
    from_zero: float | None = None,
    to_one: float | None = None,
    points: int = 8,
    perceptual: Perceptual | None = None,
    from_noise: float = 0.0,
    **training: Any,
) -> DiamondMap:
    """Distils the GLASS flow of `teacher` into a Diamond Map, or trains one from data alone.

    Arguments:
        teacher: a :class:`~diamond.Flow`, a :class:`~diamond.GlassFlow` or a :class:`~diamond.GaussianMixtureFlow`; it
            is frozen, and asked for its denoiser only. May be None with `supervision="data"`.
        data: as in :func:`train_flow`; a mixture's own samples by default.
        net: the map's network (`states=1, times=3`); by default the teacher's own, grown by the new inputs, so that
            the map starts as the teacher on its diagonal, or a small one for a mixture; without a teacher, a perceptron
            in the data's whitened coordinates.
        loss: what holds off the diagonal `s = r`, where the map jumps from `s` to a later `r`: "trajectory", a regression
            on the teacher's integrated flow, which made the best maps for the same work
            (`examples/benchmarks/distillation.py`) and is the usual one with a teacher; "lsd", the Lagrangian identity,
            the usual one without; "esd", the Eulerian; "psd", the semigroup; or "meanflow", that of the mean velocity.
            See :mod:`distill.losses`.
        supervision: what tells the velocity: "teacher", or "data": then a teacher is never asked, and gives no more than
            its path and the network to start from.
        weighting: how samples count: None, alike; "adaptive", by their own loss; or "learned", by their times: see
            :mod:`distill.weighting`.
        times: the law of times: "uniform", "logit-normal" or "early", which paid on images: see :mod:`distill.times`.
        interpolant: the path where there is no teacher to say it, linear by default.
        off_diagonal: share of a batch that goes off the diagonal, where the loss has a usual one, half for most: see
            :mod:`distill.shares`; the rest goes to the diagonal.
        from_zero: share of the former that starts at s = 0; likewise.
        to_one: share of it that ends at r = 1; likewise.
        points: of "trajectory", steps of Heun's method from s = 0 to 1, at jittered times.
        perceptual: of "trajectory", further distances of clean samples: see :class:`distill.Perceptual`.
        from_noise: share of the batch at t = 0, where samples are made from noise alone; not for "esd" and "meanflow".
        steps, labels, training: as in :func:`train_flow` (`label_dropout`, `flip`, `out` and the like among them), but
            for a learning rate of 2e-3. A teacher that tells the velocity must know the labels.

    Raises:
        ValueError: a teacher, data, or settings that do not fit.
    """
    source = flow_of(teacher)
    objective = MapObjective(
        source,
        loss,
        off_diagonal,
        from_zero,
        to_one,
        points,
        supervision,
        weighting,
        times,
        perceptual,
        from_noise,
    )
    return _distil(
        DiamondMap, {"states": 1, "times": 3}, source, interpolant, data, net, labels, objective, steps, "distil",
        **training,
    )  # fmt: skip


def distill_flow_map(
    teacher: Model | None,
    data: Any = None,
    net: nn.Module | None = None,
    loss: str = "",
    *,
    supervision: str = "teacher",
    weighting: str | None = None,
    times: str = "uniform",
    interpolant: Interpolant | None = None,
    steps: int = 4000,
    labels: Tensor | None = None,
    off_diagonal: float | None = None,
    from_zero: float | None = None,
    to_one: float | None = None,
    **training: Any,
) -> FlowMap:
    """Distils the probability-flow ODE of `teacher` into a deterministic flow map, or trains one from data alone;
    arguments as in :func:`distill`, but for `points`, `perceptual` and `from_noise`, with a network made with `times=1`,
    and uniform times. Because a look-ahead starts at any time, at most half of the pairs start at 0 by default."""
    source = flow_of(teacher)
    if from_zero is None:
        from_zero = min(0.5, shares_of(loss or usual_loss(supervision), to_one=to_one).from_zero)
    objective = MapObjective(
        source, loss, off_diagonal, from_zero, to_one, supervision=supervision, weighting=weighting, times=times
    )
    return _distil(
        FlowMap, {"states": 0, "times": 1}, source, interpolant, data, net, labels, objective, steps, "distil flow map",
        **training,
    )  # fmt: skip


def _distil(
    kind: Callable[[nn.Module, Interpolant | None, tuple[int, ...]], Any],
    inputs: dict[str, int],
    source: Model | None,
    interpolant: Interpolant | None,
    data: Any,
    net: nn.Module | None,
    labels: Tensor | None,
    objective: MapObjective,
    steps: int,
    description: str,
    *,
    label_dropout: float = 0.0,
    flip: bool = False,
    workers: int = 0,
    metadata: dict | None = None,
    **training: Any,
) -> Any:
    check_path(interpolant)
    noted = check_metadata(metadata)
    plan, options = _planned(steps, {"learning_rate": 2e-3, **training})
    if data is None:
        if not isinstance(source, GaussianMixtureFlow):
            raise ValueError(
                "data: got None, but only a mixture teacher can be sampled for data; expected a tensor or Dataset"
            )
        data = source
    if source is not None:
        if interpolant is not None:
            raise ValueError(f"interpolant: got {interpolant} beside a teacher, which has its own path, expected None")
        if labels is not None and objective.supervision == "teacher" and not labels_of(source)[0]:
            raise ValueError(
                "labels: got some beside a teacher without classes; train the teacher with labels, or leave them out"
            )
        interpolant, net = source.interpolant, net or student_of(source, plan.seed, **inputs)
    batches = _batches(net, data, labels, label_dropout=label_dropout, flip=flip, workers=workers)
    if net is None:
        net = perceptron_for(batches, interpolant, plan.seed, **inputs)
    model = kind(net, interpolant, batches.event_shape if source is None else source.event_shape)
    check_fit(model, batches, source if objective.supervision == "teacher" else None, **inputs)
    known = {} if source is None else {name: source.metadata[name] for name in OF_DATA if name in source.metadata}
    model.metadata = {
        **known, **noted, **_learned(net, label_dropout), "loss": objective.loss,
        "supervision": objective.supervision, "steps": steps, "seed": plan.seed,
    }  # fmt: skip
    with frozen(source):
        return train(model, objective, batches, plan, description=description, **options)


def _planned(steps: int, training: dict[str, Any]) -> tuple[Schedule, dict[str, Any]]:
    """The schedule among the options of training, and those that are the trainer's."""
    known = {field.name for field in fields(Schedule)}
    plan = Schedule(steps=steps, **{name: value for name, value in training.items() if name in known})
    return plan, {name: value for name, value in training.items() if name not in known}


def _batches(net: Any, data: Any, labels: Tensor | None, *, label_dropout: float, **options: Any) -> Batches:
    """The data as the network takes them: with labels if it was made with classes, or is yet to be made for them."""
    classes, no_label = labels_of(net)
    if net is None and labels is not None:
        classes = no_label = classes_in(labels)
    if label_dropout and classes and no_label is None:
        raise ValueError(f"label_dropout: got {label_dropout}, but the network knows no label for none, expected 0")
    return Batches(data, labels, classes, no_label=no_label, label_dropout=label_dropout, **options)


def _learned(net: nn.Module, label_dropout: float) -> dict[str, float]:
    """What the file notes of labels: whether the network learned to go without them."""
    return {"label_dropout": label_dropout} if labels_of(net)[0] else {}
