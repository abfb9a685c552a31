r"""The methods, and how many particles each can afford.

Every method's cost is a multiple of its particles, so one cheap run tells the price of a particle and the budget does
the rest: as many particles as network evaluations (NFE) or reward calls allow. Rewards count their own calls, whoever
makes them; the models count their evaluations.

With K steps and `mc` draws, a particle costs in (NFE, reward calls) on a one-call map: importance sampling (1, 1), SMC
(K + (K - 1) mc, (K - 1) mc + 1), guidance (K (1 + mc), K mc + 1). Where all draws of a state are one point, one is taken.

Every method runs on every model, but where there is no such thing:

* look-ahead chooses among draws by their rewards, and those of the weighted map have weights of their own, which is
  refused;
* a gradient without a derivative is a difference between draws, and the flow map and the plug-in have one a state;
* one call of the plug-in is the mean of all data, no sample to weigh: it takes steps;
* GLASS value guidance is a GLASS flow of a guided teacher.

FKS, DAS and DPS take no posterior draws: between models their values differ by the denoiser, the teacher's or what a map
has learnt of it, and their steps by the transitions; DPS's not even by these. On the plug-in the first is SMC, the second
SMC along the gradient, and the third guidance, there twice for comparison. FMTT's values are the flow map's on
every model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from torch import Tensor

import align
import diamond

from align import Alignment

from .models import Models, PlugIn

__all__ = ["FREE", "METHODS", "Contest", "CountedReward", "affordable", "methods_of", "run"]

FREE = {"currency": None, "budget": None, "model": "", "nfe": 0, "nfe_backward": 0, "reward_calls": 0, "seconds": 0.0}
CHUNK = 16384  # samples a network call, so that memory is bounded


class CountedReward:
    """A reward that counts the samples it is asked for."""

    def __init__(self, reward: Callable[[Tensor], Tensor]) -> None:
        self.reward, self.calls = reward, 0

    def __call__(self, z: Tensor) -> Tensor:
        self.calls += len(z)
        return self.reward(z)


@dataclass(frozen=True)
class Contest:
    """One problem's models and reward, and how methods are set for it.

    Attributes:
        models: the models.
        reward: counted.
        walk: `steps` or `times`, and `mc`, of search and SMC.
        guide: `steps` and `mc` of guidance.
        scale: of guidance's gradient.
    """

    models: Models
    reward: CountedReward
    walk: dict[str, Any]
    guide: dict[str, Any]
    scale: float = 1.0

    def for_model(self, settings: dict[str, Any], model: Any) -> dict[str, Any]:
        """The settings, with one draw where all are one point."""
        return settings | {"mc": 1} if isinstance(model, (diamond.FlowMap, PlugIn)) else settings


Method = Callable[..., Alignment]  # (contest, model, particles, batch=, generator=)


def _smc(**options: Any) -> Method:
    return lambda contest, model, size, **how: align.smc(
        model, contest.reward, size, **contest.for_model(contest.walk, model), **options, **how
    )


def _guide(**options: Any) -> Method:
    return lambda contest, model, size, **how: align.guide(
        model, contest.reward, size, **contest.for_model(contest.guide, model), **options, scale=contest.scale, **how
    )


def _unweighted(result: Alignment) -> Alignment:
    """The result with all samples counted alike, as of a method that has no weights."""
    return replace(result, log_weights=torch.zeros_like(result.log_weights), log_z=None, ess=None)  # type: ignore[arg-type]


def no_steering(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    return _unweighted(align.best_of_n(model, contest.reward, size, **how))


def importance(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    return align.best_of_n(model, contest.reward, size, **how)


def importance_of_walks(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    return align.best_of_n(model, contest.reward, size, steps=8, **how)


def search(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    return align.search(model, contest.reward, size, **contest.for_model(contest.walk, model), **how)


def feynman_kac(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    return _smc(value=align.PlugIn(model, contest.reward))(contest, model, size, **how)


def twisted(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    value = align.PlugIn(model, contest.reward)
    return _smc(value=value, proposal="plugin", tempering=0.5)(contest, model, size, **how)


def flow_map_test_time(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    look_ahead = align.LookAhead(contest.models.flow_map, contest.reward)
    return _smc(value=look_ahead, tempering=lambda t: t)(contest, model, size, **how)


def glass_guidance(contest: Contest, model: Any, size: int, **how: Any) -> Alignment:
    guided = align.GuidedFlow(contest.models.teacher, contest.reward, contest.scale)
    return _unweighted(
        align.best_of_n(diamond.GlassFlow(guided, model.steps, grid="uniform"), contest.reward, size, steps=4, **how)
    )


METHODS: dict[str, Method] = {
    "none": no_steering,
    "importance (best-of-N)": importance,
    "importance, 8 steps": importance_of_walks,
    "search": search,
    "SMC": _smc(),
    "SMC, tempered": _smc(tempering=0.5),
    "SMC, lookahead": _smc(proposal="lookahead"),
    "SMC, lookahead, tempered": _smc(proposal="lookahead", tempering=0.5),
    "SMC, gradient, tempered": _smc(proposal="reparam", tempering=0.5),
    "FKS (SMC, plug-in value)": feynman_kac,
    "DAS (FKS, tempered, plug-in gradient)": twisted,
    "FMTT (SMC, flow map value)": flow_map_test_time,
    "guidance": _guide(),
    "guidance, gradient-free": _guide(estimator="score"),
    "guidance, SDE": _guide(eta=1.0),
    "guidance, SDE, corrected": _guide(eta=1.0, correct=True),
    "DPS (plug-in guidance)": _guide(estimator="plugin"),
}
GLASS_ONLY: dict[str, Method] = {"GLASS value guidance": glass_guidance}
IMPOSSIBLE = {  # for reasons above
    "weighted": {"SMC, lookahead", "SMC, lookahead, tempered"},
    "flow map": {"guidance, gradient-free"},
    "plug-in": {"guidance, gradient-free", "none", "importance (best-of-N)"},
}


def methods_of(model: str) -> dict[str, Method]:
    """The methods that are run on the model of that name: all that are possible."""
    possible = {name: method for name, method in METHODS.items() if name not in IMPOSSIBLE.get(model, ())}
    return possible | (GLASS_ONLY if model.startswith("GLASS") else {})


def price(contest: Contest, model: Any, method: Method) -> dict[str, int]:
    """What one particle costs in each currency."""
    before = contest.reward.calls
    result = method(contest, model, 1, batch=1, generator=torch.Generator().manual_seed(0))
    return {"nfe": int(result.nfe or 0), "reward_calls": contest.reward.calls - before}


def affordable(contest: Contest, model: Any, method: Method, budget: int, currency: str) -> int:
    """Particles that a population may have for that budget; 0 where it does not pay for one."""
    return budget // price(contest, model, method)[currency]


def run(
    contest: Contest, model: Any, method: Method, particles: int, batch: int, generator: torch.Generator
) -> tuple[Alignment, int]:
    """`batch` populations, and the reward calls of each."""
    before = contest.reward.calls
    result = method(contest, model, particles, batch=batch, generator=generator, chunk=CHUNK)
    return result, (contest.reward.calls - before) // batch
