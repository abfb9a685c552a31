r"""What particles are weighted by on their way.

A particle's log-weight at step k is :math:`\Phi_k` plus what its proposals owe, and

.. math:: \Phi_k = \sum_{i \le k} \log G_i, \qquad
          \log G_i = \hat V_i - \hat V_{i-1}, \quad \max_{j \le i} \hat V_j, \quad \textstyle\sum_{j \le i} \hat V_j

for the potentials "diff", "max" and "sum" of Feynman-Kac steering. The first telescopes to :math:`\hat V_k`. At the
end :math:`\Phi = r` whatever it was, so that all three have the same exact law; the latter two press harder on the way,
and owe it back with heavy tails ("sum" most), so that a few particles' evidence mostly falls short of its mean.

References:
    | A General Framework for Inference-time Scaling and Steering of Diffusion Models (Singhal et al., 2025),
    | https://arxiv.org/abs/2501.06848
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch import Tensor

from diamond.model import slice_cond

from .answers import answer_of, checked_numbers, takes_cond
from .draws import row_slices
from .population import Population
from .tempering import Tempering, inverse_temperature, tempered
from .value import draw_rewards, log_mean_weighted, stream_value

__all__ = ["KINDS", "Potentials", "ValueFunction", "value_or"]

ValueFunction = Callable[..., Tensor]  # value(x_t, t) or value(x_t, t, cond) -> (N,)

KINDS = ("diff", "max", "sum")


class Potentials:
    """The potentials of a population's particles as they move.

    Arguments:
        population: whose they are.
        value: the user's value function, or None for the log-mean-exp of `mc` posterior draws.
        mc, antithetic: of these draws.
        tempering: see :mod:`align.tempering`.
        kind: "diff", "max" or "sum".
        keep_draws: whether the draws are kept with their particles, for a proposal that chooses among them.

    Attributes:
        kept: `Phi` of the particles as they stand, `(batch, size)`.
        beta: the last inverse temperature, `(batch, 1)`.
        draws: posterior draws `(mc, rows, *event)` of the particles as they stand, and their rewards `(mc, rows)`.
    """

    def __init__(
        self,
        population: Population,
        value: ValueFunction | None,
        mc: int,
        *,
        antithetic: bool = False,
        tempering: Tempering = None,
        kind: str = "diff",
        keep_draws: bool = False,
        like: Tensor,
    ) -> None:
        self.population, self.tempering, self.kind, self.keep_draws = population, tempering, kind, keep_draws
        self.mc, self.antithetic = mc, antithetic
        self._value = value_or(value, population, mc, antithetic)
        self._given = value is not None
        self.kept = like.new_zeros(population.shape)
        self._pressed = torch.full_like(self.kept, -torch.inf if kind == "max" else 0.0)  # of "max" and "sum"
        self.beta = like.new_full((population.batch, 1), 1.0 if tempering is None else 0.0)
        self.draws: tuple[Tensor, Tensor] | None = None

    def move(self, ancestors: Tensor) -> None:
        """Takes what is kept of each particle to its offspring, `ancestors` `(batch, size)`."""
        take = self.population.take
        self.kept = take(self.kept.flatten(), ancestors).reshape(self.kept.shape)
        if self.kind != "diff":
            self._pressed = take(self._pressed.flatten(), ancestors).reshape(self.kept.shape)
        if self.draws is not None:
            self.draws = take(self.draws[0], ancestors, 1), take(self.draws[1], ancestors, 1)

    def advance(self, x: Tensor, t: float, log_w: Tensor) -> Tensor:
        """`Phi` after and before, as a difference `(batch, size)`, for particles that now stand at `x` at time `t` and
        had log-weights `log_w` `(batch, size)`."""
        values_at = self._values(x, t)
        if self.tempering is not None:
            self.beta = inverse_temperature(
                self.tempering,
                t,
                lambda beta: self.population.gather(log_w + self._press(self._finite(values_at(beta)))[0] - self.kept),
                self.beta,
            )
        before = self.kept
        self.kept, self._pressed = self._press(self._finite(values_at(self.beta)))
        return self.kept - before

    def finish(self, rewards: Tensor) -> Tensor:
        """The last difference `(batch, size)`: from here on `Phi` is the reward itself."""
        before, self.kept = self.kept, rewards
        self.beta = torch.ones_like(self.beta)
        return rewards - before

    def _finite(self, values: Tensor) -> Tensor:
        """:func:`finite` of the whole population's, not of this process's members."""
        return self.population.mine(finite(self.population.gather(values)))

    def _press(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "diff":
            return values, self._pressed
        pressed = torch.maximum(self._pressed, values) if self.kind == "max" else self._pressed + values
        return self.kept + pressed, pressed

    def _values(self, x: Tensor, t: float) -> Callable[[Tensor], Tensor]:
        """The values `(batch, size)` as a function of `beta` `(batch, 1)`."""
        shape = self.population.shape
        if self._given or (self.tempering is None and not self.keep_draws):
            values = self._value(x, t).reshape(shape)
            return lambda beta: values if self.tempering is None else tempered(values, beta)
        kept = x.new_empty((self.mc, *x.shape)) if self.keep_draws else None
        blocks = self.population.blocks(x, t, self.mc, self.antithetic)
        scorer, cond = self.population.scorer, self.population.reward_cond
        rewards, log_weights = draw_rewards(blocks, scorer, x, self.mc, cond, kept)
        if kept is not None:
            self.draws = kept, rewards
        rewards = rewards.reshape(-1, *shape)
        log_weights = None if log_weights is None else log_weights.reshape(-1, *shape)
        return lambda beta: log_mean_weighted(
            rewards if self.tempering is None else tempered(rewards, beta), log_weights
        )


def value_or(
    value: ValueFunction | None, population: Population, mc: int, antithetic: bool = False
) -> Callable[[Tensor, float], Tensor]:
    """The user's value function at one time, `(rows,)`, checked, with the rows' conditioning if it takes that; or the
    log-mean-exp of `mc` posterior draws."""
    if value is None:
        return lambda x, t: stream_value(
            population.blocks(x, t, mc, antithetic), population.scorer, x, mc, population.reward_cond
        )
    if not callable(value):
        raise ValueError(f"value: got {type(value).__name__}, expected a callable value(x_t, t) -> (N,)")

    how, chunks = takes_cond(value, 2), [population.chunk]
    if hasattr(value, "calls"):  # of a reward of its own
        chunks.append(population.scorer.chunk)
    chunk = min((size for size in chunks if size is not None), default=None)

    def at_time(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
        answers = []
        for rows in row_slices(len(x), chunk):
            cond = slice_cond(population.cond, rows) if how else None
            answer = answer_of(value, x[rows].clone(), times[rows], cond=cond, how=how)
            answers.append(checked_numbers(answer, x[rows], "value"))
        return torch.cat(answers)

    return at_time


def finite(values: Tensor) -> Tensor:
    """Values `(batch, particles)` with -inf raised to the population's least finite one. An estimate of -inf would kill
    a particle on the word of a few draws, and the mass that later draws find there would be lost: any finite value
    keeps the law exact."""
    if float(values.detach().amin()) > -torch.inf:  # they are checked: neither NaN nor +inf
        return values
    known = values.isfinite()
    least = torch.where(known, values, torch.inf).amin(1, keepdim=True)
    return torch.where(known, values, torch.where(least.isfinite(), least, 0.0))
