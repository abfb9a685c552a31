r"""Search: branch by stochastic transitions, keep what is valued most.

At each step every kept particle makes `branch` candidates :math:`x_{t'} \sim p(x_{t'} \mid x_t)`, each is scored by an
estimate of its value :math:`V_{t'}`, by the reward itself at the end, and the best are kept: of all candidates of the
population together (a beam), or of each particle's own. Search climbs; it follows no stated law.

References:
    | SVDD (Li et al., 2024), https://arxiv.org/abs/2408.08252 (`keep="each"`, with the plug-in value)
    | Meta Flow Maps (Potaptchik et al., 2026), https://arxiv.org/abs/2601.14430 (`particles=1`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler
from diamond.validation import check_choice, check_positive

from .alignment import Alignment, Step
from .population import Population, time_grid
from .resampling import ess
from .scoring import Reward, Scorer
from .smc import ValueFunction, value_or

__all__ = ["search"]


@torch.no_grad()
def search(
    model: PosteriorSampler,
    reward: Reward,
    particles: int = 4,
    branch: int = 4,
    steps: int = 8,
    *,
    mc: int = 4,
    rho: float | None = None,
    keep: str = "all",
    value: ValueFunction | None = None,
    times: Tensor | Sequence[float] | None = None,
    batch: int = 1,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    progress: bool = False,
    callback: Callable[[Step], None] | None = None,
) -> Alignment:
    """Beam search over `steps` transitions.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`.
        particles: states kept in each population.
        branch: candidates that each makes at every step.
        steps: transitions from noise to data.
        mc: posterior draws for each value estimate.
        rho: correlation of the transitions, DDPM's by default.
        keep: "all" keeps the best of all candidates together, "each" the best candidate of each particle.
        value: any callable `value(x_t, t) -> (N,)` in place of the estimate.
        times: a grid from 0 to 1 in place of the uniform one of `steps`.
        batch, cond, generator, chunk, progress, callback: as in :func:`~align.best_of_n`.

    Raises:
        ValueError: an argument or a reward that does not fit.
    """
    check_positive("particles", particles), check_positive("branch", branch), check_positive("mc", mc)
    check_choice("keep", keep, ("all", "each"))
    grid = time_grid(steps, times)
    population = Population(model, particles, batch, cond, generator, chunk)
    wide = Population(model, particles * branch, batch, cond, population.generator, chunk)
    scorer = Scorer(reward, chunk)
    value_of = value_or(value, wide, scorer, mc)
    x, scores, ancestors = population.prior(), torch.empty(0), []
    for k, t, t_next in population.steps(grid, progress, "search"):
        candidates = population.transition(x, t, t_next, rho, branch)
        scores = scorer(candidates, wide.cond) if t_next == 1 else value_of(candidates, t_next)
        scores = scores.reshape(batch, particles, branch)
        if keep == "each":
            scores, chosen = scores.max(-1)
            chosen = chosen + branch * torch.arange(particles, device=x.device)
        else:
            scores, chosen = scores.flatten(1).topk(particles)
        x = candidates[(chosen + particles * branch * torch.arange(batch, device=x.device)[:, None]).flatten()]
        ancestors.append(chosen // branch)
        if callback is not None:
            flat = torch.zeros(population.shape, device=x.device)
            callback(Step(k, t_next, x.unflatten(0, population.shape), flat, ess(flat)))
    flat = torch.zeros_like(scores)
    return Alignment(
        samples=x.unflatten(0, population.shape),
        rewards=scores,
        log_weights=flat,
        ess=ess(flat).expand(len(grid) - 1, batch),
        ancestors=torch.stack(ancestors),
        nfe_backward=0,
        reward_calls=scorer.calls // batch,
        method="search",
        law="none: it climbs the reward",
        settings={"particles": particles, "branch": branch, "steps": len(grid) - 1, "mc": mc, "rho": rho, "keep": keep},
        **population.cost(),
    )
