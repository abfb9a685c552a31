"""Sequential Monte Carlo: an unbiased evidence and an exact weighted law, whatever the value function."""

import pytest
import torch

from diamond.glass import GlassFlow
from diamond.interpolant import Cosine

POPULATIONS, PARTICLES = 1000, 64  # of a run
VALUES = ["exact", "plugin", "junk", "nothing", "dice", "4 draws"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ess_threshold", [0.0, 0.5, 1.0])
def test_evidence_and_law_are_exact_for_any_value(value, ess_threshold, case_a, mild, check_tilt, run, values):
    out = run(case_a, mild, ess_threshold=ess_threshold, **values[value](case_a, mild))
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("mc", [1, 2, 17])
def test_evidence_and_law_are_exact_for_any_number_of_draws(mc, case_a, gentle, check_tilt, run):
    out = run(case_a, gentle, mc=mc, particles=32 if mc > 2 else PARTICLES, ess_threshold=0.8)
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


@pytest.mark.parametrize("particles", [1, 2, 5, 256])
def test_evidence_and_law_are_exact_for_any_number_of_particles(particles, case_a, gentle, check_tilt, run, values):
    """Unbiased means not off by any power of the number of particles either."""
    out = run(case_a, gentle, particles=particles, ess_threshold=0.9, **values["junk"](case_a, gentle))
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


@pytest.mark.parametrize("resampling", ["systematic", "stratified", "residual", "multinomial"])
def test_evidence_and_law_are_exact_for_any_scheme(resampling, case_a, mild, check_tilt, run, values):
    out = run(case_a, mild, seed=1, resampling=resampling, ess_threshold=0.9, **values["junk"](case_a, mild))
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.4, 0.9])
def test_evidence_and_law_are_exact_for_any_correlation(rho, case_a, mild, check_tilt, run, values):
    out = run(case_a, mild, seed=2, rho=rho, **values["plugin"](case_a, mild))
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("times", [[0, 1], [0, 0.9, 1], [0, 0.05, 0.1, 0.5, 0.99, 1]])
def test_evidence_and_law_are_exact_on_any_grid(times, case_a, mild, check_tilt, run, values):
    out = run(case_a, mild, seed=3, steps=None, times=times, ess_threshold=1.0, **values["exact"](case_a, mild))
    assert out.ess.shape == (len(times) - 1, POPULATIONS)
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("interpolant", [None, Cosine()])
def test_evidence_and_law_are_exact_for_correlated_data_on_any_path(interpolant, correlated, gentle, check_tilt, run):
    model = correlated(interpolant)
    out = run(model, gentle, seed=4, mc=3, ess_threshold=0.9)
    check_tilt(out, gentle.law(model), gentle.log_z(model))


def test_evidence_and_law_are_exact_in_single_precision(case_a, mild, check_tilt, run, values):
    out = run(case_a.float(), mild, seed=5, ess_threshold=0.9, **values["plugin"](case_a, mild))
    assert out.log_weights.dtype == out.samples.dtype == torch.float32
    case_a.double()
    check_tilt(out, mild.law(case_a), mild.log_z(case_a), limit=4)


def test_transitions_of_a_glass_flow_are_as_good_as_their_steps(case_a, gentle, check_mean, run):
    """A GLASS flow over the exact denoiser: what is left is the error of its inner steps."""
    out = run(GlassFlow(case_a, steps=12, solver="heun"), gentle, populations=200, mc=1, steps=4)
    check_mean((out.log_z - gentle.log_z(case_a)).exp(), torch.ones((), dtype=torch.float64), limit=4, slack=0.02)
    means = torch.einsum("bk,bkd->bd", out.log_weights.softmax(-1), out.samples)
    check_mean(means, gentle.law(case_a).mean(), limit=4, slack=0.03)
