"""Pairs on trajectories: which rows, which points, and how often."""

import math

import pytest
import torch

from scipy.stats import chisquare

from distill.pairs import pairs_along

POINTS = 4


def along(n, from_zero, generator):
    """Pairs of trajectories whose states tell their row and their point: `100 row + point`, at times `point / POINTS`."""
    points = torch.arange(POINTS + 1.0)
    states = (100 * torch.arange(n) + points[:, None])[:, :, None]
    return pairs_along(states, (points / POINTS).expand(n, -1), from_zero, generator)


@pytest.mark.parametrize("n", [1, 2, 5, 64])
@pytest.mark.parametrize("from_zero", [0.0, 0.3, 0.8, 1.0])
def test_pairs_lie_on_their_own_trajectory_as_many_from_the_first_point_as_asked(n, from_zero, seeded):
    pairs = along(n, from_zero, seeded(0))
    row, first, last = 100 * torch.arange(n), pairs.s * POINTS, pairs.r * POINTS
    assert torch.equal(pairs.x[:, 0], row + first) and torch.equal(pairs.known[:, 0], row + last)
    assert bool((first < last).all())
    whole = math.ceil(n * from_zero / 2)
    assert len(pairs.ends) == len(pairs.ends.unique()) == whole
    assert bool((pairs.s[pairs.ends] == 0).all()) and bool((pairs.r[pairs.ends] == 1).all())
    assert int((pairs.s == 0).sum()) >= math.ceil(n * from_zero)


def test_other_pairs_are_two_ordered_points_drawn_with_replacement(seeded):
    """Of K intervals the earlier and the later drawn, the pair leads over both: with probability 2 / K^2, or 1 / K^2 where
    they are one and the same. Pairs from the first point that stop short keep the later one's law."""
    n, from_zero = 40_000, 0.5
    pairs = along(n, from_zero, seeded(0))
    others = torch.ones(n, dtype=torch.bool)
    others[pairs.ends] = False
    i, j = (pairs.s * POINTS).long(), (pairs.r * POINTS).long()
    expected = torch.zeros(POINTS, POINTS + 1)
    for one in range(POINTS):
        for other in range(POINTS):
            share = (1 - from_zero) / POINTS**2
            expected[min(one, other), max(one, other) + 1] += share
            expected[0, max(one, other) + 1] += from_zero / 2 / POINTS**2
    found = torch.zeros_like(expected).index_put_(
        (i[others], j[others]), torch.ones(int(others.sum())), accumulate=True
    )
    possible = expected > 0
    assert not found[~possible].any()
    counts = expected[possible].double() / expected.double().sum() * int(others.sum())
    assert chisquare(found[possible].double().numpy(), counts.numpy()).pvalue > 1e-3


def test_every_trajectory_may_go_all_the_way(seeded):
    generator = seeded(0)
    counts = torch.zeros(8)
    for _ in range(2000):
        counts[along(8, 0.5, generator).ends] += 1
    assert chisquare(counts.numpy()).pvalue > 1e-3
