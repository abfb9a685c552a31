r"""Search: branch by stochastic transitions, keep what is valued most.

At each step every kept particle makes `branch` candidates :math:`x_{t'} \sim p(x_{t'} \mid x_t)`, each is scored by an
estimate of its value :math:`V_{t'}`, by the reward itself at the end, and the best are kept: of all candidates of the
population together (a beam), or of each particle's own. Search climbs; it follows no stated law.

Algorithms of the field as settings:

* SVDD: `keep="each"`, `value=align.PlugIn(model, reward)`;
* MFM-Search: `particles=1`, `branch` candidates of `mc` draws each, with a one-call posterior.

References:
    | SVDD (Li et al., 2024), https://arxiv.org/abs/2408.08252
    | Meta Flow Maps (Potaptchik et al., 2026), https://arxiv.org/abs/2601.14430
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler
from diamond.validation import check_choice, check_positive

from .alignment import Alignment, Step
from .arguments import check_callback, check_correlation
from .draws import check_draws
from .population import Population
from .potentials import ValueFunction, value_or
from .processes import failing_together
from .resampling import ess
from .scoring import Reward
from .time_grid import USUAL_STEPS, time_grid

__all__ = ["search"]


@failing_together
@torch.no_grad()
def search(
    model: PosteriorSampler,
    reward: Reward | Sequence[Reward],
    particles: int = 4,
    branch: int = 4,
    steps: int | None = None,
    *,
    mc: int = 4,
    rho: float | None = None,
    keep: str = "all",
    value: ValueFunction | None = None,
    antithetic: bool = False,
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
    """Beam search over a few transitions.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`; a sequence gives each population its own.
        particles: states kept in each population.
        branch: candidates that each makes at every step.
        steps: transitions from noise to data, 8 by default, or as many as `times` has.
        mc: posterior draws for each value estimate.
        rho: correlation of the transitions, DDPM's by default.
        keep: "all" keeps the best of all candidates together, "each" the best candidate of each particle.
        value: any callable `value(x_t, t)` or `value(x_t, t, cond)`, `(N,)`, in place of the estimate.
        antithetic: the draws of an estimate come in pairs of opposite noise.
        times: a grid from 0 to 1 in place of the uniform one.
        batch, cond, generator, chunk, reward_chunk, accelerator, progress, callback: as in :func:`~align.best_of_n`.

    Raises:
        ValueError: an argument or a reward that does not fit;
            a population whose rewards are all -inf.
        RewardFailure: an external judge has gone away; it keeps the samples and the rewards there were.
    """
    check_positive("particles", particles), check_positive("branch", branch)
    check_draws(mc, antithetic)
    check_choice("keep", keep, ("all", "each"))
    check_callback(callback)
    rho = check_correlation(rho)
    if antithetic and value is not None:
        raise ValueError("antithetic: got True with a value function, which takes no draws; leave one out")
    grid = time_grid(steps, times, USUAL_STEPS["search"])
    population = Population(
        model, reward, particles, batch, cond, generator, chunk, reward_chunk, accelerator, besides=value
    )
    wide = population.widened(branch)
    value_of = value_or(value, wide, mc, antithetic)
    x, ancestors = population.prior(), []
    parts: dict[str, Tensor] = {}
    even = torch.zeros(population.shape, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    for k, t, t_next in population.steps(grid, progress, "search"):
        candidates = population.transition(x, t, t_next, rho, branch)
        if t_next == 1:
            scores, parts = wide.score(candidates)
        else:
            scores = value_of(candidates, t_next).reshape(wide.shape)
        if keep == "each":
            chosen = scores.unflatten(1, (-1, branch)).argmax(-1) + branch * population.everyone(x.device)
        else:
            chosen = population.mine(population.gather(scores).topk(particles).indices)
        x, scores = population.take(candidates, chosen), population.take(scores.flatten(), chosen)
        parts = {name: population.take(part.flatten(), chosen) for name, part in parts.items()}
        ancestors.append(chosen // branch)
        population.report(callback, k, t_next, x, even, ess(even))
    rewards = scores.reshape(population.shape)
    return population.result(
        x,
        rewards,
        even,
        {name: part.reshape(population.shape) for name, part in parts.items()},
        ess=ess(population.gather(even)).expand(len(grid) - 1, batch),
        ancestors=torch.stack(ancestors),
        method="search",
        law="none: it climbs the reward",
        settings={
            "particles": particles,
            "branch": branch,
            "steps": len(grid) - 1,
            "mc": mc,
            "antithetic": antithetic,
            "rho": rho,
            "keep": keep,
            "value": "estimated" if value is None else "given",
            "times": None if times is None else grid.tolist(),
        },
    )
