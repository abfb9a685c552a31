"""Search: order statistics in one step, climbing in many, and lineage."""

import pytest
import torch

import align

from diamond.glass import GlassFlow

EXPECTED_MAXIMUM = {1: 0.0, 2: 0.5642, 4: 1.0294, 8: 1.4236}  # of n standard normal numbers


def height(z):
    return z[:, 0]


@pytest.fixture
def standard(normal_law):
    return normal_law([0.0], [[1.0]])


@pytest.mark.parametrize("keep", ["all", "each"])
@pytest.mark.parametrize("branch", EXPECTED_MAXIMUM)
def test_one_step_of_one_particle_is_the_best_of_its_branches(keep, branch, standard, seeded, check_mean):
    out = align.search(standard, height, 1, branch, 1, keep=keep, batch=6000, generator=seeded())
    check_mean(out.rewards[:, 0], EXPECTED_MAXIMUM[branch], limit=4, slack=1e-4)


def test_one_step_of_a_beam_keeps_the_best_of_all(standard, seeded, check_mean):
    """The two largest of four normal numbers; each of two particles' larger of two is another law."""
    beam = align.search(standard, height, 2, 2, 1, batch=8000, generator=seeded())
    each = align.search(standard, height, 2, 2, 1, keep="each", batch=8000, generator=seeded())
    check_mean(beam.rewards, torch.tensor([1.0294, 0.2970], dtype=torch.float64), limit=4, slack=1e-4)
    check_mean(each.rewards, torch.tensor([0.5642, 0.5642], dtype=torch.float64), limit=4, slack=1e-4)


@pytest.mark.parametrize("keep", ["all", "each"])
@pytest.mark.parametrize("rho", [None, 0.3])
def test_a_single_branch_is_the_base_sampler(keep, rho, case_a, seeded, check_mean):
    out = align.search(case_a, height, 8000, 1, 3, mc=1, rho=rho, keep=keep, generator=seeded())
    z = out.samples[0] - case_a.mean()
    check_mean(z, torch.zeros(2, dtype=torch.float64), limit=4)
    check_mean(z[:, :, None] * z[:, None], case_a.covariance(), limit=4)


@pytest.mark.parametrize("keep", ["all", "each"])
def test_more_branches_climb_higher(keep, case_a, mild, seeded):
    """Each doubling raises the mean reward by more than chance."""
    runs = [
        align.search(case_a, mild, 2, branch, 6, mc=2, keep=keep, batch=600, generator=seeded(branch)).rewards.mean(1)
        for branch in (1, 2, 4, 8)
    ]
    for low, high in zip(runs[:-1], runs[1:], strict=True):
        error = ((low.var() + high.var()) / 600).sqrt()
        assert float((high.mean() - low.mean()) / error) > 4


def test_better_values_climb_higher(case_a, hard, seeded):
    exact, blind = (
        align.search(case_a, hard, 2, 4, 8, value=value, batch=300, generator=seeded()).rewards.mean(1)
        for value in (lambda x, t: hard.value(case_a, x, t), lambda x, t: torch.zeros_like(t))
    )
    assert float((exact.mean() - blind.mean()) / ((exact.var() + blind.var()) / 300).sqrt()) > 4


def test_a_beam_beats_keeping_each(case_a, mild, seeded):
    beam, each = (
        align.search(case_a, mild, 4, 4, 6, keep=keep, batch=400, generator=seeded()).rewards.mean(1)
        for keep in ("all", "each")
    )
    assert float((beam.mean() - each.mean()) / ((beam.var() + each.var()) / 400).sqrt()) > 4


@pytest.mark.parametrize("keep", ["all", "each"])
def test_ancestors_lead_back_to_the_start(keep, still):
    """Particles that never move are found again where their ancestors say."""
    seen = []
    out = align.search(
        still, height, 4, 3, 3, keep=keep, batch=2, callback=seen.append, generator=torch.Generator().manual_seed(0),
        value=lambda x, t: -(x[:, 0] - 0.2).abs(),
    )  # fmt: skip
    population = still.prior(8, generator=torch.Generator().manual_seed(0)).reshape(2, 4, 1)
    for step, ancestors in zip(seen, out.ancestors, strict=True):
        population = population.gather(1, ancestors[..., None])
        assert torch.equal(step.samples, population)
    assert torch.equal(out.samples, population)
    if keep == "each":
        assert torch.equal(out.ancestors, torch.arange(4).expand(3, 2, 4))
    else:  # three copies of each: the best one's three, and one of the second
        assert (out.ancestors[0][:, :3] == out.ancestors[0][:, :1]).all()
        assert (out.ancestors[0][:, 3] != out.ancestors[0][:, 0]).all()


def test_a_beam_keeps_the_best_valued_candidates(case_a):
    """Whatever is kept is valued more than whatever is not, in each population by itself."""
    valued, seen = [], []

    def value(x, t):
        valued.append(x[:, 1].reshape(3, -1))
        return x[:, 1]

    align.search(
        case_a, height, 4, 5, 4, value=value, batch=3, callback=seen.append, generator=torch.Generator().manual_seed(0)
    )
    assert len(valued) == 3
    for candidates, step in zip(valued, seen, strict=False):
        assert candidates.shape == (3, 20)
        assert torch.equal(step.samples[..., 1], candidates.topk(4).values)


def test_each_particle_keeps_its_own_best_candidate(case_a):
    valued, seen = [], []

    def value(x, t):
        valued.append(x[:, 1].reshape(3, 4, 5))
        return x[:, 1]

    align.search(
        case_a, height, 4, 5, 4, value=value, batch=3, keep="each", callback=seen.append,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    for candidates, step in zip(valued, seen, strict=False):
        assert torch.equal(step.samples[..., 1], candidates.amax(-1))


def test_forbidden_candidates_are_left_behind(case_a, seeded):
    out = align.search(
        case_a, lambda z: torch.where(z[:, 0] < 0, z[:, 1], -torch.inf), 3, 8, 4, batch=50, generator=seeded()
    )
    assert (out.samples[..., 0] < 0).all()
    assert torch.equal(out.rewards, out.samples[..., 1])


@pytest.mark.parametrize("keep", ["all", "each"])
@pytest.mark.parametrize("batch", [1, 3])
def test_cost_is_counted_for_one_population(keep, batch, tiny_flow, mild):
    particles, branch, steps, mc, inner = 2, 3, 4, 5, 2
    out = align.search(
        GlassFlow(tiny_flow, steps=inner), mild, particles, branch, steps, mc=mc, keep=keep, batch=batch, chunk=7
    )
    wide = particles * branch
    assert out.nfe == wide * inner * (steps + mc * (steps - 1))
    assert out.reward_calls == wide * (mc * (steps - 1) + 1)
    assert out.nfe_backward == 0
    assert out.samples.shape == (batch, particles, 2)


def test_its_samples_are_unweighted_and_claim_no_law(case_a, mild):
    out = align.search(case_a, mild)
    assert not out.log_weights.any()
    assert torch.allclose(out.ess, torch.full((8, 1), 4.0, dtype=out.ess.dtype))
    assert out.log_z is None
    assert out.law.startswith("none")


REFUSED = {
    "particles": ({"particles": 0}, "^particles: got 0"),
    "branch": ({"branch": 0}, "^branch: got 0"),
    "mc": ({"mc": 0}, "^mc: got 0"),
    "keep": ({"keep": "best"}, "^keep: got 'best', expected one of all, each"),
    "value": ({"value": "plugin"}, "^value: got str"),
    "value's nan": ({"value": lambda x, t: t * torch.nan}, "^value: it returned nan"),
    "times": ({"times": [1, 0]}, "^times: got"),
    "reward": ({"reward": lambda z: z}, "^reward: it returned shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case, case_a, mild):
    changed, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        align.search(**({"model": case_a, "reward": mild} | changed))


def test_antithetic_draws_and_a_value_function_contradict_each_other(case_a, mild):
    with pytest.raises(ValueError, match="^antithetic: got True with a value function"):
        align.search(case_a, mild, antithetic=True, value=lambda x, t: mild(x))
