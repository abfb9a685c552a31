"""Gradients of values, against the closed forms of Gaussian mixtures.

`exp V^` is unbiased, and so is `exp(V^) grad V^` of both Monte Carlo estimators up to a known factor, for every number
of draws: the tests below are plain z-scores on these.
"""

import weakref

import pytest
import torch

import align

from align.draws import posterior_blocks
from align.gradient import mean_shift, population_gradient
from align.population import Population
from align.scoring import Scorer
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine, Linear
from diamond.randomness import normal

STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8], [-0.3, 0.2]], dtype=torch.float64)
TIMES = torch.tensor([0.4, 0.6, 0.8, 0.15], dtype=torch.float64)
ROWS = 5000


def repeated(rows=ROWS):
    """The states and times above, `rows` times each."""
    return STATES.repeat_interleave(rows, dim=0), TIMES.repeat_interleave(rows)


def by_state(estimates):
    """Estimates for the rows of :func:`repeated`, as `(rows, states, ...)`."""
    return estimates.reshape(len(STATES), -1, *estimates.shape[1:]).transpose(0, 1)


def exact_gradient(model, reward, x, t):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(reward.value(model, x, t).sum(), x)[0]


def forbidding(z):
    """Log of the indicator of a half-plane."""
    return torch.where(z[:, 0] < 0, 0.0, -torch.inf)


def share_allowed(model, posterior_law, x, t):
    """`P(z_0 < 0 | x)` by hand, `(B,)`."""
    weights, means, covariances = posterior_law(model, x, t)
    return (weights * torch.special.ndtr(-means[..., 0] / covariances[:, 0, 0].sqrt())).sum(-1)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
@pytest.mark.parametrize("mc", [2, 5, 21])
def test_weighted_by_its_evidence_the_gradient_is_unbiased(estimator, mc, case_a, mild, seeded, check_mean):
    r"""`E[exp(V^) g] = exp(V) grad V` for the derivative of V^, and `(1 - 1/mc)` times it for the covariance of draws:
    value and gradient see the same draws from the same seed."""
    x, t = repeated()
    gradients = align.value_gradient(case_a, mild, x, t, mc, estimator, generator=seeded())
    evidence = (align.value(case_a, mild, x, t, mc, generator=seeded()) - mild.value(case_a, x, t)).exp()
    expected = exact_gradient(case_a, mild, STATES, TIMES) * (1 - 1 / mc if estimator == "score" else 1)
    check_mean(by_state(evidence[:, None] * gradients), expected, limit=4)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_gradients_on_anisotropic_mixtures_and_other_paths(estimator, correlated, gentle, seeded, check_mean):
    model, (x, t) = correlated(Cosine()), repeated(3000)
    gradients = align.value_gradient(model, gentle, x, t, 4, estimator, generator=seeded())
    evidence = (align.value(model, gentle, x, t, 4, generator=seeded()) - gentle.value(model, x, t)).exp()
    expected = exact_gradient(model, gentle, STATES, TIMES) * (0.75 if estimator == "score" else 1)
    check_mean(by_state(evidence[:, None] * gradients), expected, limit=4)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_gradients_are_consistent(estimator, case_a, mild, seeded, check_mean):
    """The bias falls as one over the number of draws; what is left of it at 512 is forgiven by that law."""
    exact = exact_gradient(case_a, mild, STATES, TIMES)

    def estimates(mc, rows):
        return by_state(align.value_gradient(case_a, mild, *repeated(rows), mc, estimator, generator=seeded()))

    few, many = estimates(8, 3000), estimates(512, 60)
    bias = (few.mean(0) - exact).abs().max()
    check_mean(many, exact, limit=4, slack=float(bias) * 8 / 512 * 2)
    assert float(bias) > 4 * float((few.std(0) / 3000**0.5).max())


def test_one_draw_gives_a_gradient_too_large_by_a_known_factor(normal_law, seeded, quadratic, check_mean):
    """For `r = -lam |z - c|^2` on a Gaussian, `E[grad r] = (1 + 2 lam v) grad V`, with v the posterior's variance."""
    model, lam, t = normal_law([0.4, -0.2], torch.eye(2, dtype=torch.float64) * 0.6), 1.5, 0.45
    reward = quadratic([-1.0, 0.5], 1 / (2 * lam))
    posterior_variance = 0.6 * (1 - t) ** 2 / (t**2 * 0.6 + (1 - t) ** 2)
    gradients = align.value_gradient(model, reward, STATES[:1].expand(20_000, -1), t, 1, generator=seeded())
    exact = exact_gradient(model, reward, STATES[:1], t)[0]
    check_mean(gradients, (1 + 2 * lam * posterior_variance) * exact, limit=4)


def test_plugin_is_the_gradient_at_the_posterior_mean(case_a, mild):
    x = STATES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(mild(case_a.denoise(x, TIMES)).sum(), x)
    for chunk in (None, 1, 3):
        found = align.value_gradient(case_a, mild, STATES, TIMES, estimator="plugin", chunk=chunk)
        assert torch.allclose(found, expected, rtol=1e-12)


def test_plugin_overshoots_where_the_posterior_is_wide(case_a, mild):
    """Its bias does not vanish: that is what the draws are for."""
    plugin = align.value_gradient(case_a, mild, STATES, TIMES, estimator="plugin")
    assert (plugin - exact_gradient(case_a, mild, STATES, TIMES)).norm(dim=1).max() > 0.2


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 50, 1000])
def test_gradients_do_not_depend_on_the_chunk(estimator, chunk, case_a, mild, seeded, family):
    for source in (lambda: seeded(), lambda: family([1, 2])):
        whole, parts = (
            align.value_gradient(case_a, mild, STATES, TIMES, 19, estimator, generator=source(), chunk=size)
            for size in (None, chunk)
        )
        assert torch.allclose(parts, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_gradients_ignore_a_constant_and_survive_large_rewards(estimator, case_a, mild, seeded):
    plain, more = (
        align.value_gradient(case_a, r, STATES, TIMES, 20, estimator, generator=seeded())
        for r in (mild, lambda z: mild(z) + 5000)
    )
    assert torch.allclose(more, plain, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("estimator", ["reparam", "plugin"])
def test_rewards_without_a_derivative_are_refused_where_one_is_needed(estimator, case_a, mild):
    with pytest.raises(ValueError, match="^reward: .*for a black-box reward take estimator='score'"):
        align.value_gradient(case_a, lambda z: mild(z.detach()), STATES, TIMES, estimator=estimator)


def test_rewards_without_a_derivative_are_welcome_to_the_score_estimator(case_a, mild, seeded):
    black_box, white_box = (
        align.value_gradient(case_a, r, STATES, TIMES, 9, "score", generator=seeded())
        for r in (lambda z: mild(z.detach()), mild)
    )
    assert torch.equal(black_box, white_box)


def test_score_estimator_refuses_what_it_cannot_do(case_a, mild):
    with pytest.raises(ValueError, match="^mc: got 1, expected at least 2"):
        align.value_gradient(case_a, mild, STATES, TIMES, 1, "score")
    with pytest.raises(ValueError, match="^t: got 1, expected times before it"):
        align.value_gradient(case_a, mild, STATES, 1.0, 4, "score")
    with pytest.raises(ValueError, match="^estimator: got 'scores', expected one of reparam, score, plugin"):
        align.value_gradient(case_a, mild, STATES, TIMES, 4, "scores")


def test_plugin_takes_no_antithetic_draws(case_a, mild):
    with pytest.raises(ValueError, match="^antithetic: got True with estimator='plugin', which takes no draws; leave"):
        align.value_gradient(case_a, mild, STATES, TIMES, estimator="plugin", antithetic=True)


class HalfPrecision:
    """A model of bfloat16 states: every draw is its state and noise, one apart; the draws are recorded."""

    interpolant, event_shape = Linear(), (1,)

    def __init__(self):
        self.seen = []

    def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        z = x_t + normal((n, *x_t.shape), generator, batch_axis=1, dtype=x_t.dtype)
        self.seen.append(z.detach())
        return z


@pytest.mark.parametrize("estimator", ["reparam", "score"])
@pytest.mark.parametrize("chunk", [None, 8])
def test_half_precision_states_have_their_means_summed_in_single_precision(estimator, chunk, seeded):
    """Against the same draws in double precision, to the last bits of the result. Means near 8 are known to 1/32 only in
    bfloat16, and sums stop growing there at 256 times what is added."""
    model, x, mc = HalfPrecision(), torch.tensor([[8.0], [-6.0]], dtype=torch.bfloat16), 6000

    def reward(z):
        return z.float()[:, 0] / 2

    found = align.value_gradient(model, reward, x, 0.5, mc, estimator, generator=seeded(), chunk=chunk)
    assert found.dtype == torch.bfloat16
    if estimator == "reparam":
        expected = torch.full((2, 1), 0.5, dtype=torch.float64)  # dz/dx = 1
    else:
        z = torch.cat(model.seen).double()  # each block has both states
        expected = 2 * (((z / 2).softmax(0) * z).sum(0) - z.mean(0))  # alpha / sigma^2 = 2
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5)


def test_gradients_at_noise_vanish_and_the_mean_shift_does_not(case_a, mild, seeded, check_mean):
    """`grad V_0 = 0`, while `E_w[z] - E[z]` tends to the shift of the whole law's mean."""
    x = STATES[:1].expand(4000, -1)
    assert not align.value_gradient(case_a, mild, STATES, 0.0, 9, "score", generator=seeded()).any()
    assert align.value_gradient(case_a, mild, STATES, 0.0, 9, generator=seeded()).abs().max() < 1e-9
    blocks = posterior_blocks(case_a, x, torch.zeros(4000, dtype=torch.float64), 4, None, seeded(), None)
    shift = mean_shift(Scorer(mild), x, 4, blocks, None)
    evidence = (align.value(case_a, mild, x, 0.0, 4, generator=seeded()) - mild.log_z(case_a)).exp()
    check_mean(evidence[:, None] * shift, 0.75 * (mild.law(case_a).mean() - case_a.mean()), limit=4)


def test_hard_constraints_have_a_score_gradient(case_a, posterior_law, seeded, check_mean):
    """The derivative of `log P(z_0 < 0 | x)`, though the reward itself has none."""
    x = STATES[:1].clone().requires_grad_()
    share = share_allowed(case_a, posterior_law, x, 0.4)
    (expected,) = torch.autograd.grad(share.log().sum(), x)
    many = STATES[:1].expand(8000, -1)
    for chunk in (None, 5000):
        gradients = align.value_gradient(case_a, forbidding, many, 0.4, 4, "score", generator=seeded(), chunk=chunk)
        evidence = align.value(case_a, forbidding, many, 0.4, 4, generator=seeded()).exp() / share.detach()
        check_mean(evidence[:, None] * gradients, 0.75 * expected[0], limit=4)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_states_with_no_allowed_draw_have_a_gradient_of_zero(estimator, case_a):
    def never(z):
        return torch.where(z[:, 0] < 100, -torch.inf, z[:, 0])

    assert not align.value_gradient(case_a, never, STATES, TIMES, 20, estimator).any()


def test_partly_forbidden_draws_leave_the_others_their_gradient(case_a, mild, seeded):
    """A reward of -inf has weight zero and no derivative; the rest are differentiated as ever."""

    def half(z):
        return torch.where(z[:, 0] < 0, mild(z), -torch.inf)

    found = align.value_gradient(case_a, half, STATES[:1], 0.4, 12, generator=seeded())
    x = STATES[:1].clone().requires_grad_()
    z = case_a.posterior(x, 0.4, 12, generator=seeded())[:, 0]
    allowed = z[:, 0] < 0
    assert 0 < int(allowed.sum()) < 12
    (expected,) = torch.autograd.grad(mild(z[allowed]).logsumexp(0), x)
    assert torch.allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("chunk", [None, 8])
def test_memory_of_the_gradient_does_not_grow_with_the_draws(chunk, tiny_flow, mild, seeded):
    """The most numbers that autograd ever keeps at once, and the most draws alive at once."""
    model = GlassFlow(tiny_flow, steps=2)

    class Held:
        def __init__(self, tensor):
            self.tensor = tensor
            count["held"] += tensor.numel()
            count["most held"] = max(count["most held"], count["held"])
            weakref.finalize(self, release, tensor.numel())

    def release(size):
        count["held"] -= size

    def reward(z):
        alive.append(weakref.ref(z))
        count["most draws"] = max(count["most draws"], sum(len(r()) for r in alive if r() is not None))
        return mild(z)

    peaks = []
    for mc in (32, 64, 256):
        count, alive = {"held": 0, "most held": 0, "most draws": 0}, []
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            align.value_gradient(model, reward, STATES, TIMES, mc, generator=seeded(), chunk=chunk)
        assert count["most held"] > 0
        peaks.append((count["most held"], count["most draws"]))
    assert peaks[0] == peaks[1] == peaks[2]


def test_gradients_leave_no_trace_on_state_reward_or_graph(case_a, seeded):
    reward = torch.nn.Sequential(torch.nn.Linear(2, 1, dtype=torch.float64), torch.nn.Flatten(0))
    x = STATES.clone().requires_grad_()
    with torch.no_grad():
        first = align.value_gradient(case_a, reward, x, TIMES, generator=seeded())
    second = align.value_gradient(case_a, reward, x, TIMES, generator=seeded())
    assert torch.equal(first, second)
    assert not (first.requires_grad or second.requires_grad)
    assert not align.value(case_a, reward, x, TIMES).requires_grad
    assert x.grad is None
    assert all(p.grad is None for p in reward.parameters())


def test_reparametrised_gradients_pass_through_a_network(tiny_flow, mild, seeded):
    """On a GLASS flow the gradient is that of the log-mean-exp of its draws, as a whole."""
    model = GlassFlow(tiny_flow, steps=3)
    x = STATES.clone().requires_grad_()
    z = model.posterior(x, TIMES, 6, generator=seeded())
    (expected,) = torch.autograd.grad(mild(z).logsumexp(0).sum(), x)
    for chunk in (None, 1, 5):
        found = align.value_gradient(model, mild, STATES, TIMES, 6, generator=seeded(), chunk=chunk)
        assert torch.allclose(found, expected, rtol=1e-9)


# -------------------------------------------------------------------- tempered rewards and antithetic draws


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
@pytest.mark.parametrize("chunk", [None, 5])
def test_populations_have_the_gradient_of_their_own_tempered_reward(estimator, chunk, case_a, mild, seeded):
    """`beta r` for each row's beta, as if the reward had been multiplied by it."""
    beta = torch.tensor([0.3, 1.0, 0.0, 0.6], dtype=torch.float64)
    population = Population(case_a, mild, 2, 2, generator=seeded(), chunk=chunk)
    found = population_gradient(population, STATES, 0.4, 6, estimator, beta=beta)
    assert not found[2].any()
    for row in range(4):
        population = Population(case_a, lambda z, row=row: beta[row] * mild(z), 2, 2, generator=seeded(), chunk=chunk)
        expected = population_gradient(population, STATES, 0.4, 6, estimator)[row]
        assert torch.allclose(found[row], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_antithetic_gradients_weighted_by_their_evidence_are_unbiased(
    estimator, normal_law, quadratic, seeded, check_mean
):
    """For "score" up to a factor that is no longer `1 - 1/mc`, so on one pair: `E[e^V^ g]` for two opposite draws is the
    covariance of z and exp r over their odd parts, which for a linear reward is all of it."""
    model = normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]])
    x, t = repeated(3000)
    slope = torch.tensor([0.7, -0.4], dtype=torch.float64)
    reward = quadratic([-0.5, 0.5], 1.0) if estimator == "reparam" else lambda z: z @ slope
    leaf = STATES.clone().requires_grad_()
    exact = reward.value(model, leaf, TIMES) if estimator == "reparam" else model.value(leaf, TIMES, slope)
    (expected,) = torch.autograd.grad(exact.sum(), leaf)
    found = align.value_gradient(model, reward, x, t, 2, estimator, antithetic=True, generator=seeded())
    values = align.value(model, reward, x, t, 2, antithetic=True, generator=seeded())
    evidence = (values - exact.detach().repeat_interleave(3000)).exp()
    check_mean(by_state(evidence[:, None] * found), expected, limit=4)


def test_antithetic_draws_take_the_linear_part_of_the_noise_off_the_gradient(normal_law, seeded, check_mean):
    """`r = b z - k z^2 / 2` with little of either: weights are nearly even, the plain variance is `(c k)^2 v / mc` with
    `c = dz/dx` and v the posterior's variance, and next to nothing is left with pairs."""
    model, t, curvature, mc = normal_law([0.4], [[0.6]]), 0.45, 0.05, 4
    spread = 0.45**2 * 0.6 + 0.55**2
    variance, gain = 0.6 * 0.55**2 / spread, 0.45 * 0.6 / spread
    x = torch.tensor([[0.2]], dtype=torch.float64).expand(10_000, -1)

    def reward(z):
        return 0.02 * z[:, 0] - curvature / 2 * z[:, 0].square()

    plain, paired = (
        align.value_gradient(model, reward, x, t, mc, antithetic=antithetic, generator=seeded())[:, 0]
        for antithetic in (False, True)
    )
    expected = (gain * curvature) ** 2 * variance / mc
    assert float(plain.var()) == pytest.approx(expected, rel=0.1)
    assert float(paired.var()) < 0.01 * expected
    check_mean(plain - paired, 0.0, limit=4, slack=1e-4)


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("estimator", ["reparam", "score"])
def test_antithetic_gradients_do_not_depend_on_the_chunk(chunk, estimator, case_a, mild, seeded):
    whole, parts = (
        align.value_gradient(
            case_a, mild, STATES, TIMES, 18, estimator, antithetic=True, generator=seeded(), chunk=size
        )
        for size in (None, chunk)
    )
    assert torch.allclose(parts, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mc", [2, 4, 16])
def test_the_mean_of_the_same_draws_is_the_better_baseline(mc, case_a, mild, gentle, seeded):
    """`E_w[z] - mean(z)` against `E_w[z] - D(x)`, which needs an evaluation more: for weights that are nearly even the
    variances differ by that of a mean of `mc` draws."""
    x = STATES[:1].expand(20000, -1)
    z = case_a.posterior(x, 0.4, mc, generator=seeded())
    spread = z.flatten(0, 1).var(0).sum() / mc
    for reward in (mild, gentle):
        tilted = (reward(z.flatten(0, 1)).reshape(mc, -1).softmax(0)[..., None] * z).sum(0)
        variances = [(tilted - baseline).var(0).sum() for baseline in (z.mean(0), case_a.denoise(x, 0.4))]
        assert variances[0] < variances[1] - 0.3 * spread
