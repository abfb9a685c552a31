"""The factor that leaves most draws effective."""

import torch

import diamond

from diamond.degeneracy import effective_size
from diamond.weighted_map import WeightedDiamondMap


def test_factor_of_broad_data_is_two(seeded, gaussian, gaussian_map):
    law = gaussian(scale=100.0)
    x = 50 * torch.randn(5, 2, dtype=torch.float64, generator=seeded(1))
    found = diamond.choose_snr(gaussian_map(law), x, 0.5, (1.2, 1.5, 2.0, 3.0, 10.0), generator=seeded())
    assert found == 2.0
    _, log_weights = WeightedDiamondMap(gaussian_map(law), 2.0).weighted_posterior(x, 0.5, 50, generator=seeded())
    assert (effective_size(log_weights) > 49).all()


def test_factor_is_the_one_of_most_effective_draws(line, seeded, line_map, quietly, states):
    flow_map, candidates = line_map(line()), (1.1, 1.5, 3.0, 30.0)
    noise = torch.randn(40, 3, 1, dtype=torch.float64, generator=seeded())
    sizes = [
        effective_size(quietly(WeightedDiamondMap(flow_map, c).weighted_posterior, states, 0.6, 40, noise=noise)[1])
        for c in candidates
    ]
    best = max(range(4), key=lambda i: float(sizes[i].median()))
    assert diamond.choose_snr(flow_map, states, 0.6, candidates, 40, generator=seeded()) == candidates[best]
    assert diamond.choose_snr(flow_map, states, 0.0, (1.5, 3.0, 30.0), generator=seeded()) == 30.0
