"""Inference-time reward alignment: values, best-of-N, search, sequential Monte Carlo and guidance.

Every algorithm takes any :class:`diamond.PosteriorSampler` and any callable `reward(z) -> (N,)`, larger being better,
and aims at the law `p(z) exp(r(z)) / Z` or climbs the reward, as its result's `law` says.
"""

from . import resampling, rewards
from .alignment import Alignment, Step
from .best_of_n import best_of_n
from .guidance import guide
from .search import search
from .smc import smc
from .value import value, value_gradient

__all__ = [
    "Alignment",
    "Step",
    "best_of_n",
    "guide",
    "resampling",
    "rewards",
    "search",
    "smc",
    "value",
    "value_gradient",
]
