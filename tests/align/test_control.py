"""The plug-in control variate, against closed forms: it changes the noise of the value and not its mean."""

from types import SimpleNamespace

import pytest
import torch

import align

from diamond.flow import Flow
from diamond.glass import GlassFlow

STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8], [-0.3, 0.2]], dtype=torch.float64)
TIMES = torch.tensor([0.4, 0.6, 0.8, 0.15], dtype=torch.float64)

OPTIONS = {
    "plain": {},
    "antithetic": {"antithetic": True},
    "jackknife": {"correction": "jackknife"},
    "jackknife of pairs": {"correction": "jackknife", "antithetic": True},
}


def repeated(rows):
    return STATES.repeat_interleave(rows, dim=0), TIMES.repeat_interleave(rows)


def both(*arguments, seed=0, **options):
    """The value without and with the control, from the same draws."""
    return tuple(
        align.value(*arguments, **options, control=control, generator=torch.Generator().manual_seed(seed))
        for control in (None, "plugin")
    )


class Weighted(torch.nn.Module):
    """A model whose draws carry weights, which are recorded."""

    def __init__(self, model):
        super().__init__()
        self.model, self.interpolant, self.event_shape, self.seen = model, model.interpolant, model.event_shape, []

    def denoise(self, x_t, t, *, cond=None):
        return self.model.denoise(x_t, t)

    def weighted_posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        z = self.model.posterior(x_t, t, n, generator=generator)
        self.seen.append((z, 2 * z[..., 0]))
        return self.seen[-1]


# -------------------------------------------------------------------- what it is


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mc", [4, 22])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_takes_off_the_slope_at_the_mean_times_the_draws_mean_error(options, mc, weighted, case_a, mild):
    model = Weighted(case_a)
    plain, controlled = both(model if weighted else case_a, mild, STATES, TIMES, mc, **options)
    align.value(model, mild, STATES, TIMES, mc, **options, generator=torch.Generator().manual_seed(0))
    z, log_weights = (torch.cat(parts) for parts in zip(*model.seen[-((mc + 15) // 16) :], strict=True))
    weights = (log_weights if weighted else 0 * log_weights).softmax(0)
    centre = case_a.denoise(STATES, TIMES)
    slope = -(centre - mild.centre) / mild.width2
    excess = ((torch.einsum("kb,kbd->bd", weights, z) - centre) * slope).sum(1)
    assert excess.abs().max() > 1e-2
    assert torch.allclose(controlled, plain - excess, rtol=1e-10)


@pytest.mark.parametrize("mc", [1, 2, 5, 20])
def test_one_draw_of_a_linear_reward_has_no_noise(mc, correlated, seeded):
    """With one it is the reward at the mean. With more it is that plus what the spread adds, which is positive."""
    model, slope = correlated(), torch.tensor([1.5, -0.5], dtype=torch.float64)
    values = align.value(model, lambda z: z @ slope, STATES, TIMES, mc, control="plugin", generator=seeded())
    gap = values - model.denoise(STATES, TIMES) @ slope
    assert (gap.abs() < 1e-12).all() if mc == 1 else (gap > 0).all()


def test_pairs_about_a_gaussian_mean_leave_nothing_to_control(normal_law, mild):
    law = normal_law([0.4, -0.2], [[0.6, 0.2], [0.2, 0.5]])
    assert torch.allclose(*both(law, mild, STATES, TIMES, 18, antithetic=True), rtol=1e-12)


# -------------------------------------------------------------------- what it does to mean and variance


@pytest.mark.parametrize("mc", [1, 3, 16])
def test_the_mean_stays_what_it_was_bias_included(mc, case_a, mild, check_mean):
    x, t = repeated(5000)
    plain, controlled = both(case_a, mild, x, t, mc)
    gap = (controlled - plain).reshape(4, -1).T
    assert (gap.std(0) > 0.1).all()
    check_mean(gap, torch.zeros(4, dtype=torch.float64), limit=4)


@pytest.mark.parametrize("deviation", [0.4, 0.7])
def test_variance_of_linear_rewards_falls_by_a_known_amount(deviation, normal_law, seeded, check_mean):
    """To `(e^{s^2} - 1 - s^2) / mc` on a Gaussian posterior, but for the third moment of `e^r` over `mc^2`."""
    mc, t, rows = 200, 0.45, 4000
    model = normal_law([0.4, -0.2], torch.eye(2, dtype=torch.float64) * 0.6)
    width = (0.6 * 0.55**2 / (0.45**2 * 0.6 + 0.55**2)) ** 0.5
    slope = torch.tensor([0.6, 0.8], dtype=torch.float64) * deviation / width
    x = STATES[:1].expand(rows, -1)
    exact = model.value(STATES[:1], t, slope)
    values = align.value(model, lambda z: z @ slope, x, t, mc, control="plugin", generator=seeded())
    grown = float(torch.tensor(deviation**2).double().exp())
    scaled, expected = mc * (values - exact).square(), torch.tensor(grown - 1 - deviation**2, dtype=torch.float64)
    assert expected < 0.6 * (grown - 1) * (1 - 1 / grown)  # what antithetic draws would leave
    check_mean(scaled, expected, limit=4, slack=(grown**3 - 3 * grown + 2) / mc)


@pytest.mark.parametrize("mc", [8, 16])
def test_beats_antithetic_draws_at_equal_cost_where_the_reward_is_gentle(mc, case_a, gentle, seeded):
    """One draw less pays for the evaluation and the reward call at the mean. The second state is left out: there both
    are equally good."""
    x, t = repeated(3000)
    exact = gentle.value(case_a, STATES, TIMES)
    fewer, pairs = (
        (align.value(case_a, gentle, x, t, n, **options, generator=seeded()).reshape(4, -1).T - exact).square()
        for n, options in ((mc - 1, {"control": "plugin"}), (mc, {"antithetic": True}))
    )
    gain = pairs - fewer
    assert (gain.mean(0) > 4 * gain.std(0) / 3000**0.5)[[0, 2, 3]].all()


def test_adds_noise_where_the_reward_is_steep_and_curved(case_a, hard):
    """The slope at the mean is not that of the draws which carry the value: what the docstring warns of."""
    x, exact = STATES[:1].expand(2000, -1), hard.value(case_a, STATES[:1], 0.2)
    plain, controlled = ((v - exact).square() for v in both(case_a, hard, x, 0.2, 256))
    loss = controlled - plain
    assert loss.mean() > 4 * loss.std() / 2000**0.5


# -------------------------------------------------------------------- the contract


@pytest.mark.parametrize("chunk", [1, 3, 4, 9, 100])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_does_not_depend_on_the_chunk(options, chunk, case_a, mild, family):
    whole, parts, scored_in_parts = (
        align.value(case_a, mild, STATES, TIMES, 20, **options, control="plugin", generator=family([1, 2]), **sizes)
        for sizes in ({}, {"chunk": chunk}, {"reward_chunk": chunk})
    )
    assert torch.allclose(parts, whole, rtol=1e-10) and torch.allclose(scored_in_parts, whole, rtol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_costs_one_evaluation_and_one_reward_call_a_state_and_keeps_to_the_chunk(chunk, tiny_flow, mild, seeded):
    seen = []

    def reward(z):
        seen.append(len(z))
        return mild(z)

    model = GlassFlow(tiny_flow, steps=2)
    align.value(model, reward, STATES, TIMES, 5, control="plugin", generator=seeded(), chunk=chunk)
    assert sum(seen) == 4 * 5 + 4 and model.nfe == 4 * 5 * 2 + 4
    assert max(seen) <= chunk and tiny_flow.net.largest <= chunk


def test_conditioning_meets_its_own_state_in_model_and_reward(tiny_flow, seeded):
    """All rows at once are what each row is alone."""
    model = GlassFlow(Flow(tiny_flow.net), steps=2)
    cond = torch.tensor([[0.0, 1.0], [2.0, -1.0], [-3.0, 0.5], [1.0, 1.0]], dtype=torch.float64)

    def reward(z, cond):
        return -(z - cond).square().sum(1)

    for chunk in (None, 3):
        settings = {"control": "plugin", "chunk": chunk}
        for row in range(4):
            part = slice(row, row + 1)
            sources = [seeded(i) for i in range(4)]
            together = align.value(model, reward, STATES, TIMES, 6, cond=cond, generator=sources, **settings)
            alone = align.value(
                model, reward, STATES[part], TIMES[part], 6, cond=cond[part], generator=seeded(row), **settings
            )
            assert torch.allclose(together[part], alone, rtol=1e-10)


def test_the_value_of_data_is_the_reward_and_a_constant_its_own(case_a, mild):
    assert torch.allclose(align.value(case_a, mild, STATES, 1.0, 3, control="plugin"), mild(STATES), atol=1e-8)
    more = both(case_a, lambda z: mild(z) + 700, STATES, TIMES, 5)[1]
    assert torch.allclose(more, both(case_a, mild, STATES, TIMES, 5)[1] + 700, rtol=1e-12)


def test_single_precision_stays_single_and_keeps_no_graph(case_a, mild, seeded):
    x = STATES.float().requires_grad_()
    values = align.value(case_a.float(), mild, x, TIMES.float(), 4, control="plugin", generator=seeded())
    assert values.dtype == torch.float32 and not values.requires_grad


def test_where_the_mean_is_forbidden_or_has_no_slope_the_estimate_stays_as_it_is(case_a):
    middle = case_a.denoise(STATES, TIMES)

    def forbidden(z):
        near = (z[:, None] - middle).norm(dim=-1).amin(1) < 1e-9
        return torch.where(near, -torch.inf, z.sum(1))

    def cusp(z):
        return -(z[:, None] - middle).norm(dim=-1).amin(1).sqrt()  # infinitely steep at the means

    for reward in (forbidden, cusp):
        plain, controlled = both(case_a, reward, STATES, TIMES, 8)
        assert torch.equal(plain, controlled) and controlled.isfinite().all()
    impossible = both(case_a, lambda z: torch.where(z[:, 0] > 99, z[:, 0], -torch.inf), STATES, TIMES, 8)[1]
    assert (impossible == -torch.inf).all()


def test_what_does_not_fit_is_refused_by_name(case_a, mild):
    def black_box(z):
        return torch.as_tensor((z.detach() > 0).double().sum(1))

    with pytest.raises(ValueError, match="^control: got 'plug', expected one of"):
        align.value(case_a, mild, STATES, TIMES, control="plug")
    with pytest.raises(ValueError, match="^reward: it returned numbers .* for a black-box reward leave control out"):
        align.value(case_a, black_box, STATES, TIMES, control="plugin")
    blind = SimpleNamespace(posterior=case_a.posterior, event_shape=(2,), interpolant=case_a.interpolant)
    with pytest.raises(ValueError, match="^model: got SimpleNamespace, expected a model with a denoise method"):
        align.value(blind, mild, STATES, TIMES, control="plugin")
