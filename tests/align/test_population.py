"""Populations as rows: grids, chunks, draws in blocks; and what holds for every algorithm because of them."""

from functools import partial

import pytest
import torch

import align

from align.draws import posterior_blocks, row_slices
from align.population import Population, time_grid
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.weighted_map import WeightedDiamondMap

COND = torch.tensor([[0.5, -0.5], [1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def glass(tiny_flow):
    return GlassFlow(tiny_flow, steps=2)


def flat(z):
    return torch.zeros(len(z))


def attracted(z, cond):
    return -(z - cond).square().sum(-1)


# -------------------------------------------------------------------- the pieces


@pytest.mark.parametrize("rows", [1, 5, 12])
@pytest.mark.parametrize("chunk", [None, 1, 4, 12, 50])
def test_row_slices_cover_the_rows_once_in_order(rows, chunk):
    slices = list(row_slices(rows, chunk))
    assert [i for part in slices for i in range(rows)[part]] == list(range(rows))
    assert max(part.stop - part.start for part in slices) <= (chunk or rows)


def test_grids_of_time_are_uniform_or_as_given():
    assert torch.equal(time_grid(4, None), torch.tensor([0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64))
    assert time_grid(99, [0, 0.1, 1]).tolist() == [0.0, 0.1, 1.0]
    assert time_grid(99, torch.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]


BAD_TIMES = [[0.1, 1], [0, 0.9], [0, 0.5, 0.5, 1], [0, 0.7, 0.3, 1], [0], [], [[0, 1]], [0, torch.nan, 1]]


@pytest.mark.parametrize("times", BAD_TIMES)
def test_grids_that_do_not_rise_from_noise_to_data_are_refused(times):
    with pytest.raises(ValueError, match="^times: got .*expected times that rise from 0 to 1"):
        time_grid(4, times)


@pytest.mark.parametrize("steps", [0, -3, 2.5, True])
def test_grids_without_steps_are_refused(steps):
    with pytest.raises(ValueError, match="^steps: got"):
        time_grid(steps, None)


@pytest.mark.parametrize("mc", [1, 16, 17, 46])
@pytest.mark.parametrize("chunk", [None, 1, 3, 5, 12, 1000])
def test_blocks_give_every_row_its_draws_and_the_same_noise(mc, chunk, case_a, seeded):
    x = case_a.prior(5, generator=seeded(8))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)

    def draws(chunk):
        kept = [[] for _ in range(5)]
        for rows, _, _, z, _ in posterior_blocks(case_a, x, t, mc, None, seeded(), chunk):
            assert chunk is None or z.shape[0] * z.shape[1] <= chunk
            for place, row in enumerate(range(5)[rows]):
                kept[row].append(z[:, place])
        return torch.stack([torch.cat(parts) for parts in kept])

    assert draws(chunk).shape == (5, mc, 2)
    assert torch.allclose(draws(chunk).sort(1).values, draws(None).sort(1).values, rtol=1e-12)


def test_blocks_hold_no_more_than_a_tile_of_draws(case_a):
    x = case_a.prior(3)
    sizes = [
        len(block.z) for block in posterior_blocks(case_a, x, torch.full((3,), 0.5), 50, None, torch.Generator(), None)
    ]
    assert sizes == [16, 16, 16, 2]


@pytest.mark.parametrize("chunk", [None, 5])
def test_branches_of_a_particle_are_independent_transitions_of_it(chunk, case_a, seeded, check_mean, kernel_moments):
    population = Population(case_a, flat, 2, 1, generator=seeded(), chunk=None if chunk is None else 5000)
    x = torch.tensor([[0.4, -0.3], [-1.0, 0.2]], dtype=torch.float64)
    after = population.transition(x, 0.4, 0.7, branch=6000).reshape(2, 6000, 2)
    mean, covariance = kernel_moments(case_a, x, 0.4, 0.7)
    for row in range(2):
        gap = after[row] - mean[row]
        check_mean(gap, torch.zeros(2, dtype=torch.float64), limit=4)
        check_mean(gap[:, :, None] * gap[:, None], covariance[row], limit=4)
        check_mean(gap[:3000] * gap[3000:], torch.zeros(2, dtype=torch.float64), limit=4)


def test_branches_get_the_conditioning_of_their_population(still, family):
    class Pulled(type(still)):
        def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
            return x_t + cond

    cond = torch.tensor([[10.0], [20.0]], dtype=torch.float64)
    for chunk in (None, 1, 5):
        population = Population(Pulled(), flat, 3, 2, cond, family([1, 2]), chunk)
        x = population.prior()
        expected = (x.reshape(2, 3, 1) + cond[:, None]).repeat_interleave(4, dim=1).reshape(-1, 1)
        assert torch.equal(population.transition(x, 0.1, 0.2, branch=4), expected)


@pytest.mark.parametrize("rho", [None, 0.4])
@pytest.mark.parametrize("run", [align.smc, align.search])
def test_the_correlation_and_the_grid_reach_the_model(rho, run, still):
    asked = []

    class Recording(type(still)):
        def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
            asked.append((t, t_next, rho))
            return x_t

    run(Recording(), lambda z: z[:, 0], 3, times=[0, 0.2, 0.7, 1], rho=rho)
    assert asked == [(0, 0.2, rho), (0.2, 0.7, rho), (0.7, 1, rho)]


@pytest.mark.parametrize("batch, size", [(0, 1), (-1, 2), (1.5, 2)])
def test_populations_of_no_number_are_refused(batch, size, case_a):
    with pytest.raises(ValueError, match="^batch: got"):
        Population(case_a, flat, size, batch)


# -------------------------------------------------------------------- what holds for every algorithm


def test_equal_seeds_give_equal_results(algorithm, glass, seeded):
    one, other, third = (algorithm(glass, attracted, batch=3, cond=COND, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one.samples, other.samples)
    assert not torch.equal(one.samples, third.samples)


def test_the_global_state_is_neither_read_nor_moved(algorithm, glass, seeded):
    before = torch.get_rng_state()
    fresh = [algorithm(glass, attracted, batch=3, cond=COND).samples for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(*fresh)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(algorithm(glass, attracted, batch=3, cond=COND, generator=seeded()).samples)
    assert torch.equal(*results)


@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
@pytest.mark.parametrize("source", ["one", "list"])
def test_results_do_not_depend_on_the_chunk(chunk, source, algorithm, glass, seeded, family):
    def run(chunk):
        generator = seeded() if source == "one" else family([5, 6, 7])
        return algorithm(glass, attracted, batch=3, cond=COND, generator=generator, chunk=chunk)

    whole, parts = run(None), run(chunk)
    assert torch.equal(parts.ancestors, whole.ancestors)
    for name in ("samples", "rewards", "log_weights", "ess"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12), name
    assert parts.nfe == whole.nfe and parts.reward_calls == whole.reward_calls
    assert parts.nfe_backward == whole.nfe_backward


def test_no_call_of_the_network_has_more_rows_than_the_chunk(algorithm, glass, tiny_flow):
    algorithm(glass, attracted, batch=3, cond=COND, chunk=5)
    assert tiny_flow.net.largest == 5


class MapNet(torch.nn.Module):
    """The network of the tiny flow as that of a flow map."""

    event_shape = (2,)

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t, cond, times):
        return self.net(x, t, cond)


WEIGHTED = {
    "best_of_n": partial(align.best_of_n, n=7, steps=2),
    "search": partial(align.search, particles=2, branch=3, steps=2, mc=3),
    "smc": partial(align.smc, particles=7, steps=3, mc=3),
    "smc-score": partial(align.smc, particles=7, steps=3, mc=3, proposal="score"),
}


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("quadrature, chunk", [(2, 10), (2, 5), (3, 20), (3, 9)])
def test_candidates_of_a_weighted_draw_count_towards_the_chunk(name, quadrature, chunk, tiny_flow, family):
    """Each state's `proposals * (quadrature - 1) + 1` scores are asked for in one call; two states fit, or one."""
    model = WeightedDiamondMap(FlowMap(MapNet(tiny_flow.net)), proposals=4, quadrature=quadrature)
    assert model.rows_per_posterior == 4 * (quadrature - 1) + 1

    def run(chunk):
        tiny_flow.net.largest = 0
        out = WEIGHTED[name](model, attracted, batch=3, cond=COND, generator=family([5, 6, 7]), chunk=chunk)
        return out, tiny_flow.net.largest

    (whole, largest), (parts, kept) = run(None), run(chunk)
    assert kept <= chunk < largest
    assert kept >= chunk // model.rows_per_posterior * model.rows_per_posterior
    assert torch.allclose(parts.samples, whole.samples, rtol=1e-9, atol=1e-12)


def test_populations_ignore_which_others_run_beside_them(algorithm, glass, family):
    together = algorithm(glass, attracted, batch=3, cond=COND, generator=family([5, 6, 7]))
    for row, seed in enumerate([5, 6, 7]):
        alone = algorithm(glass, attracted, cond=COND[row : row + 1], generator=family([seed]))
        for name in ("samples", "rewards", "log_weights"):
            assert torch.allclose(getattr(alone, name)[0], getattr(together, name)[row], rtol=1e-9, atol=1e-12), name
        assert torch.equal(alone.ancestors[:, 0], together.ancestors[:, row])
        assert alone.nfe == together.nfe and alone.reward_calls == together.reward_calls


def test_callbacks_see_every_step_and_change_nothing(algorithm, glass, seeded):
    seen = []
    out = algorithm(glass, attracted, batch=3, cond=COND, generator=seeded(), callback=seen.append)
    silent = algorithm(glass, attracted, batch=3, cond=COND, generator=seeded())
    steps = algorithm.keywords["steps"]
    assert [step.step for step in seen] == list(range(steps))
    assert [step.t for step in seen] == pytest.approx([(k + 1) / steps for k in range(steps)])
    assert torch.equal(seen[-1].samples, out.samples)
    assert all(step.samples.shape == out.samples.shape for step in seen)
    assert all(step.log_weights.shape == out.rewards.shape and step.ess.shape == (3,) for step in seen)
    assert torch.equal(out.samples, silent.samples)


def test_results_have_their_documented_shapes(algorithm, glass):
    out = algorithm(glass, attracted, batch=3, cond=COND)
    batch, particles, size = out.samples.shape
    assert (batch, size) == (3, 2)
    assert out.rewards.shape == out.log_weights.shape == (3, particles)
    assert out.ess.shape[1:] == (3,)
    assert out.ancestors.shape[1:] == (3, particles)
    assert out.ancestors.dtype == torch.int64
    assert torch.allclose(out.rewards.flatten(), attracted(out.samples, COND[:, None]).flatten())
    assert out.log_z is None or out.log_z.shape == (3,)
    assert out.seconds > 0 and out.method and out.law


def test_results_hold_no_graph(algorithm, glass):
    with torch.enable_grad():
        out = algorithm(glass, attracted, batch=3, cond=COND)
    assert not any(value.requires_grad for value in vars(out).values() if isinstance(value, torch.Tensor))


def test_progress_shows_a_bar_only_where_asked(algorithm, case_a, mild, capsys):
    algorithm(case_a, mild)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    algorithm(case_a, mild, progress=True)
    steps = algorithm.keywords["steps"]
    assert f"{steps}/{steps}" in capsys.readouterr().err


def test_generators_that_are_not_one_for_each_population_are_refused(algorithm, case_a, mild, family):
    with pytest.raises(ValueError, match="^generator: got 2 generators, expected one, or one for each of 3"):
        algorithm(case_a, mild, batch=3, generator=family([1, 2]))


@pytest.mark.parametrize("name, value", [("batch", 0), ("chunk", 0), ("steps", 0)])
def test_counts_of_nothing_are_refused(name, value, algorithm, case_a, mild):
    with pytest.raises(ValueError, match=f"^{name}: got 0"):
        algorithm(case_a, mild, **{name: value})


def test_models_without_a_posterior_are_refused(algorithm, tiny_flow, mild):
    with pytest.raises(ValueError, match=r"^model: got Flow, expected a posterior sampler"):
        algorithm(tiny_flow, mild)


def test_a_model_that_counts_nothing_has_no_cost(still):
    assert align.best_of_n(still, lambda z: z[:, 0], 3).nfe is None


# -------------------------------------------------------------------- forbidden samples


def test_forbidden_samples_have_no_weight_and_break_nothing(algorithm, case_a, mild, family):
    def partly(z):
        return torch.where(z[:, 0] < 1.4, mild(z), -torch.inf)

    out = algorithm(case_a, partly, batch=3, generator=family([1, 2, 3]))
    assert out.samples.isfinite().all()
    assert torch.equal(out.rewards == -torch.inf, out.samples[..., 0] >= 1.4)
    assert not out.log_weights.isnan().any() and not out.ess.isnan().any()
    if out.log_z is not None:
        assert out.log_z.isfinite().all()
        assert not out.log_weights.softmax(-1)[out.rewards == -torch.inf].any()
    assert "nan" not in out.summary()


def test_populations_without_an_allowed_sample_are_refused(algorithm, case_a, mild, family):
    with pytest.raises(ValueError, match="^reward: it returned -inf for every particle of population 1"):
        algorithm(case_a, [mild, lambda z: mild(z) - torch.inf], batch=2, generator=family([1, 2]))


def test_one_allowed_candidate_of_a_last_step_is_enough(still):
    """Search is refused when all its candidates are forbidden, not when all but one are."""
    asked = []

    class Branching(type(still)):
        def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
            return torch.arange(len(x_t), dtype=x_t.dtype)[:, None]

    def reward(z):
        asked.append(len(z))
        return torch.where(z[:, 0] == 5, 0.0, -torch.inf)

    out = align.search(Branching(), reward, 2, 4, steps=1)
    assert asked == [8] and out.best().tolist() == [[5.0]]
    with pytest.raises(ValueError, match="^reward: it returned -inf for every particle of population 0"):
        align.search(Branching(), reward, 1, 4, steps=1)


# -------------------------------------------------------------------- a reward of its own for each population


def test_rewards_of_their_own_are_separate_runs(algorithm, glass, family):
    """With generators of their own, exactly; conditioning included."""
    rewards = [attracted, lambda z, cond: attracted(z, -2 * cond), lambda z: -z.square().sum(-1)]
    together = algorithm(glass, rewards, batch=3, cond=COND, generator=family([5, 6, 7]))
    for row, reward in enumerate(rewards):
        alone = algorithm(glass, reward, cond=COND[row : row + 1], generator=family([5 + row]))
        for name in ("samples", "rewards", "log_weights"):
            assert torch.allclose(getattr(alone, name)[0], getattr(together, name)[row], rtol=1e-9, atol=1e-12), name
        assert torch.equal(alone.ancestors[:, 0], together.ancestors[:, row])
        assert (alone.nfe, alone.reward_calls) == (together.nfe, together.reward_calls)
    assert not torch.allclose(together.rewards[0], together.rewards[1])


def test_rewards_of_their_own_must_be_one_for_each_population(algorithm, case_a, mild):
    with pytest.raises(ValueError, match="^reward: got 2 rewards, expected one, or one for each of 3 populations"):
        algorithm(case_a, [mild, mild], batch=3)
    with pytest.raises(ValueError, match="^reward: got float, expected a callable"):
        algorithm(case_a, [mild, 3.0], batch=2)


# -------------------------------------------------------------------- chunks of the reward, and of its own


@pytest.mark.parametrize("reward_chunk", [1, 5, 1000])
def test_rewards_may_have_a_chunk_of_their_own(reward_chunk, algorithm, glass, tiny_flow, family):
    sizes = []

    def reward(z):
        sizes.append(len(z))
        return -(z - 0.3).square().sum(-1)

    whole = algorithm(glass, reward, batch=3, cond=COND, generator=family([5, 6, 7]))
    sizes.clear()
    tiny_flow.net.largest = 0
    parts = algorithm(
        glass, reward, batch=3, cond=COND, generator=family([5, 6, 7]), chunk=4, reward_chunk=reward_chunk
    )
    assert max(sizes) <= reward_chunk
    assert tiny_flow.net.largest <= 4
    assert torch.allclose(parts.samples, whole.samples, rtol=1e-9, atol=1e-12)
    assert parts.reward_calls == whole.reward_calls
    with pytest.raises(ValueError, match="^reward_chunk: got 0"):
        algorithm(glass, reward, cond=COND[:1], reward_chunk=0)


# -------------------------------------------------------------------- parts of a reward, and judges that go away


def test_what_the_parts_of_a_reward_say_is_kept_with_the_samples(algorithm, case_a, mild, family, tmp_path):
    """Unweighted, a held-out part of weight 0 among them; on disk too."""
    reward = align.rewards.Combined(
        {"near": (mild, 0.5), "low": lambda z: -z[:, 1], "watched": (lambda z: z[:, 0], 0.0)}
    )
    out = algorithm(case_a, reward, batch=2, generator=family([1, 2]))
    assert list(out.components) == ["near", "low", "watched"]
    expected = mild(out.samples), -out.samples[..., 1], out.samples[..., 0]
    for part, answer in zip(out.components.values(), expected, strict=True):
        assert torch.allclose(part, answer)
    assert torch.allclose(out.rewards, 0.5 * expected[0] + expected[1])
    out.save(tmp_path / "result")
    back = align.Alignment.load(tmp_path / "result")
    assert list(back.components) == sorted(out.components) or list(back.components) == list(out.components)
    assert all(torch.equal(back.components[name], part) for name, part in out.components.items())
    if out.inverse_temperatures is not None:
        assert torch.equal(back.inverse_temperatures, out.inverse_temperatures)
    assert back.settings == out.settings
    assert all(name in out.summary() for name in out.components)


@pytest.mark.parametrize("reward_chunk", [None, 5])
def test_parts_of_rewards_of_their_own_are_kept_where_they_have_the_same_names(reward_chunk, algorithm, case_a, mild):
    def tilted(slope, watched="low"):
        return align.rewards.Combined({"near": (mild, 0.5), watched: (lambda z: slope * z[:, 1], -1.0)})

    backwards = align.rewards.Combined({"low": (lambda z: 3 * z[:, 1], -1.0), "near": (mild, 2.0)})
    out = algorithm(case_a, [tilted(1.0), tilted(2.0), backwards], batch=3, reward_chunk=reward_chunk)
    assert list(out.components) == ["near", "low"]
    slopes = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None]
    assert torch.allclose(out.components["near"], mild(out.samples))
    assert torch.allclose(out.components["low"], slopes * out.samples[..., 1])
    weights = torch.tensor([0.5, 0.5, 2.0], dtype=torch.float64)[:, None]
    assert torch.allclose(out.rewards, weights * out.components["near"] - out.components["low"])
    for other in (tilted(1.0, "high"), mild):
        assert algorithm(case_a, [tilted(1.0), other], batch=2, reward_chunk=reward_chunk).components == {}


class Leaving:
    """A judge that answers so many samples and then is gone, in the middle of a call."""

    def __init__(self, reward, answers):
        self.reward, self.left = reward, answers

    def __call__(self, z):
        if len(z) > self.left:
            found = torch.full((len(z),), torch.nan, dtype=z.dtype)
            found[: self.left] = self.reward(z[: self.left]).detach()
            raise align.RewardFailure("the judge is gone", found)
        self.left -= len(z)
        return self.reward(z)


@pytest.mark.parametrize("chunk", [None, 4])
def test_failures_carry_the_samples_and_what_was_finished(chunk, algorithm, case_a, mild, family):
    """At the end of the call in its last samples: those of the final scoring, all but one of them answered."""
    whole = algorithm(case_a, mild, batch=2, generator=family([1, 2]), chunk=chunk)
    with pytest.raises(align.RewardFailure) as caught:
        judge = Leaving(mild, 2 * whole.reward_calls - 1)
        algorithm(case_a, judge, batch=2, generator=family([1, 2]), chunk=chunk)
    samples, rewards = caught.value.samples, caught.value.rewards
    assert rewards.shape == samples.shape[:1]
    assert rewards.isnan().nonzero().flatten().tolist() == [len(rewards) - 1]
    assert torch.allclose(rewards[:-1], mild(samples[:-1]))
    if algorithm.func is not align.search:  # which scores candidates
        assert torch.allclose(samples, whole.samples.flatten(0, 1))


@pytest.mark.parametrize("reward_chunk", [None, 5])
def test_the_failure_of_one_populations_judge_keeps_everyones_place(reward_chunk, case_a, mild, family):
    """Two of the second population's four samples were answered, and all of the first's."""
    rewards = [mild, Leaving(mild, 2), mild]
    with pytest.raises(align.RewardFailure) as caught:
        align.best_of_n(case_a, rewards, 4, batch=3, generator=family([1, 2, 3]), reward_chunk=reward_chunk)
    samples, found = caught.value.samples, caught.value.rewards
    assert samples.shape == (12, 2) and found.shape == (12,)
    answered = ~found.isnan()
    assert answered.tolist() == [True] * 6 + [False] * 6
    assert torch.allclose(found[answered], mild(samples[answered]))
