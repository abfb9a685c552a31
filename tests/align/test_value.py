"""Values, against the closed forms of Gaussian mixtures.

`exp V^` is unbiased for every number of draws: most of the tests below are plain z-scores on it.
"""

import pytest
import torch

import align

from diamond.glass import GlassFlow
from diamond.interpolant import Cosine

STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8], [-0.3, 0.2]], dtype=torch.float64)
TIMES = torch.tensor([0.4, 0.6, 0.8, 0.15], dtype=torch.float64)
ROWS = 5000


def repeated(rows=ROWS):
    """The states and times above, `rows` times each."""
    return STATES.repeat_interleave(rows, dim=0), TIMES.repeat_interleave(rows)


def by_state(estimates):
    """Estimates for the rows of :func:`repeated`, as `(rows, states, ...)`."""
    return estimates.reshape(len(STATES), -1, *estimates.shape[1:]).transpose(0, 1)


def exact_gradient(model, reward, x, t):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(reward.value(model, x, t).sum(), x)[0]


# -------------------------------------------------------------------- values


def test_closed_forms_are_those_of_an_independent_computation(case_a, mild, hard):
    """Figures computed elsewhere for this mixture and these rewards."""
    law = mild.law(case_a)
    assert float(mild.log_z(case_a)) == pytest.approx(-1.544201, abs=1e-6)
    assert law.weights.tolist() == pytest.approx([0.85041, 0.14959], abs=1e-5)
    assert law.mean().tolist() == pytest.approx([-1.14818, 0.27864], abs=1e-5)
    assert law.covariance().flatten().tolist() == pytest.approx([0.43671, -0.13129, -0.13129, 0.19141], abs=1e-5)
    assert float(hard.log_z(case_a)) == pytest.approx(-7.246811, abs=1e-6)
    assert hard.law(case_a).mean().tolist() == pytest.approx([-2.2619, 1.2619], abs=1e-4)


@pytest.mark.parametrize("mc", [1, 5, 16, 37])
def test_exponential_of_the_value_is_unbiased_for_any_number_of_draws(mc, case_a, mild, seeded, check_mean):
    x, t = repeated()
    values = align.value(case_a, mild, x, t, mc, generator=seeded())
    check_mean(by_state(values - mild.value(case_a, x, t)).exp(), torch.ones(4, dtype=torch.float64), limit=4)


@pytest.mark.parametrize("interpolant", [None, Cosine()])
def test_values_of_anisotropic_mixtures_and_other_paths(interpolant, correlated, gentle, seeded, check_mean):
    model, (x, t) = correlated(interpolant), repeated()
    values = align.value(model, gentle, x, t, 3, generator=seeded())
    check_mean(by_state(values - gentle.value(model, x, t)).exp(), torch.ones(4, dtype=torch.float64), limit=4)


def test_bias_is_minus_the_squared_variation_over_twice_the_draws(case_a, mild, seeded, check_mean):
    mc = 64
    x, t = repeated(8000)
    exact = mild.value(case_a, STATES, TIMES)
    variation = (mild.twice().value(case_a, STATES, TIMES) - 2 * exact).exp() - 1
    assert float(variation[0]) == pytest.approx(2.58, abs=0.01)
    first_order = -variation / (2 * mc)
    bias = by_state(align.value(case_a, mild, x, t, mc, generator=seeded())) - exact
    check_mean(bias, first_order, limit=4, slack=2 * float((variation / mc).square().max()))
    assert (bias.mean(0) < first_order / 2).all()


def test_values_are_consistent(case_a, mild, seeded):
    values = align.value(case_a, mild, STATES, TIMES, 20_000, generator=seeded())
    exact = mild.value(case_a, STATES, TIMES)
    variation = (mild.twice().value(case_a, STATES, TIMES) - 2 * exact).exp() - 1
    assert ((values - exact).abs() < 4 * (variation / 20_000).sqrt()).all()


def test_value_of_noise_is_the_log_normaliser(case_a, mild, seeded, check_mean):
    values = align.value(case_a, mild, case_a.prior(8000, generator=seeded(1)), 0.0, 4, generator=seeded())
    check_mean((values - mild.log_z(case_a)).exp(), torch.ones((), dtype=torch.float64), limit=4)


def test_value_of_data_is_the_reward(case_a, mild, seeded):
    assert torch.allclose(align.value(case_a, mild, STATES, 1.0, 3, generator=seeded()), mild(STATES), atol=1e-9)


@pytest.mark.parametrize("mc", [1, 16, 40])
def test_constant_rewards_are_their_own_value(mc, case_a):
    for constant in (-900.0, 0.0, 2.5, 900.0):
        values = align.value(case_a, lambda z, c=constant: torch.full((len(z),), c, dtype=z.dtype), STATES, TIMES, mc)
        assert torch.allclose(values, torch.full((4,), constant, dtype=torch.float64), rtol=1e-14, atol=1e-14)


def test_a_constant_more_reward_is_a_constant_more_value(case_a, mild, seeded):
    rewards = mild, lambda z: mild(z) + 700
    plain, more = (align.value(case_a, r, STATES, TIMES, 20, generator=seeded()) for r in rewards)
    assert torch.allclose(more, plain + 700, rtol=1e-12)


@pytest.mark.parametrize("source", ["one", "list"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 8, 20, 64, 1000])
def test_values_do_not_depend_on_the_chunk(source, chunk, case_a, mild, family, seeded):
    """With more draws than are held at once, and more rows than a chunk, or fewer."""

    def values(chunk):
        generator = seeded() if source == "one" else family([1, 2])
        return align.value(case_a, mild, STATES, TIMES, 37, generator=generator, chunk=chunk)

    assert torch.allclose(values(chunk), values(None), rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 4, 9, 100])
def test_no_call_of_network_or_reward_has_more_rows_than_the_chunk(chunk, tiny_flow, mild, seeded):
    seen = []

    def reward(z):
        seen.append(len(z))
        return mild(z)

    align.value(GlassFlow(tiny_flow, steps=2), reward, STATES, TIMES, 21, generator=seeded(), chunk=chunk)
    assert max(seen) <= chunk
    assert sum(seen) == 4 * 21
    assert tiny_flow.net.largest <= chunk


def test_a_state_with_its_own_generator_ignores_the_others(case_a, mild, family):
    together = align.value(case_a, mild, STATES, TIMES, 20, generator=family([1, 2, 3, 4]))
    for row in range(4):
        alone = align.value(
            case_a, mild, STATES[row : row + 1], TIMES[row : row + 1], 20, generator=family([row + 1]), chunk=7
        )
        assert torch.allclose(together[row : row + 1], alone, rtol=1e-12)


def test_the_global_state_is_neither_read_nor_moved(case_a, mild, seeded):
    before = torch.get_rng_state()
    fresh = [align.value(case_a, mild, STATES, TIMES) for _ in range(2)]
    align.value_gradient(case_a, mild, STATES, TIMES)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(*fresh)
    torch.manual_seed(1)
    first = align.value(case_a, mild, STATES, TIMES, generator=seeded())
    torch.manual_seed(2)
    assert torch.equal(align.value(case_a, mild, STATES, TIMES, generator=seeded()), first)


def forbidding(z):
    """Log of the indicator of a half-plane."""
    return torch.where(z[:, 0] < 0, 0.0, -torch.inf)


def share_allowed(model, posterior_law, x, t):
    """`P(z_0 < 0 | x)` by hand, `(B,)`."""
    weights, means, covariances = posterior_law(model, x, t)
    return (weights * torch.special.ndtr(-means[..., 0] / covariances[:, 0, 0].sqrt())).sum(-1)


@pytest.mark.parametrize("mc", [1, 3, 20])
@pytest.mark.parametrize("chunk", [None, 3000])
def test_value_of_a_hard_constraint_is_a_probability(mc, chunk, case_a, posterior_law, seeded, check_mean):
    x = STATES[:1].expand(8000, -1)
    allowed = align.value(case_a, forbidding, x, 0.4, mc, generator=seeded(), chunk=chunk).exp()
    check_mean(allowed, share_allowed(case_a, posterior_law, STATES[:1], 0.4)[0], limit=4)


def test_value_of_the_impossible_is_minus_infinity(case_a):
    values = align.value(case_a, lambda z: torch.full((len(z),), -torch.inf), STATES, TIMES, 20)
    assert (values == -torch.inf).all()


def test_single_precision_stays_single_and_right(case_a, mild, seeded, check_mean):
    x, t = repeated()
    values = align.value(case_a.float(), mild, x.float(), t.float(), 4, generator=seeded())
    assert values.dtype == torch.float32
    gap = values.double() - mild.value(case_a.double(), x, t)
    check_mean(by_state(gap).exp(), torch.ones(4, dtype=torch.float64), limit=4)


def test_conditioning_meets_the_draws_of_its_own_state(still):
    """Draws are stacked before states: conditioning must be repeated in that order, for model and reward alike."""
    x = torch.arange(5, dtype=torch.float64)[:, None]
    cond = 10.0 ** torch.arange(5, dtype=torch.float64)[:, None]

    def reward(z, cond):
        return -(z - cond).abs().squeeze(1)

    for chunk in (None, 1, 2, 7, 100):
        values = align.value(still, reward, x, 0.5, 18, cond=cond, chunk=chunk)
        assert torch.allclose(values, -x.squeeze(1), rtol=1e-9)


BAD_CALLS = {
    "mc": ({"mc": 0}, "^mc: got 0"),
    "t": ({"t": 1.5}, "^t: got times from 1.5 to 1.5"),
    "t's shape": ({"t": torch.zeros(3)}, "^t: got shape"),
    "x_t": ({"x_t": torch.zeros(4, 3)}, "^x_t: got shape"),
    "chunk": ({"chunk": 0}, "^chunk: got 0"),
    "reward": ({"reward": lambda z: z}, "^reward: it returned shape"),
    "generator": ({"generator": [torch.Generator()] * 3}, "^generator: got 3 generators for 4 rows"),
}


@pytest.mark.parametrize("function", [align.value, align.value_gradient])
@pytest.mark.parametrize("case", BAD_CALLS)
def test_what_does_not_fit_is_refused_by_name(function, case, case_a, mild):
    changed, message = BAD_CALLS[case]
    with pytest.raises(ValueError, match=message):
        function(**({"model": case_a, "reward": mild, "x_t": STATES, "t": TIMES} | changed))


# -------------------------------------------------------------------- the jackknife


def slow_jackknife(rewards, weights, groups=None):
    """`n V^ - (n - 1) mean_i V^_{-i}` of one state's draws, `(mc,)` each; what is left out at a time is one of n groups of
    indices, each a draw alone by default."""

    def estimate(kept):
        return ((weights[kept] * rewards[kept].exp()).sum() / weights[kept].sum()).log()

    everyone = range(len(rewards))
    groups = groups or [{i} for i in everyone]
    n = len(groups)
    without = [estimate([j for j in everyone if j not in group]) for group in groups]
    return n * estimate(list(everyone)) - (n - 1) * sum(without) / n


class Weighted(torch.nn.Module):
    """A model whose draws carry weights, which are recorded."""

    def __init__(self, model):
        super().__init__()
        self.model, self.interpolant, self.event_shape, self.seen = model, model.interpolant, model.event_shape, []

    def weighted_posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        z = self.model.posterior(x_t, t, n, generator=generator)
        self.seen.append((z, z[..., 0] / 2))
        return self.seen[-1]


@pytest.mark.parametrize("mc", [2, 5, 21])
@pytest.mark.parametrize("weighted", [False, True])
def test_jackknife_leaves_out_one_draw_at_a_time(mc, weighted, case_a, mild, seeded):
    model = Weighted(case_a)
    source = model if weighted else case_a
    found = align.value(source, mild, STATES, TIMES, mc, correction="jackknife", generator=seeded())
    align.value(model, mild, STATES, TIMES, mc, generator=seeded())
    z, log_weights = (torch.cat(parts) for parts in zip(*model.seen[-((mc + 15) // 16) :], strict=True))
    weights = log_weights.exp() if weighted else torch.ones_like(log_weights)
    expected = [slow_jackknife(mild(z[:, row]), weights[:, row]) for row in range(4)]
    assert torch.allclose(found, torch.stack(expected), rtol=1e-9)


@pytest.mark.parametrize("mc", [16, 32])
def test_jackknife_takes_most_of_the_bias_off(mc, case_a, mild, seeded):
    """The plain bias is some `-CV^2 / 2 mc`, less than a quarter of it is left."""
    x, t = repeated(4000)
    exact = mild.value(case_a, STATES, TIMES)
    plain, corrected = (
        by_state(align.value(case_a, mild, x, t, mc, correction=correction, generator=seeded())) - exact
        for correction in (None, "jackknife")
    )
    error = corrected.std(0) / 4000**0.5
    assert (plain.mean(0)[[0, 2, 3]] < -5 * error[[0, 2, 3]]).all()
    assert (corrected.mean(0).abs() < 0.25 * plain.mean(0).abs() + 2 * error).all()


def test_jackknife_knows_its_edges(case_a, mild, seeded):
    """Of a single draw that is not -inf it says what the plain estimate does; of constants it says them."""
    calls = []

    def once(z):
        calls.append(len(z))
        r = torch.full((len(z),), -torch.inf, dtype=z.dtype)
        r[:4] = 1.5  # the first draw of each state
        return r

    found = align.value(case_a, once, STATES, TIMES, 6, correction="jackknife", generator=seeded())
    assert torch.allclose(found, torch.full_like(found, 1.5) - torch.tensor(6.0).double().log())
    for constant in (-900.0, 3.0, -torch.inf):
        values = align.value(
            case_a,
            lambda z, c=constant: torch.full((len(z),), c, dtype=z.dtype),
            STATES,
            TIMES,
            7,
            correction="jackknife",
        )
        assert torch.allclose(values, torch.full_like(values, constant), rtol=1e-12)
    few = align.value(case_a, forbidding, STATES, TIMES, 6, correction="jackknife", generator=seeded())
    assert not (few.isnan() | (few == torch.inf)).any()
    with pytest.raises(ValueError, match="^mc: got 1, expected a whole number of at least 2"):
        align.value(case_a, mild, STATES, TIMES, 1, correction="jackknife")
    with pytest.raises(ValueError, match="^correction: got 'bootstrap', expected one of jackknife"):
        align.value(case_a, mild, STATES, TIMES, correction="bootstrap")


def test_jackknife_does_not_depend_on_the_chunk(case_a, mild, seeded):
    values = [
        align.value(case_a, mild, STATES, TIMES, 20, correction="jackknife", generator=seeded(), chunk=chunk)
        for chunk in (None, 3, 7)
    ]
    assert torch.allclose(values[0], values[1], rtol=1e-10) and torch.allclose(values[0], values[2], rtol=1e-10)


# -------------------------------------------------------------------- the jackknife of antithetic draws


@pytest.mark.parametrize("mc", [4, 16, 18, 38])
@pytest.mark.parametrize("weighted", [False, True])
def test_jackknife_leaves_out_one_pair_of_mirror_images_at_a_time(
    mc, weighted, normal_law, mild, posterior_law, seeded
):
    """Who mirrors whom is read off the draws: about the posterior's mean, which one is opposite?"""
    law = normal_law([0.4, -0.2], [[0.6, 0.2], [0.2, 0.5]])
    model = Weighted(law)
    settings = {"antithetic": True, "correction": "jackknife"}
    found = align.value(model if weighted else law, mild, STATES, 0.4, mc, **settings, generator=seeded())
    align.value(model, mild, STATES, 0.4, mc, antithetic=True, generator=seeded())
    z, log_weights = (torch.cat(parts) for parts in zip(*model.seen[-((mc + 15) // 16) :], strict=True))
    weights = log_weights.exp() if weighted else torch.ones_like(log_weights)
    middle = posterior_law(law, STATES, 0.4)[1][:, 0]
    for row in range(4):
        noise = z[:, row] - middle[row]
        gaps = (noise[:, None] + noise).norm(dim=-1)
        assert (gaps.amin(1) < 1e-9).all()
        pairs = {frozenset((i, int(mirror))) for i, mirror in enumerate(gaps.argmin(1))}
        assert len(pairs) == mc // 2
        expected = slow_jackknife(mild(z[:, row]), weights[:, row], list(pairs))
        assert float(found[row]) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("mc", [4, 8, 16])
def test_jackknife_takes_most_of_the_bias_off_antithetic_draws(mc, normal_law, seeded):
    """Of `r = 1.2 z` on N(0, 1/2), where leaving out one draw at a time would turn the bias around and enlarge it."""
    model, rows = normal_law([0.0], [[0.5]]), 40_000
    x = torch.zeros(rows, 1, dtype=torch.float64)
    settings = {"x_t": x, "t": 0.0, "mc": mc, "antithetic": True}
    plain, corrected = (
        align.value(model, lambda z: 1.2 * z[:, 0], **settings, correction=correction, generator=seeded()) - 1.2**2 / 4
        for correction in (None, "jackknife")
    )
    error = float(corrected.std()) / rows**0.5
    assert float(plain.mean()) < -10 * error
    assert abs(float(corrected.mean())) < 0.5 * abs(float(plain.mean()))


@pytest.mark.parametrize("mc", [8, 32])
def test_jackknife_takes_most_of_the_bias_off_antithetic_draws_of_mixtures(mc, case_a, mild, seeded):
    x, t = repeated(4000)
    exact = mild.value(case_a, STATES, TIMES)
    plain, corrected = (
        by_state(align.value(case_a, mild, x, t, mc, correction=correction, antithetic=True, generator=seeded()))
        - exact
        for correction in (None, "jackknife")
    )
    error = corrected.std(0) / 4000**0.5
    assert (plain.mean(0)[[0, 2, 3]] < -5 * error[[0, 2, 3]]).all()
    assert (corrected.mean(0).abs() < 0.25 * plain.mean(0).abs() + 3 * error).all()


@pytest.mark.parametrize("chunk", [1, 3, 8, 50])
def test_jackknife_of_antithetic_draws_does_not_depend_on_the_chunk(chunk, case_a, mild, seeded):
    whole, parts = (
        align.value(
            case_a, mild, STATES, TIMES, 20, correction="jackknife", antithetic=True, generator=seeded(), chunk=size
        )
        for size in (None, chunk)
    )
    assert torch.allclose(parts, whole, rtol=1e-10)


def test_jackknife_of_antithetic_draws_knows_its_edges(case_a, mild, seeded):
    settings = {"correction": "jackknife", "antithetic": True, "generator": seeded()}
    for constant in (-900.0, 3.0, -torch.inf):
        values = align.value(
            case_a, lambda z, c=constant: torch.full((len(z),), c, dtype=z.dtype), STATES, TIMES, 6, **settings
        )
        assert torch.allclose(values, torch.full_like(values, constant), rtol=1e-12)
    few = align.value(case_a, forbidding, STATES, TIMES, 4, **settings)
    assert not (few.isnan() | (few == torch.inf)).any()
    with pytest.raises(ValueError, match="^mc: got 2, expected at least 4: the jackknife leaves out one pair"):
        align.value(case_a, mild, STATES, TIMES, 2, **settings)
    with pytest.raises(ValueError, match="^mc: got 5, expected an even number of antithetic draws"):
        align.value(case_a, mild, STATES, TIMES, 5, **settings)


# -------------------------------------------------------------------- antithetic draws


@pytest.mark.parametrize("mc", [2, 6, 18])
def test_exponential_of_the_value_of_antithetic_draws_is_unbiased(mc, correlated, gentle, seeded, check_mean):
    model, (x, t) = correlated(Cosine()), repeated(3000)
    values = align.value(model, gentle, x, t, mc, antithetic=True, generator=seeded())
    check_mean(by_state(values - gentle.value(model, x, t)).exp(), torch.ones(4, dtype=torch.float64), limit=4)


@pytest.mark.parametrize("scale", [0.3, 1.0])
@pytest.mark.parametrize("mc", [2, 8])
def test_antithetic_draws_save_a_known_share_of_the_variance(scale, mc, normal_law, seeded, check_mean):
    """For a linear reward of standard deviation s on a Gaussian posterior `exp V^ / exp V` has the variance
    `(e^{s^2} - 1) / mc`, and `(1 - e^{-s^2})` of that with antithetic draws: E cosh^2 in the place of E exp^2."""
    model, t = normal_law([0.4, -0.2], torch.eye(2, dtype=torch.float64) * 0.6), 0.45
    deviation = (0.6 * 0.55**2 / (0.45**2 * 0.6 + 0.55**2)) ** 0.5
    slope = torch.tensor([0.6, 0.8], dtype=torch.float64) * scale / deviation
    x = STATES[:1].expand(20_000, -1)
    exact = model.value(STATES[:1], t, slope)
    grown = torch.tensor(scale**2).double().exp()
    for antithetic, share in ((False, 1.0), (True, float(1 - 1 / grown))):
        values = align.value(model, lambda z: z @ slope, x, t, mc, antithetic=antithetic, generator=seeded())
        check_mean(((values - exact).exp() - 1).square(), share * (grown - 1) / mc, limit=4)


@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 50])
def test_antithetic_draws_do_not_depend_on_the_chunk(chunk, case_a, mild, seeded, family):
    for source in (lambda: seeded(), lambda: family([1, 2])):
        whole, parts = (
            align.value(case_a, mild, STATES, TIMES, 36, antithetic=True, generator=source(), chunk=size)
            for size in (None, chunk)
        )
        assert torch.allclose(parts, whole, rtol=1e-12)


def test_an_odd_number_of_antithetic_draws_is_refused(case_a, mild):
    for run in (
        lambda: align.value(case_a, mild, STATES, TIMES, 5, antithetic=True),
        lambda: align.value_gradient(case_a, mild, STATES, TIMES, 5, antithetic=True),
        lambda: align.smc(case_a, mild, mc=3, antithetic=True),
        lambda: align.search(case_a, mild, mc=3, antithetic=True),
        lambda: align.guide(case_a, mild, mc=3, antithetic=True),
    ):
        with pytest.raises(ValueError, match="^mc: got [35], expected an even number of antithetic draws"):
            run()
