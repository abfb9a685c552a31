"""The laws of times, against their distribution functions."""

import pytest
import torch

from scipy.stats import kstest, logistic, norm

from distill.times import LATEST, QUANTILES, draw_times, inner_grid, inner_pairs, uniform_times

CPU = torch.device("cpu")
DISTRIBUTIONS = {
    "uniform": lambda x: x,
    "logit-normal": lambda x: norm.cdf(logistic.ppf(x)),
    "early": lambda x: 1 - (1 - x) ** 2,
}


def test_every_law_is_tested():
    assert DISTRIBUTIONS.keys() == QUANTILES.keys()


@pytest.mark.parametrize("law", DISTRIBUTIONS)
@pytest.mark.parametrize("latest", [1.0, 0.7])
def test_times_have_their_law(law, latest, seeded):
    """One from each cell of equal probability: the empirical distribution is within two cells of the true one, where
    independent draws would be within about fifty, and another law within thousands."""
    times = draw_times(law, 4000, seeded(0), CPU, latest).double() / latest
    assert 0 <= float(times.min()) and float(times.max()) <= 1
    for name, distribution in DISTRIBUTIONS.items():
        distance = kstest(times.numpy(), distribution).statistic
        assert bool(distance < 2 / 4000) is (name == law), (name, distance)


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_each_place_in_the_batch_has_the_law(law, seeded):
    """Cells are dealt at random: the first of many batches is drawn like any."""
    firsts = torch.stack([draw_times(law, 8, seeded(k), CPU)[0] for k in range(1500)])
    assert kstest(firsts.double().numpy(), DISTRIBUTIONS[law]).pvalue > 1e-3


def test_an_unknown_law_is_refused(seeded):
    with pytest.raises(ValueError, match="times: got 'late', expected one of uniform, logit-normal, early"):
        draw_times("late", 3, seeded(), CPU)


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_pairs_off_the_edges_are_two_sorted_times(law, seeded):
    """The earlier of two independent times has `1 - (1 - F)^2` for its law, the later `F^2`."""
    s, r = (times.double().numpy() / LATEST for times in inner_pairs(20_000, 0.0, seeded(1), CPU, law=law))
    cdf = DISTRIBUTIONS[law]
    assert kstest(s, lambda x: 1 - (1 - cdf(x)) ** 2).pvalue > 1e-3
    apart = r > s + 0.01  # close ones are moved to the least distance
    assert kstest(r.clip(max=1), lambda x: cdf(x) ** 2).statistic < 0.02 and apart.mean() > 0.9


def test_pairs_lie_on_the_edges_as_often_as_asked(seeded):
    n, from_zero, to_one = 20_000, 0.25, 0.4
    s, r = inner_pairs(n, from_zero, seeded(0), CPU, to_one=to_one)
    assert bool((r - s > 0.9e-3).all()) and 0 <= float(s.min()) and float(s.max()) <= LATEST and float(r.max()) == 1
    for found, share in ((s == 0, from_zero), (r == 1, to_one)):
        assert abs(float(found.double().mean()) - share) < 4.5 * (share * (1 - share) / n) ** 0.5
    starts, ends = r[s == 0].double().numpy() / LATEST, s[r == 1].double().numpy() / LATEST
    assert kstest(starts, "uniform").pvalue > 1e-3 and kstest(ends, "uniform").pvalue > 1e-3


def test_grids_grow_from_zero_to_one(seeded):
    grid = inner_grid(1000, 8, seeded(0), CPU)
    assert bool((grid.diff(dim=1) > 0).all()) and bool((grid[:, 0] == 0).all()) and bool((grid[:, -1] == 1).all())


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-24])
def test_grids_have_no_step_that_takes_no_time(extreme, monkeypatch, seeded):
    """The velocity between two states of one time is 0 / 0, and shortly before that all rounding."""
    monkeypatch.setattr("distill.times.uniform", lambda shape, *_, **__: torch.full(shape, extreme))
    assert float(inner_grid(3, 8, seeded(0), CPU).diff(dim=1).min()) > 0.9e-3


def test_uniform_times_fill_their_cells(seeded):
    times = uniform_times(500, seeded(2), CPU, 0.5)
    assert torch.equal((times * 1000).floor().sort().values, torch.arange(500.0))
