"""How good a map is: as a sampler of posteriors, of transitions, and of data.

One room holds one figure: `energy`, `frechet`, `manifolds` (precision and recall), `two_sample` (a classifier's test),
`calibration` (the truth's rank), and what they are measured on: `posteriors`, `transitions`, `samples`.
"""

from .calibration import random_projections, truth_ranks, uniformity
from .energy import energy_distance
from .frechet import frechet_distance, gaussian_frechet_distance
from .manifolds import precision_recall
from .posteriors import Reference, distances_to, draw_in_tiles, draw_references, equivalent_steps, glass_distances
from .samples import JudgedData, diversity, sample_quality
from .transitions import chain_states, marginal_distances
from .two_sample import TwoSample, two_sample_test

__all__ = [
    "JudgedData",
    "Reference",
    "TwoSample",
    "chain_states",
    "distances_to",
    "diversity",
    "draw_in_tiles",
    "draw_references",
    "energy_distance",
    "equivalent_steps",
    "frechet_distance",
    "gaussian_frechet_distance",
    "glass_distances",
    "marginal_distances",
    "precision_recall",
    "random_projections",
    "sample_quality",
    "truth_ranks",
    "two_sample_test",
    "uniformity",
]
