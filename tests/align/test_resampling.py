"""Resampling: the law of the offspring, weights of zero, batches, and the effective sample size."""

import math

import numpy as np
import pytest
import torch

from align.resampling import SCHEMES, ess, log_mean_exp, multinomial, pass_over, residual, systematic

WEIGHTS = torch.tensor([0.07, 0.43, 0.12, 0.3, 0.08], dtype=torch.float64)


@pytest.fixture(params=SCHEMES)
def scheme(request):
    """Each scheme in turn."""
    return SCHEMES[request.param]


def offspring(index, count):
    """How often each of `count` indices occurs in a row: `(..., count)`."""
    return torch.nn.functional.one_hot(index, count).sum(-2).double()


def random_weights(rows, count, seed=0):
    draws = torch.rand((rows, count), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (draws**3).log().log_softmax(-1)


def test_each_index_is_expected_in_proportion_to_its_weight(scheme, seeded, check_mean):
    index = scheme(WEIGHTS.log().expand(20_000, 5), generator=seeded())
    check_mean(offspring(index, 5), 5 * WEIGHTS, limit=4)


def test_unnormalised_weights_far_from_one_give_the_same_ancestors(scheme, seeded):
    """Weights live in the log domain: nothing saturates, and no constant matters."""
    log_weights = random_weights(50, 9)
    expected = scheme(log_weights, generator=seeded())
    for constant in (-5e3, 40.0, 5e3):
        assert torch.equal(scheme(log_weights + constant, generator=seeded()), expected)


def test_good_particles_do_not_tie_however_large_their_log_weights(scheme, seeded, check_mean):
    log_weights = torch.tensor([1e4, 1e4 + math.log(3), 0.0, 30.0], dtype=torch.float64)
    counts = offspring(scheme(log_weights.expand(20_000, 4), generator=seeded()), 4)
    check_mean(counts, torch.tensor([1.0, 3.0, 0.0, 0.0], dtype=torch.float64), limit=4)


def test_systematic_counts_are_the_expected_ones_rounded_up_or_down(seeded):
    log_weights = random_weights(3000, 7)
    counts, expected = offspring(systematic(log_weights, generator=seeded()), 7), 7 * log_weights.exp()
    assert ((counts - expected).abs() < 1).all()


@pytest.mark.parametrize("count", [1, 3, 5, 23])
def test_systematic_draws_of_any_number_keep_the_law(count, seeded, check_mean):
    index = systematic(WEIGHTS.log().expand(20_000, 5), count=count, generator=seeded())
    assert index.shape == (20_000, count)
    counts = offspring(index, 5)
    check_mean(counts, count * WEIGHTS, limit=4)
    assert ((counts - count * WEIGHTS).abs() < 1).all()


def test_residual_counts_are_at_least_the_expected_ones_rounded_down(seeded):
    log_weights = random_weights(3000, 7)
    counts, expected = offspring(residual(log_weights, generator=seeded()), 7), 7 * log_weights.exp()
    assert (counts >= (expected - 1e-9).floor()).all()


def test_residual_counts_are_certain_where_the_expected_ones_are_whole(seeded):
    weights = torch.tensor([0.2, 0.0, 0.6, 0.2, 0.0], dtype=torch.float64)  # 0.2 * 5 rounds to a little off 1
    counts = offspring(residual(weights.log().expand(100, 5), generator=seeded()), 5)
    assert torch.equal(counts, torch.tensor([1.0, 0.0, 3.0, 1.0, 0.0], dtype=torch.float64).expand(100, 5))


def test_multinomial_counts_have_the_multinomial_covariance(seeded, check_mean):
    counts = offspring(multinomial(WEIGHTS.log().expand(20_000, 5), generator=seeded()), 5) - 5 * WEIGHTS
    expected = 5 * (torch.diag(WEIGHTS) - WEIGHTS[:, None] * WEIGHTS)
    check_mean(counts[:, :, None] * counts[:, None], expected, limit=4)


def test_other_schemes_have_less_variance_than_multinomial(seeded):
    """The variance of an average after resampling, over many random weights; means over rows, by z-score."""
    log_weights = random_weights(200, 8).repeat_interleave(200, dim=0)
    function = torch.arange(8, dtype=torch.float64).square()
    weights = log_weights[::200].exp()
    exact = 8 * ((weights * function.square()).sum(-1) - (weights @ function).square())  # multinomial
    spread = {}
    for name, scheme in SCHEMES.items():
        sums = function[scheme(log_weights, generator=seeded())].sum(-1).reshape(200, 200)
        spread[name] = (sums - 8 * (weights @ function)[:, None]).square().mean(1) / exact
    error = {name: float(ratio.std()) / 200**0.5 for name, ratio in spread.items()}
    assert abs(float(spread["multinomial"].mean()) - 1) < 4 * error["multinomial"]
    assert float(spread["residual"].mean()) < 1 - 4 * error["residual"]
    assert float(spread["stratified"].mean()) < 1 - 4 * error["stratified"]
    assert float(spread["systematic"].mean()) < 1 - 4 * error["systematic"]


ZEROS = {
    "leading": [0, 0, 0, 2, 1, 3],
    "trailing": [2, 1, 3, 0, 0, 0],
    "between": [2, 0, 1, 0, 0, 3],
    "both ends": [0, 1, 0, 0, 1, 0],
    "all but one": [0, 0, 0, 1, 0, 0],
    "equal ones": [0, 1, 1, 1, 1, 0],
}


@pytest.mark.parametrize("place", ZEROS)
def test_weights_of_zero_are_never_chosen(scheme, place, seeded):
    log_weights = torch.tensor(ZEROS[place], dtype=torch.float64).log().expand(3000, 6)
    assert log_weights.gather(1, scheme(log_weights, generator=seeded())).isfinite().all()


@pytest.mark.parametrize("point", [0.0, 1 - 2**-53], ids=["first", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_zero_are_never_chosen_at_the_ends_of_the_unit_interval(scheme, point, dtype, monkeypatch):
    """Sums of weights round to either side of one: the outermost uniform numbers must not fall off them."""
    ends = torch.full((20,), -torch.inf, dtype=dtype)
    for count in (3, 10, 49, 1000):
        inner = random_weights(40, count).to(dtype)
        log_weights = torch.cat([ends.expand(40, 20), inner, ends.expand(40, 20)], dim=1)
        monkeypatch.setattr("align.resampling.uniform", lambda shape, *_, **kw: torch.full(shape, point, **kw))
        assert log_weights.gather(1, scheme(log_weights)).isfinite().all()


def test_underflowing_weights_are_none(scheme, seeded):
    log_weights = torch.tensor([0.0, -2000.0, -1.0, -3000.0], dtype=torch.float64).expand(2000, 4)
    assert set(scheme(log_weights, generator=seeded()).unique().tolist()) == {0, 2}


def test_equal_weights_in_single_precision_keep_everyone(seeded):
    """A hundred thousand weights in float32: cumulative sums must not lose count."""
    log_weights = torch.full((100_000,), -3.3)
    for scheme in (systematic, residual):
        assert torch.equal(scheme(log_weights, generator=seeded()), torch.arange(100_000))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_weights_are_those_of_their_exact_values(scheme, dtype, seeded):
    log_weights = random_weights(30, 12).to(dtype)
    assert torch.equal(scheme(log_weights, generator=seeded()), scheme(log_weights.double(), generator=seeded()))


BAD = {
    "a row of zeros": [[0.0, 0.0], [-torch.inf, -torch.inf]],
    "nan": [[0.0, torch.nan], [0.0, 0.0]],
    "nan beside zero": [[-torch.inf, torch.nan], [0.0, 0.0]],
    "infinity": [[0.0, 0.0], [torch.inf, 0.0]],
}


@pytest.mark.parametrize("case", BAD)
def test_rows_without_a_law_are_refused(scheme, case):
    with pytest.raises(ValueError, match="^log_weights: got NaN, .inf, or a row of -inf alone"):
        scheme(torch.tensor(BAD[case]))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_shapes_without_a_population_are_refused(scheme, shape):
    with pytest.raises(ValueError, match="^log_weights: got shape"):
        scheme(torch.zeros(shape))


def test_each_row_of_a_batch_has_its_own_weights(scheme, seeded, check_mean):
    log_weights = random_weights(6, 5).reshape(2, 3, 5)
    index = scheme(log_weights.expand(8000, 2, 3, 5), generator=seeded())
    assert index.shape == (8000, 2, 3, 5)
    check_mean(offspring(index, 5), 5 * log_weights.exp(), limit=4.5)


def test_one_population_needs_no_batch_axis(scheme, seeded):
    log_weights = random_weights(1, 9)
    assert torch.equal(scheme(log_weights[0], generator=seeded()), scheme(log_weights, generator=seeded())[0])


def test_rows_of_a_batch_are_independent(seeded):
    """Systematic resampling shares one number in a row, not in a batch."""
    index = systematic(torch.zeros(2000, 2, dtype=torch.float64) + torch.tensor([0.0, 0.5]), generator=seeded())
    first = offspring(index, 2)[:, 0]
    halves = first.reshape(2, 1000)
    assert abs(float(torch.corrcoef(halves)[0, 1])) < 4 / 1000**0.5
    assert first.unique().tolist() == [0.0, 1.0]


def test_a_list_of_generators_serves_each_row_by_itself(scheme, family, seeded):
    log_weights = random_weights(3, 9)
    together = scheme(log_weights, generator=family([5, 6, 7]))
    for row, seed in enumerate([5, 6, 7]):
        assert torch.equal(together[row], scheme(log_weights[row : row + 1], generator=seeded(seed))[0])


def test_the_global_state_is_neither_read_nor_moved(scheme):
    before = torch.get_rng_state()
    draws = [scheme(random_weights(1, 64)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(*draws)


def test_resampling_a_population_of_one_gives_it_back(scheme):
    assert scheme(torch.tensor([[-7.0], [3.0]])).tolist() == [[0], [0]]


def test_effective_sample_size_of_even_and_of_lone_weights():
    lone = torch.tensor([-torch.inf, 2.0, -torch.inf, -torch.inf])
    assert float(ess(torch.full((17,), -4.0))) == pytest.approx(17, rel=1e-5)
    assert float(ess(lone)) == pytest.approx(1, rel=1e-6)


def test_effective_sample_size_of_uneven_weights():
    """`(sum w)^2 / sum w^2`, which no symmetric example tells from its reciprocal or its square root."""
    weights = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]], dtype=torch.float64)
    for constant in (-900.0, 0.0, 900.0):
        sizes = ess(weights.log() + constant)
        assert sizes.tolist() == pytest.approx([1 / 0.54, 2.0])


def test_log_mean_exp_is_the_log_of_the_mean():
    x = torch.tensor([[0.1, -2.0, 1.3], [800.0, 801.0, -torch.inf], [-torch.inf] * 3], dtype=torch.float64)
    means = log_mean_exp(x)
    assert float(means[0]) == pytest.approx(math.log((math.exp(0.1) + math.exp(-2.0) + math.exp(1.3)) / 3))
    assert float(means[1]) == pytest.approx(800 + math.log((1 + math.e) / 3))
    assert float(means[2]) == -math.inf
    assert torch.equal(log_mean_exp(x.T, dim=0), means)


@pytest.mark.parametrize("name", SCHEMES)
def test_passing_over_leaves_the_generator_where_resampling_would(name, family):
    log_weights = torch.randn(3, 7, generator=torch.Generator().manual_seed(5))
    one, other = family([1, 2, 3]), family([1, 2, 3])
    SCHEMES[name](log_weights, generator=one)
    pass_over(SCHEMES[name], log_weights, generator=other)
    for first, second in zip(one, other, strict=True):
        assert torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=second))


@pytest.mark.parametrize("strange", [5, "seed", [5], np.random.default_rng(0)])
def test_what_is_no_generator_is_refused(strange, scheme):
    for call in (scheme, lambda log_weights, generator: pass_over(scheme, log_weights, generator=generator)):
        with pytest.raises(ValueError, match="^generator: got .*, expected a torch.Generator"):
            call(WEIGHTS.log(), generator=strange)
