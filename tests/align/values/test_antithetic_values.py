"""Values from antithetic draws: unbiased still, and of a variance that is known."""

import pytest
import torch

import align

from diamond.interpolant import Cosine


@pytest.mark.parametrize("mc", [2, 6, 18])
def test_exponential_of_the_value_of_antithetic_draws_is_unbiased(
    mc, correlated, gentle, seeded, check_mean, repeated, by_state
):
    model, (x, t) = correlated(Cosine()), repeated(3000)
    values = align.value(model, gentle, x, t, mc, antithetic=True, generator=seeded())
    check_mean(by_state(values - gentle.value(model, x, t)).exp(), torch.ones(4, dtype=torch.float64), limit=4)


@pytest.mark.parametrize("scale", [0.3, 1.0])
@pytest.mark.parametrize("mc", [2, 8])
def test_antithetic_draws_save_a_known_share_of_the_variance(scale, mc, normal_law, seeded, check_mean, states):
    """For a linear reward of standard deviation s on a Gaussian posterior `exp V^ / exp V` has the variance
    `(e^{s^2} - 1) / mc`, and `(1 - e^{-s^2})` of that with antithetic draws: E cosh^2 in the place of E exp^2."""
    model, t = normal_law([0.4, -0.2], torch.eye(2, dtype=torch.float64) * 0.6), 0.45
    deviation = (0.6 * 0.55**2 / (0.45**2 * 0.6 + 0.55**2)) ** 0.5
    slope = torch.tensor([0.6, 0.8], dtype=torch.float64) * scale / deviation
    x = states[:1].expand(20_000, -1)
    exact = model.value(states[:1], t, slope)
    grown = torch.tensor(scale**2).double().exp()
    for antithetic, share in ((False, 1.0), (True, float(1 - 1 / grown))):
        values = align.value(model, lambda z: z @ slope, x, t, mc, antithetic=antithetic, generator=seeded())
        check_mean(((values - exact).exp() - 1).square(), share * (grown - 1) / mc, limit=4)


@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 50])
def test_antithetic_draws_do_not_depend_on_the_chunk(chunk, case_a, mild, seeded, family, states, times):
    for source in (lambda: seeded(), lambda: family([1, 2])):
        whole, parts = (
            align.value(case_a, mild, states, times, 36, antithetic=True, generator=source(), chunk=size)
            for size in (None, chunk)
        )
        assert torch.allclose(parts, whole, rtol=1e-12)


def test_an_odd_number_of_antithetic_draws_is_refused(case_a, mild, states, times):
    for run in (
        lambda: align.value(case_a, mild, states, times, 5, antithetic=True),
        lambda: align.value_gradient(case_a, mild, states, times, 5, antithetic=True),
        lambda: align.smc(case_a, mild, mc=3, antithetic=True),
        lambda: align.search(case_a, mild, mc=3, antithetic=True),
        lambda: align.guide(case_a, mild, mc=3, antithetic=True),
    ):
        with pytest.raises(ValueError, match="^mc: got [35], expected an even number of antithetic draws"):
            run()
