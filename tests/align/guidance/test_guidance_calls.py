"""Guidance at both ends of time, its cost, its weights, and what is refused."""

import pytest
import torch

import align

from diamond.glass import GlassFlow


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("times", [[0, 1], [0, 1e-6, 0.5, 1], [0, 0.5, 1 - 1e-6, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ends_of_time_are_finite_and_near_the_law(estimator, eta, times, dtype, normal_law, mild, seeded):
    model = normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]])
    out = align.guide(model.to(dtype), mild, 50, mc=6, estimator=estimator, eta=eta, times=times, generator=seeded())
    assert out.samples.dtype == dtype
    assert out.samples.abs().max() < 4
    assert torch.equal(out.rewards[0], mild(out.samples[0]))


def test_one_draw_at_the_start_is_finite_for_every_estimator(case_a, mild, seeded):
    for estimator in ("reparam", "plugin"):
        assert align.guide(case_a, mild, 50, 4, 1, estimator=estimator, generator=seeded()).samples.abs().max() < 6


COSTS = {
    "reparam": ({"mc": 3}, 4 + 4 * 3 * 2, 3 * 3 * 2, 4 * 3 + 1),
    "one draw": ({"mc": 1}, 4 + 3 * 2, 3 * 2, 3 + 1),
    "score": ({"mc": 3, "estimator": "score"}, 4 + 4 * 3 * 2, 0, 4 * 3 + 1),
    "plugin": ({"estimator": "plugin"}, 4 + 3, 3, 3 + 1),
}


@pytest.mark.parametrize("case", COSTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_cost_is_counted_for_one_population(case, batch, tiny_flow, mild):
    """Four steps of five particles on inner flows of two: a mean a step, the draws, and the final reward."""
    options, nfe, backward, calls = COSTS[case]
    for chunk in (None, 4):
        out = align.guide(GlassFlow(tiny_flow, steps=2), mild, 5, 4, batch=batch, chunk=chunk, **options)
        assert (out.nfe, out.nfe_backward, out.reward_calls) == (5 * nfe, 5 * backward, 5 * calls)


def test_its_samples_are_unweighted(case_a, mild):
    out = align.guide(case_a, mild, 5, 3, batch=2)
    assert not out.log_weights.any()
    assert torch.allclose(out.ess, torch.full((3, 2), 5.0, dtype=out.ess.dtype))
    assert out.log_z is None
    assert torch.equal(out.ancestors, torch.arange(5).expand(3, 2, 5))


REFUSED = {
    "eta": ({"eta": -0.1}, "^eta: got -0.1"),
    "eta above": ({"eta": 1.1}, "^eta: got 1.1"),
    "eta nan": ({"eta": float("nan")}, "^eta: got nan"),
    "estimator": ({"estimator": "dps"}, "^estimator: got 'dps', expected one of reparam, score, plugin"),
    "particles": ({"particles": 0}, "^particles: got 0"),
    "mc": ({"mc": 0}, "^mc: got 0"),
    "one draw": ({"mc": 1, "estimator": "score"}, "^mc: got 1, expected at least 2"),
    "times": ({"times": [0, 2]}, "^times: got"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case, case_a, mild):
    changed, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        align.guide(**({"model": case_a, "reward": mild, "steps": 3} | changed))
