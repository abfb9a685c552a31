"""Inference-time reward alignment: values, best-of-N, search, sequential Monte Carlo and guidance.

Every algorithm takes any :class:`diamond.PosteriorSampler` and any callable `reward(z) -> (N,)`, larger being better,
and aims at the law `p(z) exp(r(z)) / Z` or climbs the reward, as its result's `law` says.
"""

from . import resampling, rewards
from .alignment import Alignment, Evidence, Step
from .best_of_n import best_of_n
from .damping import damping
from .gradient import value_gradient
from .guidance import guide
from .guided_flow import GuidedFlow
from .processes import ProcessFailure
from .released import released_gradient
from .scoring import RewardFailure
from .search import search
from .smc import smc
from .value import value
from .value_functions import LookAhead, PlugIn

__all__ = [
    "Alignment",
    "Evidence",
    "GuidedFlow",
    "LookAhead",
    "PlugIn",
    "ProcessFailure",
    "RewardFailure",
    "Step",
    "best_of_n",
    "damping",
    "guide",
    "released_gradient",
    "resampling",
    "rewards",
    "search",
    "smc",
    "value",
    "value_gradient",
]
