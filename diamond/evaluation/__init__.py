"""How good a map is: as a sampler of posteriors, of transitions, and of data.

One room holds one figure: `energy`, `moments` (errors of means and widths), `frechet`, `manifolds` (precision and recall),
`two_sample` (a classifier's test), `calibration` (the truth's rank), and what they are measured on: `posteriors`,
`transitions`, `samples`.
"""

from .calibration import random_projections, truth_ranks, uniformity
from .energy import energy_distance
from .frechet import frechet_distance, gaussian_frechet_distance
from .manifolds import precision_recall
from .moments import mean_error, spread
from .posteriors import (
    Comparison,
    Reference,
    compare,
    distances_to,
    draw_in_tiles,
    draw_references,
    equivalent_steps,
    glass_distances,
)
from .samples import JudgedData, diversity, sample_quality
from .transitions import chain_states, marginal_distances
from .two_sample import TwoSample, two_sample_test

__all__ = [
    "Comparison",
    "JudgedData",
    "Reference",
    "TwoSample",
    "chain_states",
    "compare",
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
    "mean_error",
    "precision_recall",
    "random_projections",
    "sample_quality",
    "spread",
    "truth_ranks",
    "two_sample_test",
    "uniformity",
]
