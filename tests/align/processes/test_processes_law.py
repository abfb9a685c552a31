"""Evidence and law of one population over two processes are those of one population."""

import pytest
import torch

import align

POPULATIONS, PARTICLES = 2000, 16

SETTINGS = {
    "adaptive": {},
    "every step": {"ess_threshold": 1.0},
    "multinomial": {"ess_threshold": 1.0, "resampling": "multinomial"},
    "tempered": {"tempering": 0.7, "ess_threshold": 0.9},
    "lookahead": {"proposal": "lookahead", "ess_threshold": 0.9},
    "lookahead, tempered, every step": {"proposal": "lookahead", "tempering": 0.7, "ess_threshold": 1.0},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_evidence_and_law_are_those_of_one_population(settings, both, gentle, check_tilt, agreed, case_a):
    options = SETTINGS[settings] | {"particles": PARTICLES, "steps": 4, "batch": POPULATIONS, "mc": 4}
    out = agreed(both("plain", algorithm="smc", **options))
    assert out.samples.shape == (POPULATIONS, PARTICLES, 2)
    assert out.ess.shape == (4, POPULATIONS) and out.ancestors.shape == (4, POPULATIONS, PARTICLES)
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))
    assert (out.inverse_temperatures is None) == ("tempering" not in options)


@pytest.mark.parametrize("settings", [{"particles": 6, "steps": 3, "ess_threshold": 0.9, "mc": 2}])
def test_the_spread_of_the_evidence_does_not_depend_on_the_number_of_processes(
    settings, both, seeded, case_a, gentle, agreed
):
    """Populations of twins, with the same noise in both processes, would spread as those of half the size."""

    def alone(**options):
        return align.smc(case_a, gentle, batch=4000, generator=seeded(1), **settings | options)

    def squares(out):
        z = out.log_z.exp()
        return torch.cat([(z - z.mean()).square()[:, None], out.ess.T], dim=1)

    spread = squares(agreed(both("plain", algorithm="smc", batch=4000, **settings)))

    def score(other):
        error = (spread.var(0) / len(spread) + other.var(0) / len(other)).sqrt()
        return ((spread.mean(0) - other.mean(0)) / error).abs()

    assert (score(squares(alone())) < 4).all()
    assert (score(squares(alone(particles=3)))[0] > 6).all()


def test_the_weights_of_independent_draws_give_the_evidence(both, gentle, check_tilt, agreed, case_a):
    out = agreed(both("plain", algorithm="best_of_n", n=8, batch=4000))
    assert torch.allclose(out.log_z, out.rewards.exp().mean(1).log(), rtol=1e-12)
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))
    assert torch.equal(gentle(out.best()), out.rewards.amax(1))
    first = out.rewards.argmax(1) < 4
    assert 1800 < int(first.sum()) < 2200
