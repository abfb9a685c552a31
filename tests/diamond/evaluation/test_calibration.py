"""Ranks of the truth: uniform for an exact posterior, and not for one that is biased, narrow or wide."""

import pytest
import torch

from diamond.evaluation import random_projections, truth_ranks, uniformity

T, STATES, DRAWS = 0.4, 600, 15


@pytest.fixture
def truth_and_draws(correlated, seeded):
    """Data of a mixture `(B, 2)`, and exact posterior draws given noised data, `(n, B, 2)`."""
    model = correlated()
    z = model.sample(STATES, generator=seeded(1))
    noise = torch.randn(z.shape, generator=seeded(2), dtype=z.dtype)
    x_t = model.interpolant.interpolate(z, noise, torch.full((STATES,), T, dtype=z.dtype))
    return z, model.posterior(x_t, T, DRAWS, generator=seeded(3))


def test_an_exact_posterior_is_calibrated(truth_and_draws, seeded, check_mean):
    ranks = truth_ranks(*truth_and_draws, generator=seeded())
    powers = torch.arange(1, 5, dtype=torch.float64)
    check_mean(ranks[..., None] ** powers, (1 / (powers + 1)).expand(2, -1))
    statistic, p_values = uniformity(ranks)
    assert statistic.shape == (2,) and bool((p_values > 1e-3).all())


@pytest.mark.parametrize("wrong", ["biased", "narrow", "wide", "the prior"])
def test_a_wrong_posterior_is_rejected(wrong, truth_and_draws, seeded):
    z, draws = truth_and_draws
    mean = draws.mean(0)
    draws = {
        "biased": draws + 0.3, "narrow": mean + 0.7 * (draws - mean), "wide": mean + 1.5 * (draws - mean),
        "the prior": draws[:, torch.randperm(STATES, generator=seeded(4))] + 0.4,
    }[wrong]  # fmt: skip
    assert bool((uniformity(truth_ranks(z, draws, generator=seeded()))[1] < 1e-4).all())


def test_ties_are_broken_evenly(truth_and_draws, seeded, check_mean):
    z, draws = (numbers.round() for numbers in truth_and_draws)  # whole numbers, still exchangeable
    ranks = truth_ranks(z, draws, generator=seeded())
    check_mean(torch.stack([ranks, ranks.square()], -1), torch.tensor([1 / 2, 1 / 3]).double().expand(2, 2))
    still = truth_ranks(torch.zeros(500, 1), torch.zeros(7, 500, 1), generator=seeded())
    assert float(uniformity(still)[1]) > 1e-3


def test_a_rank_lies_in_its_cell(seeded):
    draws = torch.tensor([0.1, 0.2, 0.2, 0.9]).reshape(4, 1, 1)
    for truth, low, high in ((0.0, 0, 0.2), (0.15, 0.2, 0.4), (0.2, 0.2, 0.8), (0.5, 0.6, 0.8), (2.0, 0.8, 1)):
        rank = truth_ranks(torch.full((1, 1), truth), draws, generator=seeded())
        assert low <= float(rank) <= high
    with pytest.raises(ValueError, match="^draws: got shape"):
        truth_ranks(torch.zeros(2, 1), draws)


def test_projections_are_of_unit_length_and_every_direction(seeded, check_mean):
    directions = random_projections(torch.zeros(2, 1, 2, 2), 4000, generator=seeded()).flatten(1).double()
    assert torch.allclose(directions.norm(dim=1), torch.ones(4000).double(), atol=1e-6)
    check_mean(directions, torch.zeros(4).double())
    check_mean(directions.square(), torch.full((4,), 0.25).double())
    assert random_projections(torch.zeros(2), 5, generator=seeded()).abs().tolist() == 5 * [1.0]
