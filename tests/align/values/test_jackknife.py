"""The jackknife: one draw left out at a time takes most of the bias off."""

import pytest
import torch

import align


@pytest.mark.parametrize("mc", [2, 5, 21])
@pytest.mark.parametrize("weighted", [False, True])
def test_jackknife_leaves_out_one_draw_at_a_time(
    mc, weighted, case_a, mild, seeded, recording, states, times, slow_jackknife
):
    model = recording(case_a)
    source = model if weighted else case_a
    found = align.value(source, mild, states, times, mc, correction="jackknife", generator=seeded())
    align.value(model, mild, states, times, mc, generator=seeded())
    z, log_weights = (torch.cat(parts) for parts in zip(*model.seen[-((mc + 15) // 16) :], strict=True))
    weights = log_weights.exp() if weighted else torch.ones_like(log_weights)
    expected = [slow_jackknife(mild(z[:, row]), weights[:, row]) for row in range(4)]
    assert torch.allclose(found, torch.stack(expected), rtol=1e-9)


@pytest.mark.parametrize("mc", [16, 32])
def test_jackknife_takes_most_of_the_bias_off(mc, case_a, mild, seeded, repeated, states, times, by_state):
    """The plain bias is some `-CV^2 / 2 mc`, less than a quarter of it is left."""
    x, t = repeated(4000)
    exact = mild.value(case_a, states, times)
    plain, corrected = (
        by_state(align.value(case_a, mild, x, t, mc, correction=correction, generator=seeded())) - exact
        for correction in (None, "jackknife")
    )
    error = corrected.std(0) / 4000**0.5
    assert (plain.mean(0)[[0, 2, 3]] < -5 * error[[0, 2, 3]]).all()
    assert (corrected.mean(0).abs() < 0.25 * plain.mean(0).abs() + 2 * error).all()


def test_jackknife_knows_its_edges(case_a, mild, seeded, states, times, forbidding):
    """Of a single draw that is not -inf it says what the plain estimate does; of constants it says them."""
    calls = []

    def once(z):
        calls.append(len(z))
        r = torch.full((len(z),), -torch.inf, dtype=z.dtype)
        r[:4] = 1.5  # the first draw of each state
        return r

    found = align.value(case_a, once, states, times, 6, correction="jackknife", generator=seeded())
    assert torch.allclose(found, torch.full_like(found, 1.5) - torch.tensor(6.0).double().log())
    for constant in (-900.0, 3.0, -torch.inf):
        values = align.value(
            case_a,
            lambda z, c=constant: torch.full((len(z),), c, dtype=z.dtype),
            states,
            times,
            7,
            correction="jackknife",
        )
        assert torch.allclose(values, torch.full_like(values, constant), rtol=1e-12)
    few = align.value(case_a, forbidding, states, times, 6, correction="jackknife", generator=seeded())
    assert not (few.isnan() | (few == torch.inf)).any()
    with pytest.raises(ValueError, match="^mc: got 1, expected a whole number of at least 2"):
        align.value(case_a, mild, states, times, 1, correction="jackknife")
    with pytest.raises(ValueError, match="^correction: got 'bootstrap', expected one of jackknife"):
        align.value(case_a, mild, states, times, correction="bootstrap")


def test_jackknife_does_not_depend_on_the_chunk(case_a, mild, seeded, states, times):
    values = [
        align.value(case_a, mild, states, times, 20, correction="jackknife", generator=seeded(), chunk=chunk)
        for chunk in (None, 3, 7)
    ]
    assert torch.allclose(values[0], values[1], rtol=1e-10) and torch.allclose(values[0], values[2], rtol=1e-10)
