"""Tempering: how the inverse temperature is chosen, what it multiplies, and that it cancels."""

import pytest
import torch

import align

from align.resampling import ess
from align.tempering import inverse_temperature, tempered
from diamond.interpolant import Cosine


def run(model, reward, seed=0, populations=800, particles=24, steps=4, **options):
    generator = torch.Generator().manual_seed(seed)
    return align.smc(model, reward, particles, steps, batch=populations, generator=generator, **options)


# -------------------------------------------------------------------- the law

SETTINGS = {
    "schedule": {"tempering": lambda t: t, "mc": 4},
    "schedule from zero": {"tempering": lambda t: max(0.0, 2 * t - 1), "mc": 1, "resampling": "residual"},
    "schedule that falls": {"tempering": lambda t: 1 - t, "mc": 4, "resampling": "stratified"},
    "share": {"tempering": 0.8, "mc": 4},
    "share of one draw": {"tempering": 0.9, "mc": 1, "resampling": "multinomial"},
    "share, fresh noise": {"tempering": 0.9, "mc": 4, "rho": 0.0, "antithetic": True},
    "share, look-ahead": {"tempering": 0.9, "mc": 4, "proposal": "lookahead"},
    "share, scores": {"tempering": 0.9, "mc": 4, "proposal": "score"},
    "schedule, look-ahead": {"tempering": lambda t: t**2, "mc": 3, "proposal": "lookahead", "rho": 0.4},
    "schedule, plugin": {"tempering": lambda t: t, "mc": 2, "proposal": "plugin", "ess_threshold": 0.9},
    "share, max": {"tempering": 0.9, "mc": 2, "potential": "max"},
    "share, given value": {"tempering": 0.6, "value": lambda x, t: x[:, 0] - 2 * torch.sin(3 * x[:, 1])},
    "schedule, given value": {"tempering": lambda t: t, "value": lambda x, t: x[:, 0] - 2 * torch.sin(3 * x[:, 1])},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_evidence_and_law_are_exact_for_any_tempering(name, case_a, gentle, check_tilt):
    out = run(case_a, gentle, **{"ess_threshold": 1.0, **SETTINGS[name]})
    assert (out.inverse_temperatures[:-1] < 1).any()
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


@pytest.mark.parametrize("tempering", [lambda t: t, 0.8])
def test_evidence_and_law_are_exact_for_correlated_data_on_another_path(tempering, correlated, gentle, check_tilt):
    model = correlated(Cosine())
    out = run(model, gentle, seed=1, steps=3, mc=2, tempering=tempering, ess_threshold=1.0)
    check_tilt(out, gentle.law(model), gentle.log_z(model))


def test_it_meets_hard_tilts(case_a, hard):
    """With estimates of few draws: the mean of log_z is far less short of the truth."""
    plain, schedule, share = (
        run(case_a, hard, populations=100, particles=64, steps=12, mc=4, **options).log_z - hard.log_z(case_a)
        for options in ({}, {"tempering": lambda t: t}, {"tempering": 0.7, "ess_threshold": 1.0})
    )
    for better in (schedule, share):
        assert abs(float(better.mean())) < 0.4 * abs(float(plain.mean()))
        assert float(better.std()) < 0.7 * float(plain.std())


# -------------------------------------------------------------------- how it is chosen


def chosen(tempering, weights_at, before):
    return inverse_temperature(tempering, 0.5, weights_at, torch.tensor(before, dtype=torch.float64)[:, None])


def test_a_share_is_met_up_to_the_bisection(seeded):
    """By each population at its own temperature, below and above the last one alike."""
    scale = torch.tensor([[1.0], [5.0], [60.0], [0.01]], dtype=torch.float64)
    rewards = scale * torch.randn(4, 500, dtype=torch.float64, generator=seeded())
    for share in (0.2, 0.5, 0.9):
        beta = chosen(share, lambda b: b * rewards, [0.0] * 4)
        sizes = ess(beta * rewards)
        limited = beta[:, 0] < 1
        assert limited.tolist()[1:] == [True, True, False]
        assert torch.allclose(sizes[limited], torch.full_like(sizes[limited], share * 500), rtol=1e-4)
        assert (sizes >= share * 500 - 1e-6).all()


def test_where_the_share_is_below_reach_the_last_temperature_stays(seeded):
    rewards = 30 * torch.randn(2, 100, dtype=torch.float64, generator=seeded())
    beta = chosen(0.5, lambda b: b * rewards, [0.8, 0.0])
    assert beta[0] == 0.8
    assert 0 < beta[1] < 0.1


def test_the_share_is_that_of_the_weights_that_follow(case_a, hard):
    """Of the particles as a callback finds them, at each step before the last; temperatures only rise."""
    seen = []
    out = run(
        case_a, hard, populations=20, particles=200, steps=6, mc=4, tempering=0.6, ess_threshold=1.0,
        callback=seen.append,
    )  # fmt: skip
    beta = out.inverse_temperatures
    assert beta.shape == (6, 20)
    assert (beta[-1] == 1).all() and (beta.diff(dim=0) >= 0).all()
    raised = torch.cat([beta[:1], beta[:-1].diff(dim=0)]) > 1e-6
    sizes = torch.stack([ess(step.log_weights) for step in seen[:-1]])
    assert torch.allclose(sizes[raised], torch.full_like(sizes[raised], 120.0), rtol=1e-3)
    assert raised.sum() > 40


def test_populations_choose_for_themselves(case_a, mild):
    """One whose rewards vary little is not tempered for another's sake."""
    wild = type(mild)(mild.centre.tolist(), 0.01)
    out = align.smc(case_a, [mild, wild], 100, 4, batch=2, tempering=0.1, generator=torch.Generator().manual_seed(0))
    assert (out.inverse_temperatures[:, 0] == 1).all()
    assert (out.inverse_temperatures[:-1, 1] < 0.9).all()


def test_a_schedule_is_used_as_given(case_a, mild):
    asked = []

    def schedule(t):
        asked.append(t)
        return t / 2

    out = run(case_a, mild, populations=3, tempering=schedule, steps=4)
    assert asked == [0.25, 0.5, 0.75]
    assert out.inverse_temperatures.tolist() == [[b] * 3 for b in (0.125, 0.25, 0.375, 1.0)]
    assert run(case_a, mild, populations=3).inverse_temperatures is None


# -------------------------------------------------------------------- what it multiplies


def test_values_that_are_given_are_multiplied(case_a, mild):
    """Never resampled, the weights are the tempered values."""
    seen, values = [], []

    def value(x, t):
        values.append(torch.where(x[:, 0] > 1, -3.0, torch.sin(4 * x[:, 0])))
        return values[-1]

    schedule = lambda t: t**2  # noqa: E731
    run(case_a, mild, populations=2, value=value, tempering=schedule, ess_threshold=1e-9, callback=seen.append, steps=4)
    for step, answer in zip(seen[:-1], values, strict=True):
        assert torch.allclose(step.log_weights.flatten(), step.t**2 * answer, atol=1e-12)


def test_estimates_are_of_the_tempered_reward(still):
    """Not the tempered log-mean-exp, but that of tempered rewards: of draws with rewards 0 and 4 for every particle."""

    class Two(type(still)):
        def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
            return torch.arange(n, dtype=torch.float64)[:, None, None].expand(n, *x_t.shape)

    seen = []
    align.smc(
        Two(), lambda z: 4 * z[:, 0], 3, 2, mc=2, tempering=lambda t: 0.25, ess_threshold=1e-9, callback=seen.append
    )
    expected = torch.tensor([0.0, 1.0]).double().exp().mean().log()
    assert torch.allclose(seen[0].log_weights, expected.expand(1, 3), atol=1e-12)


def test_never_stays_never():
    rewards = torch.tensor([[-torch.inf, -2.0, 3.0]])
    assert tempered(rewards, torch.tensor([[0.5]])).tolist() == [[-torch.inf, -1.0, 1.5]]
    assert tempered(rewards, torch.tensor([[0.0]])).tolist() == [[-torch.inf, 0.0, 0.0]]


def test_forbidden_draws_stay_forbidden_at_every_temperature(case_a, check_mean):
    for tempering, proposal in ((lambda t: 0.0, None), (0.9, "lookahead")):
        out = run(
            case_a, lambda z: torch.where(z[:, 0] < 0, 0.0, -torch.inf), seed=3, mc=2, tempering=tempering,
            proposal=proposal, ess_threshold=1.0,
        )  # fmt: skip
        allowed = case_a.weights @ torch.special.ndtr(-case_a.means[:, 0] / case_a.covariances.sqrt())
        check_mean(out.log_z.exp() / allowed, 1.0, limit=4)


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize("tempering", [0.0, 1.0, -0.5, 2, True, "linear", float("nan")])
def test_what_is_no_share_or_schedule_is_refused(tempering, case_a, mild):
    with pytest.raises(ValueError, match="^tempering: got .*expected a callable"):
        align.smc(case_a, mild, tempering=tempering)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_schedules_that_leave_their_range_are_refused(value, case_a, mild):
    with pytest.raises(ValueError, match=r"^tempering: it returned .* at t = 0.125, expected a number in \[0, 1\]"):
        align.smc(case_a, mild, tempering=lambda t: value)
