r"""Best-of-N: draw from the model, keep what scores best.

With weights :math:`w \propto \exp r(z)` the very same draws are importance sampling: the weighted draws follow the
tilted law, and :math:`\frac1N \sum \exp r(z_i)` is an unbiased estimate of its normaliser. The best of them alone
follows no such law: its reward has the distribution function :math:`F^N`, with :math:`F` that of one draw's.

With a :class:`~align.GuidedFlow` as the model this is GLASS value guidance, best-of-N on top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler
from diamond.validation import check_positive

from .alignment import Alignment, Step
from .arguments import check_callback, check_correlation
from .population import Population
from .processes import failing_together
from .resampling import ess, log_mean_exp
from .scoring import Reward
from .time_grid import USUAL_STEPS, time_grid

__all__ = ["best_of_n"]


@failing_together
@torch.no_grad()
def best_of_n(
    model: PosteriorSampler,
    reward: Reward | Sequence[Reward],
    n: int = 64,
    *,
    steps: int | None = None,
    rho: float | None = None,
    times: Tensor | Sequence[float] | None = None,
    batch: int = 1,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    reward_chunk: int | None = None,
    accelerator: Any = None,
    progress: bool = False,
    callback: Callable[[Step], None] | None = None,
) -> Alignment:
    """Draws `n` samples in each population and scores them; `best()` of the result is the best of them.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`; a sequence gives each population its own.
        n: samples in each population.
        steps: transitions from noise to data for each sample, 1 by default, or as many as `times` has.
        rho: correlation of the transitions, DDPM's by default.
        times: a grid from 0 to 1 in place of the uniform one.
        batch: independent populations.
        cond: conditioning with leading dimension `batch`.
        generator: one, or one a population.
        chunk: samples per network call; the result does not depend on it.
        reward_chunk: samples per reward call, `chunk` by default.
        accelerator: an `accelerate.Accelerator`, over whose processes each population is spread; the result is the same
            in each of them.
        progress: whether to show a bar.
        callback: called with a :class:`~align.alignment.Step` at the end of each step, in each process with the samples
            and weights of its own members.

    Raises:
        ValueError: an argument or a reward that does not fit;
            a population whose rewards are all -inf.
        RewardFailure: an external judge has gone away; it keeps the samples and the rewards there were.
        ProcessFailure: another process of the accelerator failed, and why.
    """
    check_callback(callback)
    rho, grid = check_correlation(rho), time_grid(steps, times, USUAL_STEPS["best_of_n"])
    population = Population(
        model, reward, check_positive("n", n), batch, cond, generator, chunk, reward_chunk, accelerator
    )
    x = population.prior()
    even = torch.zeros(population.shape, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    for k, t, t_next in population.steps(grid, progress, "best of n"):
        x = population.transition(x, t, t_next, rho)
        population.report(callback, k, t_next, x, even, ess(even))
    rewards, parts = population.score(x)
    weights, count = population.gather(rewards), len(grid) - 1
    sizes = [*[ess(torch.zeros_like(weights))] * (count - 1), ess(weights)]  # weighed after the last step alone
    return population.result(
        x,
        rewards,
        rewards.clone(),
        parts,
        log_z=log_mean_exp(weights),
        ess=torch.stack(sizes),
        ancestors=population.everyone(x.device).expand(count, *population.shape),
        method="best of n",
        law="p(z) exp r(z) / Z by weight; best() is the best of n draws from p",
        settings={
            "n": n,
            "steps": count,
            "rho": rho,
            "times": None if times is None else grid.tolist(),
        },
    )
