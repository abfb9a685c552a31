"""The energy distance against its closed form on the line, for independent and for paired draws."""

import math

import pytest
import torch

from diamond.evaluation import energy_distance


def mean_absolute(mean, variance):
    """`E|N(mean, variance)|`."""
    scale = math.sqrt(variance)
    folded = scale * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * variance))
    return folded + mean * math.erf(mean / math.sqrt(2 * variance))


@pytest.mark.parametrize("mean, deviation", [(0.0, 1.0), (0.7, 1.0), (0.3, 1.6)])
@pytest.mark.parametrize("paired", [False, True])
def test_two_gaussians_on_the_line(mean, deviation, paired, seeded, check_mean):
    exact = 2 * mean_absolute(mean, 1 + deviation**2) - mean_absolute(0, 2) - mean_absolute(0, 2 * deviation**2)
    x = torch.randn(40, 600, 1, generator=seeded(1), dtype=torch.float64)
    noise = x if paired else torch.randn(40, 600, 1, generator=seeded(2), dtype=torch.float64)
    check_mean(energy_distance(x, mean + deviation * noise), torch.tensor(exact).double())


def test_events_of_any_shape_are_vectors(seeded):
    x, y = torch.randn(2, 5, 3, 1, 2, 2, generator=seeded())
    assert torch.allclose(energy_distance(x, y), energy_distance(x.flatten(2), y.flatten(2)))
    numbers = x[..., 0, 0, 0], y[..., 0, 0, 0]
    assert torch.allclose(energy_distance(*numbers), energy_distance(*(draws[..., None] for draws in numbers)))
    with pytest.raises(ValueError, match="^x, y: got shapes"):
        energy_distance(x[:1], y[:1])
