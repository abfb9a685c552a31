"""Value functions of one point: what they say and cost, and the algorithms of the field that they make."""

from functools import partial

import pytest
import torch

import align

from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow

POPULATIONS, PARTICLES = 800, 24
STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8]], dtype=torch.float64)


def run(model, reward, seed=0, steps=4, **options):
    generator = torch.Generator().manual_seed(seed)
    return align.smc(model, reward, PARTICLES, steps, batch=POPULATIONS, generator=generator, **options)


@pytest.fixture
def gaussian(normal_law):
    """One Gaussian in the plane, and its exact flow map: it keeps a state's place in units of the deviation."""
    mean, variance = torch.tensor([0.5, -0.3], dtype=torch.float64), 0.6
    model = normal_law(mean, torch.eye(2, dtype=torch.float64) * variance)

    class Net:
        event_shape = (2,)

        def __call__(self, x, t, cond, times):
            (r,) = times
            deviation = [(u.square() * variance + (1 - u).square()).sqrt()[:, None] for u in (t, r)]
            moved = r[:, None] * mean + deviation[1] / deviation[0] * (x - t[:, None] * mean)
            slope = (moved - x) / (r - t).clamp_min(1e-9)[:, None]
            diagonal = model.velocity(x, t)
            return torch.where((r > t)[:, None], slope, diagonal)

    return model, FlowMap(Net())


# -------------------------------------------------------------------- what they say


def test_plug_in_is_the_reward_at_the_mean(case_a, mild):
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    value = align.PlugIn(case_a, mild)
    assert torch.equal(value(STATES, t), mild(case_a.denoise(STATES, t)))
    assert value.calls == 3


def test_look_ahead_is_the_reward_where_the_flow_ends(gaussian, mild):
    model, flow_map = gaussian
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    value = align.LookAhead(flow_map, mild)
    deviation = (t.square() * 0.6 + (1 - t).square()).sqrt()[:, None]
    end = model.mean() + 0.6**0.5 / deviation * (STATES - t[:, None] * model.mean())
    assert torch.allclose(value(STATES, t), mild(end), rtol=1e-9)
    assert (value.calls, flow_map.nfe) == (3, 3)


def test_neither_is_the_value(gaussian, mild):
    """Jensen's gap: the value lies above the reward at the mean."""
    model, flow_map = gaussian
    t = torch.full((3,), 0.3, dtype=torch.float64)
    exact = mild.value(model, STATES, t)
    assert (align.PlugIn(model, mild)(STATES, t) - exact).abs().min() > 0.02
    assert (align.LookAhead(flow_map, mild)(STATES, t) - exact).abs().max() > 0.1


def test_what_has_no_mean_or_map_is_refused(mild, case_a):
    with pytest.raises(ValueError, match="^model: got float, expected a model with a denoise method"):
        align.PlugIn(3.0, mild)
    with pytest.raises(ValueError, match="^flow_map: got float without .*, expected a flow map"):
        align.LookAhead(3.0, mild)
    with pytest.raises(ValueError, match="^reward: got float"):
        align.PlugIn(case_a, 3.0)


# -------------------------------------------------------------------- conditioning

COND = torch.tensor([[0.5, -0.5], [1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)


def attracted(z, cond):
    return -(z - cond).square().sum(-1)


@pytest.fixture
def conditional_map(tiny_flow):
    """A flow map over the tiny network."""

    class Net(torch.nn.Module):
        event_shape = (2,)

        def __init__(self):
            super().__init__()
            self.net = tiny_flow.net

        def forward(self, x, t, cond, times):
            return self.net(x, t, cond) * (1 + times[0][:, None])

    return FlowMap(Net())


@pytest.fixture(params=["PlugIn", "LookAhead"])
def conditional(request, tiny_flow, conditional_map):
    """Each value function of a conditional model: made from a reward; and its guess of the data."""
    if request.param == "PlugIn":
        return lambda reward: align.PlugIn(tiny_flow, reward), tiny_flow.denoise
    return lambda reward: align.LookAhead(conditional_map, reward), lambda x, t, cond: conditional_map(
        x, t, 1.0, cond=cond
    )


def test_conditioning_reaches_the_model_and_the_reward(conditional, mild):
    of, guess = conditional
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert torch.equal(of(attracted)(STATES, t, COND), attracted(guess(STATES, t, cond=COND), COND))
    assert torch.equal(of(mild)(STATES, t, COND), mild(guess(STATES, t, cond=COND)))
    assert torch.equal(of(mild)(STATES, t), mild(guess(STATES, t, cond=None)))
    assert not torch.allclose(of(mild)(STATES, t, COND), of(mild)(STATES, t))


@pytest.mark.parametrize("chunk", [None, 1, 5])
@pytest.mark.parametrize(
    "algorithm",
    [
        partial(align.smc, particles=5, steps=3, ess_threshold=1.0),
        partial(align.search, particles=3, branch=2, steps=3),
    ],
    ids=["smc", "search"],
)
def test_populations_of_different_conditioning_are_separate_runs(algorithm, chunk, conditional, tiny_flow, family):
    value, model = conditional[0](attracted), GlassFlow(tiny_flow, steps=2)
    together = algorithm(model, attracted, value=value, batch=3, cond=COND, generator=family([5, 6, 7]), chunk=chunk)
    for row in range(3):
        how = {"cond": COND[row : row + 1], "generator": family([5 + row])}
        alone = algorithm(model, attracted, value=value, **how)
        assert torch.equal(alone.ancestors[:, 0], together.ancestors[:, row])
        for name in ("samples", "rewards", "log_weights"):
            assert torch.allclose(getattr(alone, name)[0], getattr(together, name)[row], rtol=1e-9, atol=1e-12), name
        assert (alone.nfe, alone.reward_calls) == (together.nfe, together.reward_calls)


def test_any_value_function_may_take_conditioning(tiny_flow, family):
    """The model's of each row, and not the numbers that rewards of their own are chosen by."""
    seen = []

    def value(x, t, cond):
        seen.append(cond)
        return torch.zeros(len(x))

    how = {"steps": 2, "batch": 3, "cond": COND, "generator": family([1, 2, 3])}
    rewards = [lambda z, slope=slope: slope * z[:, 0] for slope in (1.0, 2.0, 3.0)]
    align.smc(GlassFlow(tiny_flow, steps=2), rewards, 4, value=value, chunk=5, **how)
    assert [len(cond) for cond in seen] == [5, 5, 2]
    assert torch.equal(torch.cat(seen), COND.repeat_interleave(4, dim=0))
    seen.clear()
    align.search(GlassFlow(tiny_flow, steps=2), rewards, 2, 3, value=value, **how)
    assert torch.equal(seen[0], COND.repeat_interleave(6, dim=0))


@pytest.mark.parametrize("chunk, reward_chunk, largest", [(5, None, 5), (None, 3, 3), (5, 3, 3), (3, 5, 3)])
def test_rewards_of_a_value_function_keep_to_the_chunk(chunk, reward_chunk, largest, tiny_flow, mild):
    sizes = []

    def reward(z):
        sizes.append(len(z))
        return mild(z)

    value = align.PlugIn(tiny_flow, reward)
    align.smc(GlassFlow(tiny_flow, steps=2), mild, 4, 2, batch=3, value=value, chunk=chunk, reward_chunk=reward_chunk)
    assert max(sizes) == largest and sum(sizes) == 12


# -------------------------------------------------------------------- what they cost


def test_their_cost_is_counted_once(tiny_flow, mild):
    """A flow that is model and value function in one is counted once, behind any view of it."""
    particles, steps, inner = 4, 5, 2
    transitions, values = particles * steps * inner, particles * (steps - 1)
    for model in (GlassFlow(tiny_flow, steps=inner), GlassFlow(align.GuidedFlow(tiny_flow, mild), steps=inner)):
        for looked_at in (tiny_flow, model):
            value = align.PlugIn(looked_at, mild)
            value(torch.zeros(7, 2, dtype=torch.float64), torch.full((7,), 0.5, dtype=torch.float64))
            out = align.smc(model, mild, particles, steps, value=value, batch=3, chunk=5)
            assert out.nfe == transitions + values
            guided = 0 if model.flow is tiny_flow else transitions + (values if looked_at is model else 0)
            assert out.reward_calls == particles + values + guided  # a guided denoiser asks for the reward's derivative


def test_another_network_is_counted_too(tiny_flow, gaussian, mild):
    _, flow_map = gaussian
    out = align.smc(GlassFlow(tiny_flow, steps=2), mild, 4, 5, value=align.LookAhead(flow_map, mild), batch=3)
    assert out.nfe == 4 * 5 * 2 + 4 * 4
    assert out.reward_calls == 4 + 4 * 4
    found = align.search(GlassFlow(tiny_flow, steps=2), mild, 2, 3, 5, value=align.PlugIn(tiny_flow, mild), batch=3)
    assert found.nfe == 6 * 5 * 2 + 6 * 4
    assert found.reward_calls == 6 + 6 * 4


# -------------------------------------------------------------------- algorithms of the field


@pytest.mark.parametrize("potential", ["diff", "max", "sum"])
def test_feynman_kac_steering_is_exact(potential, case_a, gentle, check_tilt):
    out = run(case_a, gentle, value=align.PlugIn(case_a, gentle), potential=potential, ess_threshold=0.9)
    assert (out.ancestors[1:] != torch.arange(PARTICLES)).any()
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


@pytest.mark.parametrize("tempering", [None, lambda t: t], ids=["TDS", "DAS"])
def test_twisted_diffusion_sampling_is_exact(tempering, case_a, gentle, check_tilt):
    out = run(
        case_a, gentle, value=align.PlugIn(case_a, gentle), proposal="plugin", ess_threshold=1.0, tempering=tempering
    )
    assert out.nfe_backward == 0  # the mixture counts nothing
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


def test_flow_map_trajectory_tilting_is_exact(gaussian, gentle, check_tilt):
    model, flow_map = gaussian
    out = run(model, gentle, value=align.LookAhead(flow_map, gentle), tempering=lambda t: t, ess_threshold=0.9)
    check_tilt(out, gentle.law(model), gentle.log_z(model))


def test_svdd_keeps_each_particles_best_candidate_by_the_plug_in_value(case_a, mild):
    """And so climbs, above the tilted law's own mean reward."""
    valued, seen = [], []
    plug_in = align.PlugIn(case_a, mild)

    def value(x, t):
        valued.append((x, plug_in(x, t)))
        return valued[-1][1]

    generator = torch.Generator().manual_seed(0)
    out = align.search(
        case_a, mild, 4, 5, 6, keep="each", value=value, batch=50, callback=seen.append, generator=generator
    )
    for (x, scores), step in zip(valued, seen, strict=False):
        best = scores.reshape(50, 4, 5).argmax(-1, keepdim=True)
        kept = x.reshape(50, 4, 5, 2).gather(2, best[..., None].expand(-1, -1, 1, 2))[:, :, 0]
        assert torch.equal(step.samples, kept)
    law = mild.law(case_a)
    tilted = -(law.covariance().trace() + (law.mean() - mild.centre).square().sum()) / (2 * mild.width2)
    rewards = out.rewards.mean(1)
    assert float((rewards.mean() - tilted) / (rewards.std() / 50**0.5)) > 4


def test_search_by_one_call_draws_climbs_with_its_branches(case_a, mild):
    """MFM-Search: one particle, many candidates, values of posterior draws."""
    few, many = (
        align.search(
            case_a,
            mild,
            particles=1,
            branch=branch,
            steps=6,
            mc=4,
            batch=300,
            generator=torch.Generator().manual_seed(1),
        ).rewards[:, 0]
        for branch in (2, 8)
    )
    assert float((many.mean() - few.mean()) / ((few.var() + many.var()) / 300).sqrt()) > 4
