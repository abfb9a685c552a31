r"""Sequential Monte Carlo: properly weighted samples of the tilted law, from any value estimate.

Particles move on a grid :math:`0 = t_0 < \dots < t_K = 1` and are weighted by

.. math:: \log w_k = \log w_{k-1} + \hat V_{t_k}(x_{t_k}) - \hat V_{t_{k-1}}(x_{t_{k-1}}) + c_k, \qquad
          \hat V_{t_0} = 0, \quad \hat V_{t_K} = r,

where :math:`c_k` is what a guided proposal owes (:mod:`align.proposals`), and 0 for the model's own transitions. Each
estimate :math:`\hat V` is made once, kept with its particle, and moved with it when ancestors are chosen. So it cancels
from the product of the weights whatever it is, and with unbiased resampling :math:`E[\hat Z] = E[\exp r(z)]` holds for
every number of particles and of Monte Carlo draws, for tempered values (:mod:`align.tempering`) and for the other
potentials of Feynman-Kac steering (:mod:`align.potentials`). Good estimates make the weights even; bad ones make them
uneven, never wrong: :math:`\hat Z` times a weighted mean is unbiased, and the weighted mean itself is consistent.

Algorithms of the field as settings:

* Diamond Maps' SMC: a :class:`~diamond.DiamondMap`, `resampling="systematic"`;
* Feynman-Kac steering (FKS): `value=align.PlugIn(model, reward)`, `potential="diff"`, `"max"` or `"sum"`;
* twisted diffusion sampling (TDS): `value=align.PlugIn(model, reward)`, `proposal="plugin"`, `ess_threshold=1`;
* DAS: TDS with `tempering`;
* FMTT: `value=align.LookAhead(flow_map, reward)`, `tempering=lambda t: t`.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Algorithm 2
    | Twisted Diffusion Sampler (Wu et al., 2023), https://arxiv.org/abs/2306.17775
    | A General Framework for Inference-time Scaling and Steering of Diffusion Models (Singhal et al., 2025),
    | https://arxiv.org/abs/2501.06848
    | Test-time scaling of diffusions with flow maps (Sabour et al., 2025), https://arxiv.org/abs/2511.22688
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.model import PosteriorSampler
from diamond.validation import check_choice, check_positive, check_share

from .alignment import Alignment, Step
from .arguments import check_callback, check_correlation
from .draws import check_draws
from .gradient import check_estimator
from .population import Population
from .potentials import KINDS, Potentials, ValueFunction
from .processes import failing_together
from .proposals import proposal_named
from .resampling import SCHEMES, ess, log_mean_exp, pass_over
from .scoring import Reward
from .tempering import Tempering, check_tempering
from .time_grid import USUAL_STEPS, time_grid

__all__ = ["smc"]


@failing_together
@torch.no_grad()
def smc(
    model: PosteriorSampler,
    reward: Reward | Sequence[Reward],
    particles: int = 64,
    steps: int | None = None,
    *,
    mc: int = 4,
    rho: float | None = None,
    value: ValueFunction | None = None,
    antithetic: bool = False,
    proposal: str | None = None,
    proposal_strength: float | Callable[[float], float] | None = None,
    tempering: Tempering = None,
    potential: str = "diff",
    resampling: str | None = None,
    ess_threshold: float | None = None,
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
    """Weighted samples of `p(z) exp(r(z)) / Z`, and an unbiased estimate of `Z = E[exp r(z)]`.

    The law is exact for a model whose transitions are; for a distilled map it is as exact as they are. Unbiased is not
    precise: where rewards reach far below zero and `mc` is small, the mean of `exp(log_z)` hangs on rare, large weights,
    and one run is all but sure to fall short of it. `tempering` and `proposal="lookahead"` are for such rewards.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`; `-inf` excludes a sample. A sequence gives each population
            its own.
        particles: members of each population.
        steps: transitions from noise to data, 8 by default, or as many as `times` has.
        mc: posterior draws for each value estimate.
        rho: correlation of the transitions, DDPM's by default.
        value: any callable `value(x_t, t)` or `value(x_t, t, cond)`, `(N,)`, in place of the estimate.
        antithetic: the draws of an estimate come in pairs of opposite noise.
        proposal: how particles move: by the model's transitions (the default); "lookahead", which chooses among the
            draws of the value estimate and holds `mc` of them a particle; or with noise shifted by the gradient of the
            value, estimated by "reparam", "score" or "plugin". See :mod:`align.proposals`.
        proposal_strength: factor of that gradient, or a function of t that gives it, 1 by default. Where the reward is
            narrower than a step, less is more: see :func:`align.damping`.
        tempering: a schedule `beta(t)` in [0, 1] of the reward before the end, or a share in (0, 1) of effective
            particles to choose it by.
        potential: "diff", "max" or "sum": see :mod:`align.potentials`.
        resampling: "systematic" (the default), "stratified", "residual" or "multinomial".
        ess_threshold: a population is resampled before a step if its effective sample size is below this share of
            its particles: 0 never does (importance sampling), 1 always does. By default 0.5, or half-way from the share
            to 1 where `tempering` is one, which aims at that share.
        times: a grid from 0 to 1 in place of the uniform one.
        batch, cond, generator, chunk, reward_chunk, accelerator, progress, callback: as in :func:`~align.best_of_n`.

    Raises:
        ValueError: an argument or a reward that does not fit, options that contradict each other, or a population
            whose rewards are all -inf.
        RewardFailure: an external judge has gone away: see :class:`align.RewardFailure`.
    """
    check_positive("particles", particles)
    check_draws(mc, antithetic)
    check_choice("potential", potential, KINDS)
    check_tempering(tempering)
    check_callback(callback)
    rho = check_correlation(rho)
    if ess_threshold is None:
        ess_threshold = 0.5 if tempering is None or callable(tempering) else (1 + tempering) / 2
    ess_threshold = check_share("ess_threshold", ess_threshold)
    resampling, scheme = _scheme(resampling, ess_threshold)
    _check_consistent(model, value, proposal, proposal_strength, antithetic)
    _check_used(ess_threshold, proposal, potential, tempering)
    grid = time_grid(steps, times, USUAL_STEPS["smc"])
    population = Population(
        model, reward, particles, batch, cond, generator, chunk, reward_chunk, accelerator, besides=value
    )
    cloud = _Cloud(population, scheme, ess_threshold)
    potentials = Potentials(
        population, value, mc, antithetic=antithetic, tempering=tempering, kind=potential,
        keep_draws=proposal == "lookahead", like=cloud.log_w,
    )  # fmt: skip
    move = proposal_named(proposal, population, potentials, rho, proposal_strength)
    parts: dict[str, Tensor] = {}
    for k, t, t_next in population.steps(grid, progress, "smc"):
        ancestors = cloud.resample(potentials) if k else cloud.everyone
        cloud.x, owed = move(cloud.x, t, t_next)
        cloud.add(owed)
        if t_next == 1:
            rewards, parts = population.score(cloud.x)
            cloud.add(potentials.finish(rewards))
        else:
            cloud.add(potentials.advance(cloud.x, t_next, cloud.log_w))
        cloud.record(ancestors, potentials.beta)
        population.report(callback, k, t_next, cloud.x, cloud.log_w, cloud.size)
    return population.result(
        cloud.x,
        rewards,
        cloud.log_w,
        components=parts,
        log_z=cloud.log_z + log_mean_exp(cloud.all_w),
        ess=torch.stack(cloud.sizes),
        ancestors=torch.stack(cloud.lineage),
        inverse_temperatures=None if tempering is None else torch.stack(cloud.betas),
        method="smc",
        law="p(z) exp r(z) / Z, by weight",
        settings={
            "particles": particles, "steps": len(grid) - 1, "mc": mc, "antithetic": antithetic, "rho": rho,
            "proposal": proposal, "proposal_strength": _described(proposal_strength),
            "tempering": _described(tempering), "potential": potential, "ess_threshold": ess_threshold,
            "resampling": resampling, "value": "estimated" if value is None else "given",
            "times": None if times is None else grid.tolist(),
        },
    )  # fmt: skip


class _Cloud:
    """The particles of all populations with their weights, and what has become of them.

    Attributes:
        x: states `(rows, *event)`.
        log_w, all_w: log-weights since the last resampling, of this process's members and of all.
        size: the effective sample sizes, `(batch,)`.
        log_z: what resampling has settled of the log evidence, `(batch,)`.
        everyone: ancestors where nothing is resampled.
        sizes, lineage, betas: a record for each step.
    """

    def __init__(self, population: Population, scheme: Callable[..., Tensor], ess_threshold: float) -> None:
        self.population, self.scheme, self.least = population, scheme, ess_threshold * population.total
        self.x = population.prior()
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        self.log_w = torch.zeros(population.shape, device=self.x.device, dtype=dtype)
        self.all_w, self.log_z = population.gather(self.log_w), self.log_w.new_zeros(population.batch)
        self.size = self.log_w.new_full((population.batch,), population.total)
        self.everyone = population.everyone(self.x.device)
        self.sizes: list[Tensor] = []
        self.lineage: list[Tensor] = []
        self.betas: list[Tensor] = []

    def resample(self, potentials: Potentials) -> Tensor:
        """Resamples the populations whose effective size is too small; every particle's ancestor, `(batch, size)`."""
        if not self.least:
            return self.everyone
        low = self.size < self.least
        # drawn for every population, needed or not: none's noise depends on what befell the others
        if not bool(low.any()):
            pass_over(self.scheme, self.all_w, generator=self.population.shared)
            return self.everyone
        drawn = self.population.mine(self.scheme(self.all_w, generator=self.population.shared))
        ancestors = torch.where(low[:, None], drawn, self.everyone)
        self.x = self.population.take(self.x, ancestors)
        potentials.move(ancestors)
        self.log_z = torch.where(low, self.log_z + log_mean_exp(self.all_w), self.log_z)
        self.log_w = torch.where(low[:, None], 0.0, self.log_w)
        return ancestors

    def add(self, increment: Tensor | None) -> None:
        """Adds to the log-weights, if there is something to add."""
        if increment is not None:
            self.log_w = self.log_w + increment

    def record(self, ancestors: Tensor, beta: Tensor) -> None:
        """Closes a step."""
        self.all_w = self.population.gather(self.log_w)
        self.size = ess(self.all_w)
        self.sizes.append(self.size)
        self.lineage.append(ancestors)
        self.betas.append(beta[:, 0])


def _scheme(resampling: str | None, ess_threshold: float) -> tuple[str, Callable[..., Tensor]]:
    """The scheme's name, and the scheme."""
    if resampling is not None and ess_threshold == 0:
        raise ValueError(f"resampling: got {resampling!r} with ess_threshold=0, which never resamples; leave one out")
    name = check_choice("resampling", "systematic" if resampling is None else resampling, SCHEMES)
    return name, SCHEMES[name]


def _check_consistent(model: Any, value: Any, proposal: str | None, strength: Any, antithetic: bool) -> None:
    """Refuses options that contradict each other."""
    if strength is not None and proposal in (None, "lookahead"):
        raise ValueError(
            f"proposal_strength: got {strength} with proposal={proposal!r}, which has no gradient; leave one out"
        )
    if proposal == "lookahead" and value is not None:
        raise ValueError("value: got a value function with proposal='lookahead', which needs the draws of the estimate")
    if proposal == "lookahead" and hasattr(model, "weighted_posterior"):
        raise ValueError(
            f"proposal: got 'lookahead' for a {type(model).__name__}, whose draws are weighted; expected another"
        )
    if proposal == "score":
        check_estimator(model, proposal, "proposal")
    if antithetic and value is not None and proposal not in ("reparam", "score"):
        raise ValueError("antithetic: got True with a value function, which takes no draws; leave one out")


def _check_used(ess_threshold: float, proposal: str | None, potential: str, tempering: Tempering) -> None:
    """Refuses options that nothing would come of: without resampling, potentials cancel before they are used."""
    unused: list[tuple[str, Any]] = [("potential", potential)] if potential != "diff" else []
    unused += [("tempering", tempering)] if tempering is not None and proposal is None else []
    if ess_threshold == 0 and unused:
        name, came = unused[0]
        raise ValueError(f"{name}: got {came!r} with ess_threshold=0, which never resamples; leave one out")
    if isinstance(tempering, float) and 0 < ess_threshold <= tempering:
        raise ValueError(
            f"ess_threshold: got {ess_threshold:g} with tempering={tempering:g}, which aims at that share of "
            "effective particles, so that few would be resampled; expected a larger threshold"
        )


def _described(setting: Any) -> float | str | None:
    return "schedule" if callable(setting) else setting
