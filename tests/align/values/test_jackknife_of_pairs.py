"""The jackknife of antithetic draws: one pair of mirror images left out at a time."""

import pytest
import torch

import align


@pytest.mark.parametrize("mc", [4, 16, 18, 38])
@pytest.mark.parametrize("weighted", [False, True])
def test_jackknife_leaves_out_one_pair_of_mirror_images_at_a_time(
    mc, weighted, normal_law, mild, posterior_law, seeded, recording, states, slow_jackknife
):
    """Who mirrors whom is read off the draws: about the posterior's mean, which one is opposite?"""
    law = normal_law([0.4, -0.2], [[0.6, 0.2], [0.2, 0.5]])
    model = recording(law)
    settings = {"antithetic": True, "correction": "jackknife"}
    found = align.value(model if weighted else law, mild, states, 0.4, mc, **settings, generator=seeded())
    align.value(model, mild, states, 0.4, mc, antithetic=True, generator=seeded())
    z, log_weights = (torch.cat(parts) for parts in zip(*model.seen[-((mc + 15) // 16) :], strict=True))
    weights = log_weights.exp() if weighted else torch.ones_like(log_weights)
    middle = posterior_law(law, states, 0.4)[1][:, 0]
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
def test_jackknife_takes_most_of_the_bias_off_antithetic_draws_of_mixtures(
    mc, case_a, mild, seeded, repeated, states, times, by_state
):
    x, t = repeated(4000)
    exact = mild.value(case_a, states, times)
    plain, corrected = (
        by_state(align.value(case_a, mild, x, t, mc, correction=correction, antithetic=True, generator=seeded()))
        - exact
        for correction in (None, "jackknife")
    )
    error = corrected.std(0) / 4000**0.5
    assert (plain.mean(0)[[0, 2, 3]] < -5 * error[[0, 2, 3]]).all()
    assert (corrected.mean(0).abs() < 0.25 * plain.mean(0).abs() + 3 * error).all()


@pytest.mark.parametrize("chunk", [1, 3, 8, 50])
def test_jackknife_of_antithetic_draws_does_not_depend_on_the_chunk(chunk, case_a, mild, seeded, states, times):
    whole, parts = (
        align.value(
            case_a, mild, states, times, 20, correction="jackknife", antithetic=True, generator=seeded(), chunk=size
        )
        for size in (None, chunk)
    )
    assert torch.allclose(parts, whole, rtol=1e-10)


def test_jackknife_of_antithetic_draws_knows_its_edges(case_a, mild, seeded, states, times, forbidding):
    settings = {"correction": "jackknife", "antithetic": True, "generator": seeded()}
    for constant in (-900.0, 3.0, -torch.inf):
        values = align.value(
            case_a, lambda z, c=constant: torch.full((len(z),), c, dtype=z.dtype), states, times, 6, **settings
        )
        assert torch.allclose(values, torch.full_like(values, constant), rtol=1e-12)
    few = align.value(case_a, forbidding, states, times, 4, **settings)
    assert not (few.isnan() | (few == torch.inf)).any()
    with pytest.raises(ValueError, match="^mc: got 2, expected at least 4: the jackknife leaves out one pair"):
        align.value(case_a, mild, states, times, 2, **settings)
    with pytest.raises(ValueError, match="^mc: got 5, expected an even number of antithetic draws"):
        align.value(case_a, mild, states, times, 5, **settings)
