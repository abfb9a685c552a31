r"""Best-of-N: draw from the model, keep what scores best.

With weights :math:`w \propto \exp r(z)` the very same draws are importance sampling: the weighted draws follow the
tilted law, and :math:`\frac1N \sum \exp r(z_i)` is an unbiased estimate of its normaliser. The best of them alone
follows no such law: its reward has distribution function :math:`F^N`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from diamond.model import PosteriorSampler
from diamond.validation import check_positive

from .alignment import Alignment, Step
from .population import Population, time_grid
from .resampling import ess, log_mean_exp
from .scoring import Reward, Scorer

__all__ = ["best_of_n"]


@torch.no_grad()
def best_of_n(
    model: PosteriorSampler,
    reward: Reward,
    n: int = 64,
    *,
    steps: int = 1,
    batch: int = 1,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    progress: bool = False,
    callback: Callable[[Step], None] | None = None,
) -> Alignment:
    """Draws `n` samples in each population and scores them; `best()` of the result is the best of them.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`.
        n: samples in each population.
        steps: transitions from noise to data for each sample.
        batch: independent populations.
        cond: conditioning with leading dimension `batch`.
        generator: one, or one a population.
        chunk: samples per network or reward call; the result does not depend on it.
        progress: whether to show a bar.
        callback: called with a :class:`~align.alignment.Step` at the end of each step.

    Raises:
        ValueError: an argument or a reward that does not fit.
    """
    population = Population(model, check_positive("n", n), batch, cond, generator, chunk)
    scorer = Scorer(reward, chunk)
    x = population.prior()
    grid = time_grid(steps, None)
    for k, t, t_next in population.steps(grid, progress, "best of n"):
        x = population.transition(x, t, t_next)
        if callback is not None:
            flat = torch.zeros(population.shape, device=x.device)
            callback(Step(k, t_next, x.unflatten(0, population.shape), flat, ess(flat)))
    rewards = scorer(x, population.cond).reshape(population.shape)
    return Alignment(
        samples=x.unflatten(0, population.shape),
        rewards=rewards,
        log_weights=rewards.clone(),
        log_z=log_mean_exp(rewards),
        ess=ess(rewards)[None],
        ancestors=torch.arange(n, device=x.device).expand(1, *population.shape),
        nfe_backward=0,
        reward_calls=scorer.calls // batch,
        method="best of n",
        law="p(z) exp r(z) / Z by weight; best() is the best of n draws from p",
        settings={"n": n, "steps": steps},
        **population.cost(),
    )
