"""Guidance: the flow of the tilted law, its discretisation, and the bias of few draws.

On the line the tilted law's flow is known: it is the increasing map from the noise to the tilted law. So one sample at
a time can be held against it, with gradients of any accuracy.
"""

import io
import math

import pytest
import torch

import align

from align.resampling import ess
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine
from diamond.mixture import GaussianMixtureFlow

SIXTEENTHS = (torch.arange(16, dtype=torch.float64) + 0.5) / 16


class Evenly(GaussianMixtureFlow):
    """A mixture on the line whose posterior draws are evenly spread levels of its law instead of random ones, so that
    averages over 16 calls' draws are quadratures."""

    calls = 0

    def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        weights, means, deviations = self.bayes(x_t, float(torch.as_tensor(t).flatten()[0]))
        offset = SIXTEENTHS[self.calls % 16]
        self.calls += 1
        level = ((torch.arange(n) + offset) / n).expand(len(x_t), n).T  # (n, B)
        tops = weights.cumsum(-1)
        chosen = (level[..., None] > tops[:, :-1]).sum(-1)  # (n, B)
        weight, mean, top = (field.gather(1, chosen.T).T for field in (weights, means, tops))
        inner = ((level - top + weight) / weight).clamp(1e-12, 1 - 1e-12)
        return (mean + deviations[chosen] * torch.special.ndtri(inner))[..., None]

    def bayes(self, x, t):
        """Weights and means `(B, K)` and deviations `(K,)` of the law given `x` `(B, 1)`, by hand."""
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = self.interpolant.alpha(time), self.interpolant.sigma(time)
        spread = alpha**2 * self.covariances + sigma**2
        gap = x - alpha * self.means[:, 0]
        weights = (self.weights.log() - 0.5 * (gap**2 / spread + spread.log())).softmax(-1)
        means = self.means[:, 0] + alpha * self.covariances / spread * gap
        return weights, means, sigma * (self.covariances / spread).sqrt()


class Velocity(torch.nn.Module):
    """A mixture's exact velocity as a network."""

    event_shape = (2,)

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, t):
        return self.model.velocity(x, t)


@pytest.fixture
def evenly(line):
    def make(path=None):
        model = line(path)
        return Evenly(model.weights, model.means, model.covariances, model.interpolant)

    return make


@pytest.fixture
def pull(quadratic):
    """A reward on the line that moves the tilt to the smaller component, and narrows it."""
    return quadratic([-1.0], 0.5)


def images(model, reward, transport, noise):
    """Where the exact flow of the tilted law takes the noise."""
    law = reward.law(model)
    return transport(noise, law.weights, law.means[:, 0], law.covariances.sqrt())


# -------------------------------------------------------------------- the exact flow


@pytest.mark.parametrize("path", [None, Cosine()], ids=["linear", "cosine"])
def test_score_guidance_converges_to_the_flow_of_the_tilted_law(path, evenly, pull, transport, seeded):
    """Sample by sample, and at first order: half the step, half the error."""
    errors = []
    for steps in (32, 64, 128):
        model = evenly(path)
        noise = model.prior(60, generator=seeded())[:, 0]
        out = align.guide(model, pull, 60, steps, 256, estimator="score", generator=seeded())
        errors.append(float((out.samples[0, :, 0] - images(model, pull, transport, noise)).abs().mean()))
    assert errors[2] < 0.02
    assert 1.6 < errors[0] / errors[1] < 2.5
    assert 1.6 < errors[1] / errors[2] < 2.5


def test_reparametrised_guidance_converges_to_the_flow_of_the_tilted_law(normal_law, quadratic, seeded):
    """On a Gaussian with few draws missing: the limit is the affine map to the tilted Gaussian."""
    model, reward = normal_law([0.5, -0.3], torch.eye(2, dtype=torch.float64) * 0.6), quadratic([-0.5, 0.5], 1.0)
    law = reward.law(model)
    noise = model.prior(25, generator=seeded())
    exact = law.mean() + noise * law.covariance()[0, 0].sqrt()
    out = align.guide(model, reward, 25, 24, 64, generator=seeded())
    gap = out.samples[0] - exact
    assert float((exact - noise).abs().mean()) > 0.3
    assert float(gap.abs().mean()) < 0.04
    assert float(gap.mean(0).abs().max()) < 0.015


@pytest.mark.parametrize("estimator, particles, mc", [("score", 1500, 96), ("reparam", 400, 32)])
def test_guided_samples_follow_the_tilted_law(estimator, particles, mc, case_a, mild, seeded, check_mean):
    """In the plane, with random draws: what the steps and draws leave is forgiven in advance, chance is not."""
    out = align.guide(case_a, mild, particles, 40, mc, estimator=estimator, generator=seeded())
    law, base = mild.law(case_a), case_a
    gap = out.samples[0] - law.mean()
    check_mean(gap, torch.zeros(2, dtype=torch.float64), limit=4, slack=0.02)
    check_mean(gap[:, :, None] * gap[:, None], law.covariance(), limit=4, slack=0.03)
    assert (law.mean() - base.mean()).abs().max() > 1  # so that following the base law would not pass


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("path", [None, Cosine()], ids=["linear", "cosine"])
def test_guided_diffusions_follow_the_tilted_law(eta, path, evenly, pull, seeded, check_mean):
    out = align.guide(evenly(path), pull, 2500, 64, 64, estimator="score", eta=eta, generator=seeded())
    law = pull.law(evenly(path))
    gap = out.samples[0, :, 0] - law.mean()
    check_mean(gap, torch.zeros((), dtype=torch.float64), limit=4, slack=0.015)
    check_mean(gap.square(), law.covariance()[0, 0], limit=4, slack=0.02)


def test_a_single_step_lands_on_the_mean_of_the_tilted_law(case_a, mild, seeded):
    """At t = 0, where the gradient is zero and its factor infinite, their product is the shift of the mean."""
    for estimator in ("score", "reparam"):
        out = align.guide(case_a, mild, 3, 1, 6000, estimator=estimator, generator=seeded())
        assert (out.samples[0] - mild.law(case_a).mean()).abs().max() < 0.08


# -------------------------------------------------------------------- no guidance


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_without_scale_it_is_the_base_sampler(estimator, eta, case_a, mild, seeded, check_mean):
    """Euler's method on the linear path without noise, sample by sample; the base law with it."""
    out = align.guide(case_a, mild, 2000, 40, 2, estimator=estimator, scale=0.0, eta=eta, generator=seeded())
    if eta == 0:
        expected = Flow(Velocity(case_a)).sample(2000, 40, generator=seeded())
        assert torch.allclose(out.samples[0], expected, atol=1e-10)
    gap = out.samples[0] - case_a.mean()
    check_mean(gap, torch.zeros(2, dtype=torch.float64), limit=4, slack=0.02)
    check_mean(gap[:, :, None] * gap[:, None], case_a.covariance(), limit=4, slack=0.04)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.8, 1.0])
def test_eta_is_the_share_of_fresh_noise(eta, normal_law, mild, seeded, check_mean):
    """After one step from pure noise, of which DDPM keeps nothing: what is left of it is `sqrt(1 - eta^2)`."""
    model, seen = normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]]), []
    align.guide(model, mild, 5000, 2, estimator="plugin", scale=0.0, eta=eta, callback=seen.append, generator=seeded())
    before, after = model.prior(5000, generator=seeded()), seen[0].samples[0]
    noise = (after - 0.5 * model.mean()) / 0.5
    check_mean(noise * before, torch.full((2,), (1 - eta**2) ** 0.5, dtype=torch.float64), limit=4)
    check_mean(noise.square(), torch.ones(2, dtype=torch.float64), limit=4)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_without_scale_it_is_the_ancestral_sampler_too(eta, case_a, mild, seeded):
    out = align.guide(case_a, mild, 50, 7, estimator="plugin", scale=0.0, eta=eta, generator=seeded())
    assert torch.allclose(out.samples[0], Flow(Velocity(case_a)).sample(50, 7, eta=eta, generator=seeded()), atol=1e-10)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_constant_rewards_guide_nowhere(estimator, case_a, seeded):
    constant, unscaled = (
        align.guide(case_a, lambda z: 0 * z[:, 0] + 3, 20, 6, 4, estimator=estimator, scale=s, generator=seeded())
        for s in (1.0, 0.0)
    )
    assert torch.allclose(constant.samples, unscaled.samples, atol=1e-9)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_a_constant_more_reward_changes_nothing(estimator, case_a, mild, seeded):
    plain, more = (
        align.guide(case_a, r, 20, 6, 4, estimator=estimator, eta=0.7, generator=seeded())
        for r in (mild, lambda z: mild(z) + 400)
    )
    assert torch.allclose(more.samples, plain.samples, rtol=1e-8, atol=1e-9)


# -------------------------------------------------------------------- the bias of few draws


def test_one_draw_overconcentrates(line, pull, seeded):
    """Following the mean gradient of r goes too far and becomes too narrow, to where an independent computation found
    it too; many draws do neither."""
    law = pull.law(line())
    assert [float(law.mean()), float(law.covariance().sqrt())] == pytest.approx([-1.130, 0.676], abs=1e-3)
    one = align.guide(line(), pull, 1500, 40, 1, generator=seeded()).samples[0, :, 0]
    assert [float(one.mean()), float(one.std())] == pytest.approx([-1.606, 0.414], abs=0.05)
    many = align.guide(line(), pull, 600, 24, 32, generator=seeded()).samples[0, :, 0]
    assert [float(many.mean()), float(many.std())] == pytest.approx([-1.130, 0.676], abs=0.11)


def test_one_draw_is_plugin_in_the_mean_for_a_quadratic_reward_on_a_gaussian(normal_law, quadratic, seeded, check_mean):
    """`E grad r(z) = grad r(E z)` for such a reward, and every step is affine in it."""
    model, reward = normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]]), quadratic([-0.5, 0.5], 0.5)
    one, plugin = (
        align.guide(model, reward, 1500, 24, 1, estimator=estimator, generator=seeded()).samples[0]
        for estimator in ("reparam", "plugin")
    )
    check_mean(one - plugin, torch.zeros(2, dtype=torch.float64), limit=4)
    law = reward.law(model)
    assert plugin.var(0).sum() < 0.8 * law.covariance().trace()


def test_it_says_which_law_it_follows(case_a, mild):
    def law(**options):
        return align.guide(case_a, mild, 2, 2, **options).law

    assert "bias of 4 draws" in law()
    assert "bias of 7 draws" in law(mc=7, estimator="score")
    assert "Jensen bias" in law(estimator="plugin")
    assert law(scale=2.0).startswith("none")


def test_more_scale_climbs_higher(case_a, mild, seeded):
    low, middle, high = (
        align.guide(case_a, mild, 400, 16, 4, scale=scale, generator=seeded()).rewards.mean() for scale in (0, 0.5, 1)
    )
    assert low < middle < high


# -------------------------------------------------------------------- ends, black boxes, costs, refusals


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


def test_black_box_rewards_guide_by_their_scores(case_a, mild, seeded):
    """Counts of bytes and votes of judges have no derivative, and the same guidance."""

    def black_box(z):
        return torch.tensor([float(line) for line in io.StringIO("\n".join(map(str, mild(z).tolist())))], dtype=z.dtype)

    black, white = (align.guide(case_a, r, 20, 6, 5, estimator="score", generator=seeded()) for r in (black_box, mild))
    assert torch.allclose(black.samples, white.samples, rtol=1e-10)
    for estimator in ("reparam", "plugin"):
        with pytest.raises(ValueError, match="^reward: .*for a black-box reward take estimator='score'"):
            align.guide(case_a, black_box, 4, 3, estimator=estimator)


def test_hard_constraints_guide_by_their_scores(line, seeded, check_mean):
    """The law of the allowed half of the line, whose indicator has no derivative anywhere."""
    out = align.guide(
        line(), lambda z: torch.where(z[:, 0] < 0, 0.0, -torch.inf), 1500, 48, 96, estimator="score", generator=seeded()
    )
    z, model = out.samples[0, :, 0], line()
    base = model.sample(400_000, generator=seeded(1))[:, 0]
    allowed = base[base < 0]
    assert float((z < 0).double().mean()) > 0.98
    check_mean(z, allowed.mean(), limit=4, slack=0.02)
    check_mean((z - allowed.mean()).square(), allowed.var(), limit=4, slack=0.03)


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


# -------------------------------------------------------------------- departures, schedules, intervals

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


# -------------------------------------------------------------------- correction

CORRECTED = {
    "score": {"estimator": "score", "mc": 4, "eta": 1.0, "scale": 0.5},
    "plugin": {"estimator": "plugin", "eta": 0.7, "scale": 0.4},
    "constant": {"estimator": "plugin", "eta": 0.7, "strength": "constant", "scale": 0.5},
    "drift": {"estimator": "plugin", "eta": 0.5, "strength": "drift", "scale": 0.1},
    "interval": {"estimator": "plugin", "eta": 1.0, "interval": (0.4, 1.0), "scale": lambda t: t},
}


@pytest.mark.parametrize("name", CORRECTED)
def test_corrected_guidance_is_the_tilt_of_the_unguided_walk(name, case_a, gentle, seeded, check_mean):
    """Its evidence and weighted moments, unbiased for any number of particles, against importance sampling of the
    plain walk of the same few steps, which is far from the model's own law."""
    options = CORRECTED[name]
    plain = Flow(Velocity(case_a)).sample(100_000, 4, eta=options["eta"], generator=seeded(1))
    weights = gentle(plain).exp()
    out = align.guide(case_a, gentle, 16, 4, batch=1500, correct=True, generator=seeded(), **options)

    def features(z):
        return torch.cat([torch.ones_like(z[..., :1]), z, z.square(), z[..., :1] * z[..., 1:]], dim=-1)

    reference = weights[:, None] * features(plain)
    expected, error = reference.mean(0), reference.std(0) / 100_000**0.5
    guided = torch.einsum("bk,bkf->bf", out.log_weights.softmax(-1), features(out.samples))
    check_mean(out.log_z.exp()[:, None] * guided, expected, limit=4, slack=3 * error)
    assert (out.log_weights - out.rewards).std() > 0.05
    assert torch.allclose(out.log_z, out.log_weights.logsumexp(1) - math.log(16))


def test_without_scale_the_corrected_weights_are_the_rewards(case_a, mild, seeded):
    out = align.guide(case_a, mild, 20, 5, estimator="plugin", scale=0.0, eta=0.8, correct=True, generator=seeded())
    assert torch.allclose(out.log_weights, out.rewards, atol=1e-12)
    assert torch.allclose(out.ess[-1], ess(out.rewards))
    assert torch.allclose(out.log_z, out.rewards.exp().mean(1).log())


def test_guidance_makes_the_corrected_weights_even(case_a, mild, seeded):
    guided, plain = (
        align.guide(
            case_a, mild, 2000, 32, 16, estimator="score", scale=scale, eta=1.0, correct=True, generator=seeded()
        ).ess[-1]
        for scale in (1.0, 0.0)
    )
    assert float(guided) > 1.3 * float(plain)


UNUSED = {
    "no noise": ({"correct": True}, "^correct: got True with eta=0"),
    "no draws": ({"antithetic": True, "estimator": "plugin"}, "^antithetic: got True with estimator='plugin'"),
    "strength": ({"strength": "weak"}, "^strength: got 'weak', expected one of exact, constant, drift"),
    "interval": ({"interval": (0.7, 0.3)}, r"^interval: got \(0.7, 0.3\)"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_options_that_contradict_each_other_are_refused(case, case_a, mild):
    changed, message = UNUSED[case]
    with pytest.raises(ValueError, match=message):
        align.guide(case_a, mild, 4, 3, **changed)
