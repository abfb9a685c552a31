"""Values of rewards, against the closed forms of Gaussian mixtures: unbiased exponentials, the bias of the logarithm, ends."""

import pytest
import torch

import align

from diamond.interpolant import Cosine


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
def test_exponential_of_the_value_is_unbiased_for_any_number_of_draws(
    mc, case_a, mild, seeded, check_mean, repeated, by_state
):
    x, t = repeated()
    values = align.value(case_a, mild, x, t, mc, generator=seeded())
    check_mean(by_state(values - mild.value(case_a, x, t)).exp(), torch.ones(4, dtype=torch.float64), limit=4)


@pytest.mark.parametrize("interpolant", [None, Cosine()])
def test_values_of_anisotropic_mixtures_and_other_paths(
    interpolant, correlated, gentle, seeded, check_mean, repeated, by_state
):
    model, (x, t) = correlated(interpolant), repeated()
    values = align.value(model, gentle, x, t, 3, generator=seeded())
    check_mean(by_state(values - gentle.value(model, x, t)).exp(), torch.ones(4, dtype=torch.float64), limit=4)


def test_bias_is_minus_the_squared_variation_over_twice_the_draws(
    case_a, mild, seeded, check_mean, repeated, states, times, by_state
):
    mc = 64
    x, t = repeated(8000)
    exact = mild.value(case_a, states, times)
    variation = (mild.twice().value(case_a, states, times) - 2 * exact).exp() - 1
    assert float(variation[0]) == pytest.approx(2.58, abs=0.01)
    first_order = -variation / (2 * mc)
    bias = by_state(align.value(case_a, mild, x, t, mc, generator=seeded())) - exact
    check_mean(bias, first_order, limit=4, slack=2 * float((variation / mc).square().max()))
    assert (bias.mean(0) < first_order / 2).all()


def test_values_are_consistent(case_a, mild, seeded, states, times):
    values = align.value(case_a, mild, states, times, 20_000, generator=seeded())
    exact = mild.value(case_a, states, times)
    variation = (mild.twice().value(case_a, states, times) - 2 * exact).exp() - 1
    assert ((values - exact).abs() < 4 * (variation / 20_000).sqrt()).all()


def test_value_of_noise_is_the_log_normaliser(case_a, mild, seeded, check_mean):
    values = align.value(case_a, mild, case_a.prior(8000, generator=seeded(1)), 0.0, 4, generator=seeded())
    check_mean((values - mild.log_z(case_a)).exp(), torch.ones((), dtype=torch.float64), limit=4)


def test_value_of_data_is_the_reward(case_a, mild, seeded, states):
    assert torch.allclose(align.value(case_a, mild, states, 1.0, 3, generator=seeded()), mild(states), atol=1e-9)


@pytest.mark.parametrize("mc", [1, 16, 40])
def test_constant_rewards_are_their_own_value(mc, case_a, states, times):
    for constant in (-900.0, 0.0, 2.5, 900.0):
        values = align.value(case_a, lambda z, c=constant: torch.full((len(z),), c, dtype=z.dtype), states, times, mc)
        assert torch.allclose(values, torch.full((4,), constant, dtype=torch.float64), rtol=1e-14, atol=1e-14)


def test_a_constant_more_reward_is_a_constant_more_value(case_a, mild, seeded, states, times):
    rewards = mild, lambda z: mild(z) + 700
    plain, more = (align.value(case_a, r, states, times, 20, generator=seeded()) for r in rewards)
    assert torch.allclose(more, plain + 700, rtol=1e-12)


@pytest.mark.parametrize("mc", [1, 3, 20])
@pytest.mark.parametrize("chunk", [None, 3000])
def test_value_of_a_hard_constraint_is_a_probability(
    mc, chunk, case_a, seeded, check_mean, states, forbidding, share_allowed
):
    x = states[:1].expand(8000, -1)
    allowed = align.value(case_a, forbidding, x, 0.4, mc, generator=seeded(), chunk=chunk).exp()
    check_mean(allowed, share_allowed(case_a, states[:1], 0.4)[0], limit=4)


def test_value_of_the_impossible_is_minus_infinity(case_a, states, times):
    values = align.value(case_a, lambda z: torch.full((len(z),), -torch.inf), states, times, 20)
    assert (values == -torch.inf).all()


def test_single_precision_stays_single_and_right(case_a, mild, seeded, check_mean, repeated, by_state):
    x, t = repeated()
    values = align.value(case_a.float(), mild, x.float(), t.float(), 4, generator=seeded())
    assert values.dtype == torch.float32
    gap = values.double() - mild.value(case_a.double(), x, t)
    check_mean(by_state(gap).exp(), torch.ones(4, dtype=torch.float64), limit=4)
