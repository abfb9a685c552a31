"""Departures from the exact strength: formulas, schedules, intervals, and the law that is no longer followed."""

import pytest
import torch

import align

GRID = [0.0, 0.3, 0.7, 1.0]


STRENGTHS = {  # the shift of a step from t to t + h, from the gradient g, the velocity u and the scale
    "exact": lambda t, h, g, u, scale: h * scale * (1 - t) / t * g,
    "constant": lambda t, h, g, u, scale: h * scale * g,
    "drift": lambda t, h, g, u, scale: h * scale * u.norm(dim=1, keepdim=True) * g / g.norm(dim=1, keepdim=True),
}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("scale", [0.3, lambda t: 1 - t / 2], ids=["number", "schedule"])
def test_every_strength_is_its_formula(strength, scale, case_a, mild, seeded):
    """Step by step, on the linear path without noise; the first step, from pure noise, has no gradient."""
    seen = []
    align.guide(
        case_a, mild, 20, estimator="plugin", strength=strength, scale=scale, times=GRID, callback=seen.append,
        generator=seeded(),
    )  # fmt: skip
    x = case_a.prior(20, generator=seeded())
    for step, t, t_next in zip(seen, GRID[:-1], GRID[1:], strict=True):
        u, h, shift = case_a.velocity(x, t), t_next - t, 0.0
        if t > 0:
            g = align.value_gradient(case_a, mild, x, t, estimator="plugin")
            shift = STRENGTHS[strength](t, h, g, u, scale(t) if callable(scale) else scale)
            assert shift.abs().max() > 0.02
        x = x + h * u + shift
        assert torch.allclose(step.samples[0], x, atol=1e-9)
        x = step.samples[0]


def test_a_gradient_of_zero_leaves_the_drift_alone(case_a, seeded):
    flat, plain = (
        align.guide(case_a, lambda z: 0 * z[:, 0], 5, 4, estimator="plugin", generator=seeded(), **options).samples
        for options in ({"strength": "drift"}, {"scale": 0.0})
    )
    assert torch.allclose(flat, plain)


def test_steps_out_of_the_interval_are_not_guided(case_a, mild, seeded):
    """The reward is asked for its derivative at the steps from 0.3, 0.4, 0.5 and 0.6 of ten, and then once at the end."""
    asked = []

    def reward(z):
        asked.append(z.requires_grad)
        return mild(z)

    out = align.guide(case_a, reward, 5, 10, estimator="plugin", interval=(0.25, 0.65), generator=seeded())
    assert asked == [True] * 4 + [False]
    assert out.law == "none: only steps from 0.25 to 0.65 are guided"
    whole, plain = (
        align.guide(case_a, mild, 5, 10, estimator="plugin", generator=seeded(), **options).samples
        for options in ({}, {"scale": 0.0})
    )
    assert (out.samples - whole).abs().max() > 0.01 and (out.samples - plain).abs().max() > 0.01


def test_departures_say_that_they_follow_no_law(case_a, mild):
    def law(**options):
        return align.guide(case_a, mild, 2, 3, **options).law

    assert law(strength="constant") == "none: the gradient has constant strength"
    assert law(scale=lambda t: t) == "none: the gradient is scaled by a schedule"
    assert law(correct=True, eta=0.5, strength="drift").startswith("p(z) exp r(z) / Z by weight")
