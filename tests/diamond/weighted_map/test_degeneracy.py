"""Effective sample sizes, and the warning of weights that leave few draws effective."""

import math
import warnings

import pytest
import torch

import diamond

from diamond.degeneracy import ALONE, DegenerateWeights, effective_size, warn_of_degeneracy
from diamond.mixture import GaussianMixtureFlow
from diamond.weighted_map import WeightedDiamondMap


def test_effective_size_of_known_weights():
    equal, single = torch.full((8,), -700.0), torch.tensor([0.0] + [-900.0] * 7)
    found = effective_size(torch.stack([equal, single, torch.tensor([2.0, 1, 0, 0, 0, 0, 0, 0]).log()], dim=1))
    torch.testing.assert_close(found, torch.tensor([8.0, 1.0, 9 / 5]))


@pytest.fixture
def many_axes(gaussian_map):
    """The flow map of the standard normal law in twelve dimensions, where near factors leave few draws effective."""
    law = GaussianMixtureFlow(torch.ones(1).double(), torch.zeros(1, 12).double(), torch.eye(12).double()[None])
    return gaussian_map(law)


def test_weights_of_few_effective_draws_are_warned_of_once(many_axes, seeded):
    model = WeightedDiamondMap(many_axes, 1.1, proposals=40)
    t = torch.tensor([0.6, 0.6, 0.7], dtype=torch.float64)
    message = r"effective sample size is .* of 40 draws at snr=1.1 and t=0.6 to 0.7; diamond.choose_snr"
    for draw in (model.posterior, model.weighted_posterior):
        with pytest.warns(DegenerateWeights, match=message) as record:
            draw(torch.zeros(3, 12).double(), t, 40, generator=seeded())
        assert len(record) == 1
        assert record[0].filename == __file__


def test_weights_of_few_draws_or_good_ones_are_not_warned_of(many_axes, line, seeded, line_map, states):
    x = torch.zeros(3, 12).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WeightedDiamondMap(many_axes, 1.1).weighted_posterior(x, 0.6, 7, generator=seeded())
        WeightedDiamondMap(line_map(line()), 3.0).weighted_posterior(states, 0.6, 200, generator=seeded())
        diamond.choose_snr(many_axes, x, 0.6, (1.01, 1.02), generator=seeded())


@pytest.mark.parametrize("draws", [4, 7])
def test_of_few_draws_one_that_outweighs_the_rest_in_every_state_is_warned_of(draws, seeded):
    t = torch.full((3,), 0.5)
    alone = torch.randn(draws, 3, generator=seeded())
    alone[1] += 20
    with pytest.warns(
        DegenerateWeights, match=f"largest effective sample size is 1 of {draws} draws at snr=3 and t=0.5"
    ):
        warn_of_degeneracy(alone, "snr=3", t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_degeneracy(alone[:3], "snr=3", t)
        alone[1, 2] -= 20
        warn_of_degeneracy(alone, "snr=3", t)


def test_false_alarms_of_four_draws_are_as_rare_as_is_said(seeded):
    """Of one state, whose weights are at the border of the rule for many draws: of 20000 numbers, 1 in 200."""
    border = math.log(5) ** 0.5 * torch.randn(4, 20000, generator=seeded()).double()
    rate = float((effective_size(border) < ALONE).double().mean())
    assert abs(rate - 0.005) < 4 * (0.005 / 20000) ** 0.5
