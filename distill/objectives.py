r"""What one training step looks at: times and noises drawn, and the residuals of :mod:`distill.losses` there.

An objective first prepares a batch, with the teacher's help and without the student's weights, and then gives its terms
by name, scalars to be added, for as many steps as it says a preparation is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from torch import Tensor, nn

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.model import Model
from diamond.randomness import normal, uniform
from diamond.validation import check_choice, check_positive, check_share

from .fingerprints import fingerprint_of_model
from .joint import Jointly, joint_map
from .losses import Displace, Velocity, diagonal, endpoint, eulerian, flow_matching, lagrangian, mean_flow, two_hops
from .pairs import Pairs, pairs_along
from .perceptual import Perceptual
from .problems import FlowProblem, PosteriorProblem, Problem, trajectory
from .shares import LOSSES, Shares, shares_of, usual_loss
from .times import LATEST, QUANTILES, draw_times, inner_grid, inner_pairs
from .weighting import Weighting, make_weighting

__all__ = ["FlowObjective", "MapObjective", "Objective"]


class Objective(Protocol):
    """What the trainer minimises."""

    @property
    def reuse(self) -> int:
        """For how many steps one preparation serves."""

    @property
    def module(self) -> nn.Module | None:
        """What has weights of its own, to be trained with the model's; None where nothing has."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must have in common with one that it resumes, as JSON values."""

    def prepare(self, model: Any, z: Tensor, cond: Any, generator: torch.Generator) -> Any:
        """Whatever of a step does not depend on the student's weights."""

    def __call__(self, model: Any, prepared: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the loss by name."""


@dataclass(frozen=True)
class FlowObjective:
    """Flow matching at times of the law `times`: see :mod:`distill.times`."""

    times: str = "uniform"
    reuse: int = field(init=False, default=1)
    module: nn.Module | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_choice("times", self.times, QUANTILES)

    @property
    def settings(self) -> dict[str, Any]:
        return {"loss": "flow matching", "times": self.times}

    def prepare(self, model: Flow, z: Tensor, cond: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        return z, cond

    def __call__(self, model: Flow, prepared: tuple[Tensor, Any], generator: torch.Generator) -> dict[str, Tensor]:
        z, cond = prepared
        t = draw_times(self.times, len(z), generator, z.device)
        return {"flow_matching": flow_matching(model, z, noise_like(z, generator), t, cond).mean()}


class Prepared(NamedTuple):
    """A batch `z` with its problem; and, where wanted, the teacher's trajectories `(K + 1, B, *event)` on `(B, K + 1)`."""

    problem: Problem
    z: Tensor
    grid: Tensor | None = None
    states: Tensor | None = None


@dataclass(frozen=True)
class MapObjective:
    """The diagonal of a Diamond Map or a flow map, and what holds off it.

    Attributes:
        teacher: the frozen model; None where data alone supervise.
        loss: "lsd", the Lagrangian identity; "esd", the Eulerian; "psd", the semigroup; "meanflow", that of the mean
            velocity; or "trajectory", a regression on the teacher's ODE, integrated once for `reuse` steps of the
            student. See :mod:`distill.losses`. The last by default, and the first without a teacher.
        off_diagonal, from_zero, to_one: shares of the batch, in place of the usual ones: see :mod:`distill.shares`.
        points: steps of the teacher's ODE.
        supervision: "teacher", or "data": then the diagonal is flow matching, and the map's own diagonal, with a stopped
            gradient, stands for the teacher everywhere else.
        weighting: None, "adaptive" or "learned": see :mod:`distill.weighting`.
        times: the law of the outer times, of those on the diagonal, and of the pairs off it that lie on neither edge:
            "uniform", "logit-normal" or "early": see :mod:`distill.times`.
        perceptual: with loss="trajectory", further distances of its clean ends: see :mod:`distill.perceptual`.
        from_noise: for a Diamond Map, share of the batch whose outer time is 0, where samples are made from noise alone.

    Raises:
        ValueError: an unknown name, a share outside [0, 1], or settings that contradict each other.
    """

    teacher: Model | None
    loss: str = ""
    off_diagonal: float | None = None
    from_zero: float | None = None
    to_one: float | None = None
    points: int = 8
    supervision: str = "teacher"
    weighting: str | None = None
    times: str = "uniform"
    perceptual: Perceptual | None = None
    from_noise: float = 0.0
    reuse: int = field(init=False, default=1)
    shares: Shares = field(init=False)
    weigh: Weighting | None = field(init=False, default=None, compare=False)

    def __post_init__(self) -> None:
        check_choice("supervision", self.supervision, ("teacher", "data"))
        object.__setattr__(self, "loss", self.loss or usual_loss(self.supervision))
        given = {name: getattr(self, name) for name in Shares._fields}
        object.__setattr__(self, "shares", shares_of(self.loss, **given))
        check_choice("times", self.times, QUANTILES)
        if self.supervision == "teacher" and self.teacher is None:
            raise ValueError("teacher: got None, expected a flow model, or supervision='data'")
        if self.supervision == "data" and self.loss == "trajectory":
            raise ValueError(
                "supervision: got 'data' with loss='trajectory', which follows a teacher's ODE; expected 'teacher', or "
                f"one of the losses {', '.join(name for name in LOSSES if name != 'trajectory')}"
            )
        object.__setattr__(self, "from_noise", check_share("from_noise", self.from_noise))
        check_positive("points", self.points)
        if self.from_noise and self.loss in ("esd", "meanflow"):
            raise ValueError(
                f"from_noise: got {self.from_noise} with loss={self.loss!r}, which differentiates in s: at s = t = 0 a "
                "map has no derivative in it; expected 0"
            )
        if not isinstance(self.perceptual, Perceptual | None):
            raise ValueError(
                f"perceptual: got {type(self.perceptual).__name__}, expected a distill.Perceptual of features, or None"
            )
        if self.perceptual is not None and self.loss != "trajectory":
            raise ValueError(
                f"perceptual: got a distance with loss={self.loss!r}, expected it with loss='trajectory' alone"
            )
        if self.perceptual is not None and not (self.shares.from_zero and self.shares.off_diagonal):
            raise ValueError(
                f"perceptual: got a distance with off_diagonal={self.shares.off_diagonal:g} and "
                f"from_zero={self.shares.from_zero:g}, where no pair goes from noise to data, expected both above 0"
            )
        object.__setattr__(self, "reuse", 8 if self.loss == "trajectory" else 1)
        object.__setattr__(self, "weigh", make_weighting(self.weighting))

    @property
    def module(self) -> nn.Module | None:
        """What has weights of its own, to be trained with the model's."""
        return self.weigh if isinstance(self.weigh, nn.Module) else None

    @property
    def source(self) -> Model | None:
        """The teacher, if it is asked for more than a path."""
        return self.teacher if self.supervision == "teacher" else None

    @property
    def settings(self) -> dict[str, Any]:
        names = ("loss", "supervision", "points", "weighting", "times", "from_noise")
        known = None if self.source is None else fingerprint_of_model(self.source)
        seen = {} if self.perceptual is None else {"perceptual": self.perceptual.settings}
        return {"teacher": known, **{name: getattr(self, name) for name in names}, **self.shares._asdict(), **seen}

    def prepare(self, model: DiamondMap | FlowMap, z: Tensor, cond: Any, generator: torch.Generator) -> Prepared:
        problem = self._problem(model, z, cond, generator)
        if self.loss != "trajectory":
            return Prepared(problem, z)
        if self.perceptual is not None:
            self.perceptual.to(z.device)
        rows = slice(0, self._split(z))
        grid = inner_grid(rows.stop, self.points, generator, z.device)
        return Prepared(problem, z, grid, trajectory(problem.rows(rows), noise_like(z[rows], generator), grid))

    def __call__(
        self, model: DiamondMap | FlowMap, prepared: Prepared, generator: torch.Generator
    ) -> dict[str, Tensor]:
        problem, z, off = prepared.problem, prepared.z, self._split(prepared.z)
        first, last = problem.rows(slice(0, off)), problem.rows(slice(off, len(z)))
        pairs = self._pairs(first, prepared, generator) if off else None
        s = draw_times(self.times, len(z) - off, generator, z.device, LATEST)
        noise = noise_like(z[off:], generator)
        x = last.start(z[off:], noise, s)
        displace, slope = joint_map(problem, off, x, s)
        velocity = Jointly(problem.velocity, last.velocity, x, s)
        terms: dict[str, Tensor] = {}
        common: dict[str, Tensor] = {}
        if pairs is not None:
            terms[self.loss], common = self._identity(first, pairs, displace, velocity)
        if off < len(z):
            target = last.conditional(z[off:], noise, s) if self.supervision == "data" else velocity.rest()
            terms["diagonal"] = self._weighed(diagonal(slope, last.weight, x, s, target), last, s, s)
        return {**{name: losses.sum() / len(z) for name, losses in terms.items()}, **common}

    def _split(self, z: Tensor) -> int:
        """How many of the rows go off the diagonal: some, and not all, where the share says so.

        Raises:
            ValueError: there is one row, for both kinds.
        """
        share = self.shares.off_diagonal
        off = min(max(round(len(z) * share), int(share > 0)), len(z) - int(share < 1))
        if len(z) == 1 and 0 < share < 1:
            raise ValueError(
                f"batch: got parts of one sample, of which off_diagonal={share:g} cannot go off the diagonal; expected parts "
                "of two or more, a larger batch or a smaller accumulate"
            )
        return off

    def _problem(
        self, model: DiamondMap | FlowMap, z: Tensor, cond: Any, generator: torch.Generator
    ) -> PosteriorProblem | FlowProblem:
        if isinstance(model, FlowMap):
            return FlowProblem(self.source, model, cond)
        t = draw_times(self.times, len(z), generator, z.device)
        if self.from_noise:
            t = torch.where(uniform(t.shape, generator, device=z.device) < self.from_noise, 0, t)
        x_t = model.interpolant.interpolate(z, noise_like(z, generator), t)
        return PosteriorProblem(self.source, model, x_t, t, cond)

    def _pairs(self, part: Problem, prepared: Prepared, generator: torch.Generator) -> Pairs:
        _, from_zero, to_one = self.shares
        if prepared.grid is not None and prepared.states is not None:
            return pairs_along(prepared.states, prepared.grid, from_zero, generator)
        z = prepared.z[: self._split(prepared.z)]
        s, r = inner_pairs(len(z), from_zero, generator, z.device, to_one=to_one, law=self.times)
        noise = noise_like(z, generator)
        x = part.start(z, noise, s)
        if self.loss == "psd":
            m = torch.lerp(s, r, uniform(s.shape, generator, device=s.device))
            return Pairs(x, s, r, two_hops(part.displace, x, s, m, r))
        return Pairs(x, s, r.clamp_max(LATEST) if self.loss == "lsd" else r, part.conditional(z, noise, s))

    def _identity(
        self, part: Problem, pairs: Pairs, displace: Displace, velocity: Velocity
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss off the diagonal, weighed, `(B,)`, and what is said of all rows together. By data the map's own velocity
        stands for the teacher's, or, for MeanFlow, that of the path."""
        x, s, r, known, ends = pairs
        common = {}
        by_data = self.supervision == "data"
        velocity = part.velocity if by_data else velocity
        if self.loss == "lsd":
            losses = lagrangian(part.displace, velocity, part.weight, x, s, r)
        elif self.loss == "esd":
            losses = eulerian(part.displace, part.weight, x, s, r, velocity(x, s))
        elif self.loss == "meanflow":
            losses = mean_flow(part.displace, part.weight, x, s, r, known if by_data else velocity(x, s))
        else:
            moved = displace(x, s, r)
            losses = endpoint(moved, part.weight, s, r, known, self.perceptual, ends)
            if self.perceptual is not None and self.perceptual.law:
                t = part.times(s, r)[ends, 2]
                common["discrepancy"] = self.perceptual.discrepancy(moved[ends], known[ends], t)
        return self._weighed(losses, part, s, r), common

    def _weighed(self, losses: Tensor, part: Problem, s: Tensor, r: Tensor) -> Tensor:
        return losses if self.weigh is None else self.weigh(losses, part.times(s, r))


def noise_like(z: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, type and device of `z`."""
    return normal(z.shape, generator, device=z.device, dtype=z.dtype)
