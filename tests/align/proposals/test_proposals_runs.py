"""Whole runs with every proposal, against the tilted law, and what they save."""

import pytest
import torch

from align.proposals import PROPOSALS
from diamond.interpolant import Cosine

RUNS = {
    "lookahead": {"proposal": "lookahead", "ess_threshold": 0.5},
    "lookahead of one draw": {"proposal": "lookahead", "mc": 1, "ess_threshold": 1.0},
    "lookahead of fresh noise": {"proposal": "lookahead", "rho": 0.0, "ess_threshold": 1.0},
    "lookahead, correlated": {"proposal": "lookahead", "rho": 0.4, "mc": 3, "ess_threshold": 0.8},
    "lookahead, never resampled": {"proposal": "lookahead", "ess_threshold": 0.0},
    "lookahead, antithetic": {"proposal": "lookahead", "antithetic": True, "resampling": "multinomial", "mc": 2},
    "reparam": {"proposal": "reparam", "ess_threshold": 0.9, "mc": 2, "particles": 12},
    "score": {"proposal": "score", "ess_threshold": 1.0, "resampling": "stratified"},
    "score, fresh noise": {"proposal": "score", "rho": 0.0, "proposal_strength": 0.5, "ess_threshold": 0.8},
    "plugin": {"proposal": "plugin", "ess_threshold": 1.0, "resampling": "residual"},
    "plugin, never resampled": {"proposal": "plugin", "ess_threshold": 0.0, "proposal_strength": 0.7},
}


@pytest.mark.parametrize("name", RUNS)
def test_evidence_and_law_are_exact_for_any_proposal(name, case_a, gentle, check_tilt, run):
    out = run(case_a, gentle, steps=4, **{"mc": 4, "particles": 32, **RUNS[name]})
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


@pytest.mark.parametrize("name", PROPOSALS)
@pytest.mark.parametrize("ess_threshold", [0.0, 0.5])
def test_evidence_is_unbiased_on_a_mild_tilt_at_full_strength(name, ess_threshold, case_a, mild, check_mean, run):
    """The slope of four draws has heavy tails: a shift that is not cut would hide mass where no particle is seen."""
    out = run(case_a, mild, mc=4, proposal=name, ess_threshold=ess_threshold)
    check_mean((out.log_z - mild.log_z(case_a)).exp(), 1.0, limit=4)


@pytest.mark.parametrize("name", ["lookahead", "score", "plugin"])
def test_evidence_and_law_are_exact_for_correlated_data_on_another_path(name, correlated, gentle, check_tilt, run):
    model = correlated(Cosine())
    out = run(model, gentle, seed=1, populations=800, particles=24, steps=3, mc=4, ess_threshold=0.9, proposal=name)
    check_tilt(out, gentle.law(model), gentle.log_z(model))


@pytest.mark.parametrize("rho", [None, 0.4, 1.0])
def test_evidence_of_a_hard_constraint_is_its_probability(rho, case_a, check_mean, run):
    """Draws that are forbidden now may lead where others are allowed."""

    def forbidding(z):
        return torch.where(z[:, 0] < 0, 0.0, -torch.inf)

    out = run(case_a, forbidding, seed=1, populations=1500, steps=4, proposal="lookahead", rho=rho)
    allowed = case_a.weights @ torch.special.ndtr(-case_a.means[:, 0] / case_a.covariances.sqrt())
    check_mean(out.log_z.exp() / allowed, 1.0, limit=4)


def test_without_resampling_the_weights_are_the_rewards_and_what_is_owed(case_a, mild, run):
    """No strength, nothing owed."""
    none = run(case_a, mild, populations=3, ess_threshold=0.0, proposal="plugin", proposal_strength=0.0)
    assert torch.allclose(none.log_weights, none.rewards, atol=1e-12)
    some = run(case_a, mild, populations=3, ess_threshold=0.0, proposal="plugin")
    assert (some.log_weights - some.rewards).std() > 0.1


def test_a_schedule_of_the_strength_is_asked_at_the_guided_steps(case_a, mild, run):
    asked = []

    def half(t):
        asked.append(t)
        return 0.5

    settings = {"populations": 2, "steps": 4, "proposal": "plugin"}
    scheduled = run(case_a, mild, **settings, proposal_strength=half)
    assert asked == [0.25, 0.5]  # noise tells nothing yet, and the last step has none to shift
    assert torch.equal(scheduled.samples, run(case_a, mild, **settings, proposal_strength=0.5).samples)
    assert scheduled.settings["proposal_strength"] == "schedule"


@pytest.fixture
def spread(run):
    """The standard deviation of `log_z` over 150 populations, and its mean's distance from the truth."""

    def of(reward, model, **options):
        out = run(model, reward, populations=150, particles=64, steps=12, **options)
        return float(out.log_z.std()), abs(float(out.log_z.mean() - reward.log_z(model)))

    return of


@pytest.mark.parametrize("seed", [0, 1])
def test_a_tempered_look_ahead_meets_hard_tilts(seed, case_a, hard, spread):
    """Of equal draws and particles: several times less spread, and a mean that is far less short."""
    plain = spread(hard, case_a, seed=seed, mc=8)
    ahead = spread(hard, case_a, seed=seed, mc=8, proposal="lookahead", tempering=lambda t: t)
    assert ahead[0] < 0.6 * plain[0]
    assert ahead[1] < 0.3 * plain[1]


@pytest.mark.parametrize("name, mc, strength", [("score", 16, 1.0), ("plugin", 1, 0.3)])
def test_gradients_in_small_steps_make_weights_even(name, mc, strength, case_a, quadratic, run):
    """The effective share of particles that are never resampled, so that the proposal alone makes the difference."""
    reward = quadratic([-2.0, 1.0], 0.5)
    guided, plain = (
        run(case_a, reward, populations=1, particles=2000, steps=24, ess_threshold=0.0, **options).ess[-1]
        for options in (
            {"mc": mc, "proposal": name, "proposal_strength": strength, "value": lambda x, t: 0 * t},
            {"mc": 1},
        )
    )
    assert float(guided) > 1.4 * float(plain)
