r"""Sequential Monte Carlo: exact samples of the tilted law, from any value estimate.

Particles move by the model's transitions on a grid :math:`0 = t_0 < \dots < t_K = 1` and are weighted by

.. math:: \log w_k = \log w_{k-1} + \hat V_{t_k}(x_{t_k}) - \hat V_{t_{k-1}}(x_{t_{k-1}}), \qquad
          \hat V_{t_0} = 0, \quad \hat V_{t_K} = r .

Each estimate :math:`\hat V` is made once, kept with its particle, and moved with it when ancestors are chosen. So it
cancels from the product of the weights whatever it is, and with unbiased resampling
:math:`E[\hat Z] = E[\exp r(z)]` holds for every number of particles and of Monte Carlo draws. Good estimates make the
weights even; bad ones make them uneven, never wrong.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Algorithm 2
    | Twisted Diffusion Sampler (Wu et al., 2023), https://arxiv.org/abs/2306.17775
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler
from diamond.validation import check_choice, check_positive

from .alignment import Alignment, Step
from .population import Population, row_slices, time_grid
from .resampling import SCHEMES, ess, log_mean_exp
from .scoring import Reward, Scorer, checked_numbers
from .value import value as estimate_value

__all__ = ["ValueFunction", "smc", "value_or"]

ValueFunction = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def smc(
    model: PosteriorSampler,
    reward: Reward,
    particles: int = 64,
    steps: int = 8,
    *,
    mc: int = 4,
    rho: float | None = None,
    value: ValueFunction | None = None,
    resampling: str | None = None,
    ess_threshold: float = 0.5,
    times: Tensor | Sequence[float] | None = None,
    batch: int = 1,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    progress: bool = False,
    callback: Callable[[Step], None] | None = None,
) -> Alignment:
    """Weighted samples of `p(z) exp(r(z)) / Z`, and an unbiased estimate of `Z = E[exp r(z)]`.

    The law is exact for a model whose transitions are; for a distilled map it is as exact as they are. Unbiased is not
    precise: where rewards reach far below zero and `mc` is small, the mean of `exp(log_z)` hangs on rare, large weights.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`; `-inf` excludes a sample.
        particles: members of each population.
        steps: transitions from noise to data.
        mc: posterior draws for each value estimate.
        rho: correlation of the transitions, DDPM's by default.
        value: any callable `value(x_t, t) -> (N,)`, with `t` `(N,)`, in place of the estimate.
        resampling: "systematic" (the default), "stratified", "residual" or "multinomial".
        ess_threshold: a population is resampled before a step if its effective sample size is below this share of
            its particles: 0 never does (importance sampling), 1 always does.
        times: a grid from 0 to 1 in place of the uniform one of `steps`.
        batch, cond, generator, chunk, progress, callback: as in :func:`~align.best_of_n`.

    Raises:
        ValueError: an argument or a reward that does not fit, or a population whose rewards are all -inf.
    """
    check_positive("particles", particles), check_positive("mc", mc)
    scheme = _scheme(resampling, ess_threshold)
    grid = time_grid(steps, times)
    population = Population(model, particles, batch, cond, generator, chunk)
    scorer = Scorer(reward, chunk)
    value_of = value_or(value, population, scorer, mc)
    x = population.prior()
    log_w = torch.zeros(population.shape, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    kept, log_z, rewards = torch.zeros_like(log_w), log_w.new_zeros(batch), torch.zeros_like(log_w)
    everyone = torch.arange(particles, device=x.device).expand(population.shape)
    sizes, lineage = [], []
    for k, t, t_next in population.steps(grid, progress, "smc"):
        ancestors = everyone
        if k and ess_threshold:
            # drawn for every population, needed or not: none's noise depends on what befell the others
            drawn = scheme(log_w, generator=population.generator)
            low = ess(log_w) < ess_threshold * particles
            ancestors = torch.where(low[:, None], drawn, everyone)
            x = x[(ancestors + particles * torch.arange(batch, device=x.device)[:, None]).flatten()]
            kept = kept.gather(1, ancestors)
            log_z = torch.where(low, log_z + log_mean_exp(log_w), log_z)
            log_w = torch.where(low[:, None], 0.0, log_w)
        x = population.transition(x, t, t_next, rho)
        if t_next == 1:
            values = rewards = scorer(x, population.cond).reshape(population.shape)
            _check_alive(rewards)
        else:
            values = _finite(value_of(x, t_next).reshape(population.shape))
        log_w, kept = log_w + values - kept, values
        sizes.append(ess(log_w))
        lineage.append(ancestors)
        if callback is not None:
            callback(Step(k, t_next, x.unflatten(0, population.shape), log_w.clone(), sizes[-1]))
    return Alignment(
        samples=x.unflatten(0, population.shape),
        rewards=rewards,
        log_weights=log_w,
        log_z=log_z + log_mean_exp(log_w),
        ess=torch.stack(sizes),
        ancestors=torch.stack(lineage),
        nfe_backward=0,
        reward_calls=scorer.calls // batch,
        method="smc",
        law="p(z) exp r(z) / Z, by weight",
        settings={"particles": particles, "steps": len(grid) - 1, "mc": mc, "rho": rho, "ess_threshold": ess_threshold},
        **population.cost(),
    )


def value_or(
    value: ValueFunction | None, population: Population, scorer: Scorer, mc: int
) -> Callable[[Tensor, float], Tensor]:
    """The user's value function at one time, checked; or the log-mean-exp of `mc` posterior draws."""
    if value is None:
        return lambda x, t: estimate_value(
            population.model, scorer, x, t, mc, cond=population.cond, generator=population.generator,
            chunk=population.chunk,
        )  # fmt: skip
    if not callable(value):
        raise ValueError(f"value: got {type(value).__name__}, expected a callable value(x_t, t) -> (N,)")

    def at_time(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
        parts = row_slices(len(x), population.chunk)
        return torch.cat([checked_numbers(value(x[rows].clone(), times[rows]), x[rows], "value") for rows in parts])

    return at_time


def _scheme(resampling: str | None, ess_threshold: float) -> Callable[..., Tensor]:
    if not 0 <= ess_threshold <= 1:
        raise ValueError(f"ess_threshold: got {ess_threshold}, expected a share in [0, 1]")
    if resampling is not None and ess_threshold == 0:
        raise ValueError(f"resampling: got {resampling!r} with ess_threshold=0, which never resamples; leave one out")
    return SCHEMES[check_choice("resampling", resampling or "systematic", SCHEMES)]


def _finite(values: Tensor) -> Tensor:
    """Values `(batch, particles)` with -inf raised to the population's least finite one. An estimate of -inf would kill
    a particle on the word of a few draws, and the mass that later draws find there would be lost: any finite value
    keeps the law exact."""
    finite = values.isfinite()
    least = torch.where(finite, values, torch.inf).amin(1, keepdim=True)
    return torch.where(finite, values, torch.where(least.isfinite(), least, 0.0))


def _check_alive(rewards: Tensor) -> None:
    dead = (rewards == -torch.inf).all(1)
    if bool(dead.any()):
        raise ValueError(
            f"reward: it returned -inf for every particle of population {int(dead.nonzero()[0])}, "
            "expected at least one sample that it allows; take more particles"
        )
