"""Sequential Monte Carlo: an unbiased evidence and an exact weighted law, whatever the value function.

A thousand independent populations run side by side in one call, so that each claim is a z-score. Claims of exactness
are made on mild tilts, where those scores have power; a claim of efficiency needs a hard one.
"""

import math

import pytest
import torch

import align

from align.resampling import ess
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine

POPULATIONS, PARTICLES = 1000, 64


def exact(model, reward):
    return {"value": lambda x, t: reward.value(model, x, t)}


def plugin(model, reward):
    return {"value": lambda x, t: reward(model.denoise(x, t))}


def junk(model, reward):
    return {"value": lambda x, t: torch.sin(3 * x[:, 0]) - x[:, 1] * t}


def nothing(model, reward):
    return {"value": lambda x, t: torch.zeros_like(t)}


def dice(model, reward):
    """Another value at each call: only an estimate that is kept and moved with its particle cancels."""
    generator = torch.Generator().manual_seed(99)
    return {"value": lambda x, t: torch.randn(len(x), generator=generator, dtype=x.dtype)}


def draws(count):
    return lambda model, reward: {"mc": count}


VALUES = {"exact": exact, "plugin": plugin, "junk": junk, "nothing": nothing, "dice": dice, "4 draws": draws(4)}


def run(model, reward, seed=0, populations=POPULATIONS, particles=PARTICLES, steps=6, **options):
    generator = torch.Generator().manual_seed(seed)
    return align.smc(model, reward, particles, steps, batch=populations, generator=generator, **options)


# -------------------------------------------------------------------- the law


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ess_threshold", [0.0, 0.5, 1.0])
def test_evidence_and_law_are_exact_for_any_value(value, ess_threshold, case_a, mild, check_tilt):
    out = run(case_a, mild, ess_threshold=ess_threshold, **VALUES[value](case_a, mild))
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("mc", [1, 2, 17])
def test_evidence_and_law_are_exact_for_any_number_of_draws(mc, case_a, gentle, check_tilt):
    out = run(case_a, gentle, mc=mc, particles=32 if mc > 2 else PARTICLES, ess_threshold=0.8)
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


@pytest.mark.parametrize("particles", [1, 2, 5, 256])
def test_evidence_and_law_are_exact_for_any_number_of_particles(particles, case_a, gentle, check_tilt):
    """Unbiased means not off by any power of the number of particles either."""
    out = run(case_a, gentle, particles=particles, ess_threshold=0.9, **junk(case_a, gentle))
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


@pytest.mark.parametrize("resampling", ["systematic", "stratified", "residual", "multinomial"])
def test_evidence_and_law_are_exact_for_any_scheme(resampling, case_a, mild, check_tilt):
    out = run(case_a, mild, seed=1, resampling=resampling, ess_threshold=0.9, **junk(case_a, mild))
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.4, 0.9])
def test_evidence_and_law_are_exact_for_any_correlation(rho, case_a, mild, check_tilt):
    out = run(case_a, mild, seed=2, rho=rho, **plugin(case_a, mild))
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("times", [[0, 1], [0, 0.9, 1], [0, 0.05, 0.1, 0.5, 0.99, 1]])
def test_evidence_and_law_are_exact_on_any_grid(times, case_a, mild, check_tilt):
    out = run(case_a, mild, seed=3, times=times, ess_threshold=1.0, **exact(case_a, mild))
    assert out.ess.shape == (len(times) - 1, POPULATIONS)
    check_tilt(out, mild.law(case_a), mild.log_z(case_a))


@pytest.mark.parametrize("interpolant", [None, Cosine()])
def test_evidence_and_law_are_exact_for_correlated_data_on_any_path(interpolant, correlated, gentle, check_tilt):
    model = correlated(interpolant)
    out = run(model, gentle, seed=4, mc=3, ess_threshold=0.9)
    check_tilt(out, gentle.law(model), gentle.log_z(model))


TOGETHER = {  # options of every kind at once; the rooms of each kind test it alone
    "steering": {"value": plugin, "potential": "max", "tempering": lambda t: t, "resampling": "residual"},
    "twisted": {"value": plugin, "proposal": "plugin", "tempering": lambda t: t, "resampling": "stratified"},
    "junk": {
        "value": junk,
        "proposal": "score",
        "antithetic": True,
        "tempering": 0.8,
        "ess_threshold": 0.9,
        "rho": 0.4,
    },
    "exact": {"value": exact, "proposal": "score", "ess_threshold": 0.95, "rho": 0.0},
    "look-ahead": {"proposal": "lookahead", "tempering": 0.9, "antithetic": True, "resampling": "multinomial"},
    "pressed": {"proposal": "lookahead", "tempering": lambda t: t / 2, "potential": "max", "rho": 0.4},
    "one draw": {"mc": 1, "tempering": lambda t: t, "resampling": "residual", "rho": 0.0},
    "slopes": {"proposal": "score", "tempering": 0.9, "potential": "max", "proposal_strength": 0.5},
}


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("interpolant", [None, Cosine()], ids=["linear", "cosine"])
def test_evidence_and_law_are_exact_for_any_options_together(name, interpolant, correlated, gentle, check_tilt):
    model, options = correlated(interpolant), {"mc": 4, "ess_threshold": 1.0, **TOGETHER[name]}
    options |= options.pop("value")(model, gentle) if "value" in options else {}
    out = run(model, gentle, seed=11, populations=800, particles=16, steps=4, **options)
    assert (out.ancestors[1:] != torch.arange(16)).any()
    check_tilt(out, gentle.law(model), gentle.log_z(model))


def test_evidence_and_law_are_exact_in_single_precision(case_a, mild, check_tilt):
    out = run(case_a.float(), mild, seed=5, ess_threshold=0.9, **plugin(case_a, mild))
    assert out.log_weights.dtype == out.samples.dtype == torch.float32
    case_a.double()
    check_tilt(out, mild.law(case_a), mild.log_z(case_a), limit=4)


def test_transitions_of_a_glass_flow_are_as_good_as_their_steps(case_a, gentle, check_mean):
    """A GLASS flow over the exact denoiser: what is left is the error of its inner steps."""
    out = run(GlassFlow(case_a, steps=12, solver="heun"), gentle, populations=200, mc=1, steps=4)
    check_mean((out.log_z - gentle.log_z(case_a)).exp(), torch.ones((), dtype=torch.float64), limit=4, slack=0.02)
    means = torch.einsum("bk,bkd->bd", out.log_weights.softmax(-1), out.samples)
    check_mean(means, gentle.law(case_a).mean(), limit=4, slack=0.03)


def forbidding(z):
    return torch.where(z[:, 0] < 0, 0.0, -torch.inf)


@pytest.mark.parametrize("mc, ess_threshold", [(1, 0.0), (1, 0.5), (2, 1.0), (4, 0.5)])
def test_evidence_of_a_hard_constraint_is_its_probability(mc, ess_threshold, case_a, check_mean):
    """Estimates of -inf from a few unlucky draws must not kill a particle for good."""
    out = run(case_a, forbidding, seed=6, mc=mc, ess_threshold=ess_threshold)
    tails = torch.special.ndtr(-case_a.means[:, 0] / case_a.covariances.sqrt())
    allowed = case_a.weights @ tails
    check_mean(out.log_z.exp() / allowed, torch.ones((), dtype=torch.float64), limit=4)
    weights = out.log_weights.softmax(-1)
    assert not weights[out.samples[..., 0] >= 0].any()
    # the first component's share among the allowed, by its second coordinate's mean
    shares = case_a.weights * tails / allowed
    means = (out.log_z.exp() / allowed)[:, None] * torch.einsum("bk,bkd->bd", weights, out.samples)
    check_mean(means[:, 1], shares @ case_a.means[:, 1], limit=4)


def test_a_value_function_may_say_never(case_a, mild, check_tilt):
    """It may be wrong: the law stays exact."""
    sometimes, always = lambda x, t: torch.where(x[:, 1] > 0.2, -torch.inf, mild(x)), lambda x, t: t - torch.inf
    for value in (sometimes, always):
        out = run(case_a, mild, seed=7, value=value, ess_threshold=0.9)
        check_tilt(out, mild.law(case_a), mild.log_z(case_a))


# -------------------------------------------------------------------- efficiency


def test_hard_tilts_need_the_value_and_get_it(case_a, hard):
    """With equal particles, the evidence of a hard tilt varies far less than that of importance sampling, and the
    weighted mean is better."""
    smc = run(case_a, hard, populations=200, particles=256, steps=12, **exact(case_a, hard))
    plain = align.best_of_n(case_a, hard, 256, batch=200, generator=torch.Generator().manual_seed(0))
    assert float(smc.log_z.std()) < 0.5 * float(plain.log_z.std())
    mean = hard.law(case_a).mean()
    errors = [
        (torch.einsum("bk,bkd->bd", out.log_weights.softmax(-1), out.samples) - mean).norm(dim=1).mean()
        for out in (smc, plain)
    ]
    assert errors[0] < 0.5 * errors[1]
    assert float(smc.ess[-1].mean()) > 10 * float(plain.ess[-1].mean())


def test_exact_values_give_an_evidence_that_tightens_with_the_particles(case_a, mild):
    """One over the square root of their number, at the level measured elsewhere: .172 for 64 and .043 for 1024."""
    for particles, expected in ((64, 0.172), (1024, 0.043)):
        out = run(case_a, mild, populations=300, particles=particles, **exact(case_a, mild))
        spread = float((out.log_z - mild.log_z(case_a)).exp().std())
        assert spread == pytest.approx(expected, rel=0.2)  # four standard errors of a spread over 300


# -------------------------------------------------------------------- identities


def test_without_resampling_the_weights_are_the_rewards(case_a, mild):
    """Importance sampling: every value estimate cancels, and no weight is lost on the way."""
    for value in VALUES.values():
        out = run(case_a, mild, populations=3, ess_threshold=0.0, **value(case_a, mild))
        assert torch.allclose(out.log_weights, out.rewards, atol=1e-12)
        assert torch.allclose(out.log_z, out.rewards.exp().mean(1).log(), atol=1e-12)
        assert torch.allclose(out.ess[-1], ess(out.rewards))


def test_a_high_effective_sample_size_keeps_the_weights(case_a, gentle):
    """A threshold that is never crossed is no resampling at all."""
    low, never = (run(case_a, gentle, populations=5, ess_threshold=c, **exact(case_a, gentle)) for c in (0.05, 0.0))
    assert torch.equal(low.ancestors, torch.arange(PARTICLES).expand(6, 5, -1))
    assert torch.allclose(low.log_weights, low.rewards, atol=1e-12)
    assert float(never.log_weights.std()) > 0.1


@pytest.mark.parametrize("ess_threshold", [0.0, 0.5, 1.0])
def test_a_constant_more_reward_moves_the_evidence_by_it_and_nothing_else(ess_threshold, case_a, mild):
    rewards = mild, lambda z: mild(z) + 321.0
    plain, more = (run(case_a, r, populations=4, ess_threshold=ess_threshold) for r in rewards)
    assert torch.allclose(more.log_z, plain.log_z + 321.0, rtol=1e-12)
    assert torch.equal(more.samples, plain.samples)
    assert torch.equal(more.ancestors, plain.ancestors)
    assert torch.allclose(more.log_weights.softmax(-1), plain.log_weights.softmax(-1), rtol=1e-9)


@pytest.mark.parametrize("mc", [1, 4, 20])
@pytest.mark.parametrize("particles", [1, 3, 50])
def test_constant_rewards_have_even_weights_and_their_own_evidence(mc, particles, case_a):
    for constant in (0.0, -2.0, 3.5):
        out = run(case_a, lambda z, c=constant: torch.full((len(z),), c), populations=5, particles=particles, mc=mc)
        assert torch.allclose(out.log_z, torch.full((5,), constant, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(out.log_weights, out.log_weights[:, :1].expand_as(out.log_weights), atol=1e-12)
        assert torch.allclose(out.ess, torch.full_like(out.ess, particles))
        assert torch.equal(out.ancestors, torch.arange(particles).expand(6, 5, -1))


def test_no_reward_gives_the_base_law(case_a, mild, check_mean):
    out = run(case_a, lambda z: 0 * mild(z), seed=9)
    centred = out.samples.flatten(0, 1) - case_a.mean()
    check_mean(centred, torch.zeros(2, dtype=torch.float64), limit=4)
    check_mean(centred[:, :, None] * centred[:, None], case_a.covariance(), limit=4)


def test_one_step_is_importance_sampling(case_a, mild):
    out = run(case_a, mild, steps=1, populations=3)
    other = align.best_of_n(case_a, mild, PARTICLES, batch=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out.samples, other.samples)
    assert torch.allclose(out.log_z, other.log_z, rtol=1e-14)
    assert torch.equal(out.log_weights, other.log_weights)


def test_rewards_and_values_are_those_of_the_samples(case_a, mild):
    out = run(case_a, mild, populations=4, ess_threshold=1.0)
    assert torch.equal(out.rewards.flatten(), mild(out.samples.flatten(0, 1)))
    assert torch.allclose(out.ess[-1], ess(out.log_weights))


def test_extreme_rewards_do_not_overflow(case_a, mild):
    """Weights live in the log domain from end to end."""
    out = run(case_a, lambda z: 2000 * mild(z) + 1e6, populations=4, mc=2)
    assert out.log_z.isfinite().all() and out.log_weights.isfinite().all()
    assert (out.ess >= 1 - 1e-9).all() and (out.ess <= PARTICLES + 1e-6).all()


# -------------------------------------------------------------------- lineage and independence


@pytest.mark.parametrize("resampling", ["systematic", "stratified", "residual", "multinomial"])
def test_ancestors_lead_back_to_the_start(resampling, still):
    """Particles that never move are found again where their ancestors say, with the weights of their lineage."""
    seen = []
    out = align.smc(
        still, lambda z: 2 * z[:, 0], 10, 5, batch=3, ess_threshold=0.9, resampling=resampling, callback=seen.append,
        generator=torch.Generator().manual_seed(0), value=lambda x, t: (1 + t) * x[:, 0],
    )  # fmt: skip
    assert out.ancestors.shape == (5, 3, 10)
    assert not torch.equal(out.ancestors[1:], torch.arange(10).expand(4, 3, 10))
    log_w = torch.zeros(3, 10, dtype=torch.float64)
    before, start = None, seen[0].samples
    origin = torch.arange(10).expand(3, 10)
    for step, ancestors in zip(seen, out.ancestors, strict=True):
        if before is not None:
            resampled = (ancestors != torch.arange(10)).any(1)
            moved = before.samples.gather(1, ancestors[..., None])
            assert torch.equal(step.samples, moved)
            was, now = 1 + before.t, 1 + step.t
            log_w = torch.where(resampled[:, None], 0.0, log_w) + (now - was) * moved.squeeze(-1)
            assert torch.allclose(step.log_weights, log_w, atol=1e-12)
            origin = origin.gather(1, ancestors)
        else:
            log_w = (1 + step.t) * step.samples.squeeze(-1)
        before = step
    assert torch.equal(out.samples, start.gather(1, origin[..., None]))


def test_populations_are_resampled_only_where_they_need_it(case_a, hard):
    """A population resampled at a step began it with a low effective size; the others kept everyone, and weights."""
    out = run(case_a, hard, populations=50, steps=8, **exact(case_a, hard))
    stayed = (out.ancestors == torch.arange(PARTICLES)).all(-1)
    enough = out.ess >= 0.5 * PARTICLES
    assert stayed[0].all()
    assert torch.equal(stayed[1:], enough[:-1])
    assert stayed[1:].any() and not stayed[1:].all()


def test_a_population_ignores_which_others_run_beside_it(case_a, mild, family):
    """Even where some need resampling and others do not, and whatever the chunk."""
    options = {"particles": 16, "steps": 6, "mc": 3}
    together = align.smc(case_a, mild, batch=6, generator=family(range(6)), **options)
    stayed = (together.ancestors == torch.arange(16)).all(-1)
    assert (stayed[1:].any(1) & ~stayed[1:].all(1)).any()
    for row in range(6):
        for chunk in (None, 7):
            alone = align.smc(case_a, mild, generator=family([row]), chunk=chunk, **options)
            assert torch.allclose(together.samples[row], alone.samples[0], rtol=1e-10)
            assert torch.allclose(together.log_z[row], alone.log_z[0], rtol=1e-10)
            assert torch.equal(together.ancestors[:, row], alone.ancestors[:, 0])


def test_populations_of_one_call_are_independent_of_each_other(case_a, mild):
    """The evidence of the first half of the populations says nothing of the second's."""
    out = run(case_a, mild, seed=10, **exact(case_a, mild))
    halves = out.log_z.reshape(2, -1)
    assert abs(float(torch.corrcoef(halves)[0, 1])) < 4 / (POPULATIONS / 2) ** 0.5


def test_value_functions_see_their_own_copy_and_the_time(case_a, mild):
    """What a value function does to its input stays with it."""
    times = []

    def rude(x, t):
        times.append(float(t[0]))
        assert t.shape == (len(x),) and (t == t[0]).all()
        value = mild(x)
        x.zero_()
        return value

    polite = run(case_a, mild, populations=2, value=lambda x, t: mild(x))
    out = run(case_a, mild, populations=2, value=rude)
    assert torch.equal(out.samples, polite.samples)
    assert times == pytest.approx([k / 6 for k in range(1, 6)])


def test_callbacks_see_every_step_and_change_nothing(case_a, mild):
    seen = []
    out = run(case_a, mild, populations=2, callback=seen.append)
    silent = run(case_a, mild, populations=2)
    assert [step.step for step in seen] == list(range(6))
    assert [step.t for step in seen] == pytest.approx([k / 6 for k in range(1, 7)])
    assert torch.equal(torch.stack([step.ess for step in seen]), out.ess)
    assert torch.equal(seen[-1].samples, out.samples)
    assert torch.equal(seen[-1].log_weights, out.log_weights)
    assert torch.equal(out.samples, silent.samples)
    assert all(step.samples.shape == (2, PARTICLES, 2) for step in seen)


# -------------------------------------------------------------------- cost and refusals


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("chunk", [None, 5])
def test_cost_is_counted_for_one_population(batch, chunk, tiny_flow, mild):
    particles, steps, mc, inner = 4, 5, 3, 2
    out = align.smc(GlassFlow(tiny_flow, steps=inner), mild, particles, steps, mc=mc, batch=batch, chunk=chunk)
    assert out.nfe == particles * inner * (steps + mc * (steps - 1))
    assert out.reward_calls == particles * (mc * (steps - 1) + 1)
    assert out.nfe_backward == 0
    assert out.seconds > 0


def test_value_functions_cost_no_reward_calls(case_a, mild):
    assert run(case_a, mild, populations=2, **nothing(case_a, mild)).reward_calls == PARTICLES


REFUSED = {
    "particles": ({"particles": 0}, "^particles: got 0"),
    "steps": ({"steps": 0}, "^steps: got 0"),
    "mc": ({"mc": 0}, "^mc: got 0"),
    "batch": ({"batch": 0}, "^batch: got 0"),
    "chunk": ({"chunk": 0}, "^chunk: got 0"),
    "ess_threshold": ({"ess_threshold": 1.5}, "^ess_threshold: got 1.5"),
    "ess_threshold nan": ({"ess_threshold": math.nan}, "^ess_threshold: got nan"),
    "resampling": ({"resampling": "ssp"}, "^resampling: got 'ssp', expected one of systematic"),
    "never": ({"resampling": "residual", "ess_threshold": 0}, "^resampling: got 'residual' with ess_threshold=0"),
    "times": ({"times": [0, 0.5, 0.5, 1]}, "^times: got"),
    "rho": ({"rho": 1.5}, "^rho: got"),
    "value": ({"value": 3.0}, "^value: got float"),
    "value's shape": ({"value": lambda x, t: x}, "^value: it returned shape"),
    "value's nan": ({"value": lambda x, t: t * torch.nan}, "^value: it returned nan"),
    "reward's nan": ({"reward": lambda z: z[:, 0] * torch.nan}, "^reward: it returned nan"),
    "generator": ({"generator": [torch.Generator()]}, "^generator: got 1 generators"),
    "strength of none": ({"proposal_strength": 0.5}, "^proposal_strength: got 0.5 with proposal=None"),
    "strength of a look-ahead": (
        {"proposal_strength": 0.5, "proposal": "lookahead"},
        "^proposal_strength: got 0.5 with proposal='lookahead'",
    ),
    "strength": ({"proposal_strength": -1.0, "proposal": "score"}, "^proposal_strength: got -1.0, expected a finite"),
    "strength nan": ({"proposal_strength": math.nan, "proposal": "plugin"}, "^proposal_strength: got nan"),
    "look-ahead of a value": (
        {"proposal": "lookahead", "value": lambda x, t: 0 * t},
        "^value: got a value function with proposal='lookahead'",
    ),
    "antithetic value": (
        {"antithetic": True, "value": lambda x, t: 0 * t},
        "^antithetic: got True with a value function",
    ),
    "antithetic value and mean": (
        {"antithetic": True, "value": lambda x, t: 0 * t, "proposal": "plugin"},
        "^antithetic: got True with a value function",
    ),
    "unused potential": ({"potential": "max", "ess_threshold": 0}, "^potential: got 'max' with ess_threshold=0"),
    "unused tempering": ({"tempering": 0.5, "ess_threshold": 0}, "^tempering: got 0.5 with ess_threshold=0"),
    "idle tempering": ({"tempering": 0.5, "ess_threshold": 0.5}, "^ess_threshold: got 0.5 with tempering=0.5"),
}


def test_options_that_do_not_contradict_each_other_are_welcome(case_a, mild):
    for options in (
        {"antithetic": True, "value": lambda x, t: 0 * t, "proposal": "score"},
        {"tempering": 0.5, "ess_threshold": 0, "proposal": "lookahead"},
        {"tempering": 0.5},
        {"tempering": 0.5, "ess_threshold": 0.6},
    ):
        out = align.smc(case_a, mild, 6, 3, mc=2, batch=2, generator=torch.Generator().manual_seed(0), **options)
        assert out.log_z.isfinite().all()


def test_weighted_draws_are_not_looked_ahead_at(case_a, mild):
    class Weighted(type(case_a)):
        def weighted_posterior(self, x_t, t, n=1, *, cond=None, generator=None):
            raise AssertionError

    model = Weighted(case_a.weights, case_a.means, case_a.covariances)
    with pytest.raises(ValueError, match="^proposal: got 'lookahead' for a Weighted, whose draws are weighted"):
        align.smc(model, mild, proposal="lookahead")


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case, case_a, mild):
    changed, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        align.smc(**({"model": case_a, "reward": mild, "particles": 4, "steps": 3, "batch": 2} | changed))


def test_a_flow_without_a_posterior_is_refused_with_the_way_out(mild):
    with pytest.raises(ValueError, match=r"^model: got Flow, .*diamond\.GlassFlow\(flow\)"):
        align.smc(Flow(lambda x, t: -x, event_shape=(2,)), mild)


def test_populations_without_an_allowed_sample_are_refused(case_a):
    with pytest.raises(ValueError, match="^reward: it returned -inf for every particle of population 0"):
        run(case_a, lambda z: torch.full((len(z),), -torch.inf), populations=2)
