"""Results: the best sample, samples by weight, and plots."""

import dataclasses
import io

import pytest
import torch

from align.alignment import Alignment

WEIGHTS = torch.tensor([0.05, 0.4, 0.25, 0.3], dtype=torch.float64)


def result(samples, log_weights, rewards=None):
    batch, particles = log_weights.shape
    return Alignment(
        samples=samples,
        rewards=torch.zeros(batch, particles) if rewards is None else rewards,
        log_weights=log_weights,
        ess=torch.ones(1, batch),
        ancestors=torch.arange(particles).expand(1, batch, particles),
        nfe=None,
        nfe_backward=0,
        reward_calls=0,
        seconds=0.0,
        method="by hand",
        law="none",
    )


@pytest.fixture
def numbered():
    """Many populations of four particles, whose samples are their numbers, of unequal weights."""

    def make(batch, weights=WEIGHTS):
        samples = torch.arange(len(weights), dtype=torch.float64).expand(batch, -1)[..., None]
        return result(samples, weights.log().expand(batch, -1))

    return make


# -------------------------------------------------------------------- samples


def test_best_is_the_sample_of_the_highest_reward_in_each_population():
    samples = torch.arange(24.0).reshape(3, 4, 2)
    rewards = torch.tensor([[0.0, 3.0, 1.0, 2.0], [-5.0, -7.0, -6.0, -5.5], [-torch.inf, -torch.inf, -9.0, -torch.inf]])
    best = result(samples, torch.zeros(3, 4), rewards).best()
    assert torch.equal(best, torch.stack([samples[0, 1], samples[1, 0], samples[2, 2]]))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 40])
def test_resampled_samples_follow_the_weights(n, numbered, seeded, check_mean):
    """For fewer samples than particles as for more: each is expected in proportion, and rounded up or down."""
    drawn = numbered(20_000).resample(n, generator=seeded())
    assert drawn.shape == (20_000, n, 1)
    counts = torch.nn.functional.one_hot(drawn.squeeze(-1).long(), 4).sum(1).double()
    check_mean(counts, n * WEIGHTS, limit=4)
    assert ((counts - n * WEIGHTS).abs() < 1).all()


def test_resampling_the_dead_is_refused(numbered):
    out = numbered(2)
    dead = dataclasses.replace(out, log_weights=torch.full_like(out.log_weights, -torch.inf))
    with pytest.raises(ValueError, match="^log_weights: got NaN"):
        dead.resample(2)


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_resampling_no_number_is_refused(n, numbered):
    with pytest.raises(ValueError, match="^n: got"):
        numbered(2).resample(n)


def test_resampling_serves_each_population_by_its_generator(numbered, family):
    out = numbered(3, torch.linspace(0.5, 1.5, 30, dtype=torch.float64))
    together = out.resample(5, generator=family([1, 2, 3]))
    alone = dataclasses.replace(out, samples=out.samples[1:2], log_weights=out.log_weights[1:2])
    assert torch.equal(alone.resample(5, generator=family([2]))[0], together[1])
    before = torch.get_rng_state()
    assert not torch.equal(out.resample(5), out.resample(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_resampled_populations_have_the_tilted_law(case_a, mild, seeded, check_mean):
    """End to end: one sample from each of many weighted populations, by the exact tilt."""
    from align import smc

    out = smc(case_a, mild, 200, 3, batch=1200, ess_threshold=0.9, generator=seeded(), value=lambda x, t: mild(x))
    gap = out.resample(1, generator=seeded(1))[:, 0] - mild.law(case_a).mean()
    check_mean(gap, torch.zeros(2, dtype=torch.float64), limit=4, slack=0.005)
    check_mean(gap[:, :, None] * gap[:, None], mild.law(case_a).covariance(), limit=4, slack=0.005)


def test_results_cannot_be_changed_by_accident(numbered):
    with pytest.raises(dataclasses.FrozenInstanceError):
        numbered(1).samples = None


# -------------------------------------------------------------------- plots


def test_every_result_can_be_plotted(algorithm, case_a, mild):
    out = algorithm(case_a, mild, batch=2)
    figure = out.plot()
    rewards, sizes, lineage = figure.axes
    assert rewards.get_title() == out.method
    assert (rewards.get_xlabel(), sizes.get_xlabel()) == ("reward", "step")
    assert len(sizes.lines) == len(lineage.lines) == 2
    assert lineage.lines[1].get_ydata().tolist() == out.unique_ancestors()[:, 1].tolist()
    assert sizes.lines[0].get_ydata().tolist() == pytest.approx(out.ess[:, 0].tolist())
    assert sum(bar.get_height() for bar in rewards.patches if hasattr(bar, "get_height")) == pytest.approx(1)
    image = io.BytesIO()
    figure.savefig(image)
    assert image.getvalue().startswith(b"\x89PNG")


def test_plots_weigh_each_population_alike():
    """Log-weights are known up to a constant a population, and forbidden samples have no bar."""
    rewards = torch.tensor([[0.0, 1.0, -torch.inf], [0.0, 1.0, -torch.inf]])
    log_weights = torch.tensor([[0.0, 0.0, -torch.inf], [50.0, 50.0, -torch.inf]])
    bars = result(torch.zeros(2, 3, 1), log_weights, rewards).plot().axes[0].patches
    heights = [bar.get_height() for bar in bars if hasattr(bar, "get_height") and bar.get_height() > 0]
    assert heights == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("level", [0.0, -3e7, -torch.inf])
def test_plots_of_equal_rewards_are_plots(level):
    out = result(torch.zeros(1, 4, 1), torch.zeros(1, 4), torch.full((1, 4), level))
    out.plot().savefig(io.BytesIO())


# -------------------------------------------------------------------- evidence, lineage, summary


def test_evidence_is_the_mean_over_populations_and_its_error(numbered):
    z = torch.tensor([0.5, 2.0, 1.1, 0.3, 0.9], dtype=torch.float64)
    for level in (0.0, -2000.0):
        out = dataclasses.replace(numbered(5), log_z=z.log() + level)
        log_z, error = out.evidence()
        assert log_z == pytest.approx(float(z.mean().log()) + level)
        assert error == pytest.approx(float(z.std() / 5**0.5 / z.mean()))
    assert out.evidence().log_z == log_z
    single = dataclasses.replace(numbered(1), log_z=z[:1].log()).evidence()
    assert single.log_z == pytest.approx(float(z[0].log())) and single.error != single.error
    with pytest.raises(ValueError, match="^log_z: by hand estimates none"):
        numbered(5).evidence()


def test_the_error_of_the_evidence_is_the_spread_of_its_repetitions(case_a, mild, seeded):
    """Of forty estimates, each from fifty populations: within what forty tell of a spread."""
    from align import best_of_n

    estimates = [best_of_n(case_a, mild, 8, batch=50, generator=seeded(seed)).evidence() for seed in range(40)]
    values, errors = (torch.tensor(column, dtype=torch.float64) for column in zip(*estimates, strict=True))
    assert float(values.std()) == pytest.approx(float(errors.mean()), rel=4 / 80**0.5)
    assert abs(float(values.mean() - mild.log_z(case_a))) < 4 * float(errors.mean()) / 40**0.5


GENEALOGY = torch.tensor([[[0, 1, 2, 3]], [[1, 1, 0, 3]], [[0, 2, 2, 3]], [[3, 3, 1, 1]]])  # of four steps


def test_lineage_follows_parents_to_the_start(numbered):
    """By hand: the last four stem from 3, 3, 2, 2, these from 3, 3, 2, 2, these from 3, 3, 0, 0."""
    out = dataclasses.replace(numbered(1), ancestors=GENEALOGY)
    expected = [[[3, 3, 0, 0]], [[3, 3, 0, 0]], [[3, 3, 2, 2]], [[3, 3, 1, 1]]]
    assert out.lineage().tolist() == expected
    assert out.unique_ancestors().tolist() == [[2], [2], [2], [2]]
    assert numbered(2).unique_ancestors().tolist() == [[4, 4]]


def test_lineage_finds_where_particles_came_from(still):
    """Particles that never move stand at the end where their first ancestor stood."""
    from align import smc

    seen = []
    out = smc(
        still, lambda z: 2 * z[:, 0], 10, 5, batch=3, ess_threshold=1.0, value=lambda x, t: (1 + t) * x[:, 0],
        callback=seen.append, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    lineage = out.lineage()
    assert torch.equal(out.samples, seen[0].samples.gather(1, lineage[0][..., None]))
    for k in range(1, 5):
        assert torch.equal(out.samples, seen[k - 1].samples.gather(1, lineage[k][..., None]))
    counts = [[len(set(row.tolist())) for row in step] for step in lineage]
    assert out.unique_ancestors().tolist() == counts
    assert (out.unique_ancestors().diff(dim=0) >= 0).all() and (out.unique_ancestors()[0] < 10).all()


def test_summaries_tell_law_and_cost(algorithm, case_a, mild):
    out = algorithm(case_a, mild, batch=2)
    text = out.summary()
    assert out.law in text and out.method in text and "2 of" in text
    assert "not counted" not in text or out.nfe is None
    assert f"reward calls  {'':9s}{out.reward_calls}".replace(" ", "") in text.replace(" ", "")
    assert (out.log_z is None) == ("log_z" not in text)
    assert "not counted" in dataclasses.replace(out, nfe=None).summary()


def test_summaries_of_forbidden_parts_are_numbers(numbered):
    """A part of -inf where the weight is zero counts for nothing."""
    out = numbered(2, torch.tensor([0.0, 0.4, 0.6, 0.0], dtype=torch.float64))
    part = torch.tensor([-torch.inf, 1.0, 2.0, -torch.inf], dtype=torch.float64).expand(2, 4)
    out = dataclasses.replace(out, components={"allowed": part})
    line = next(line for line in out.summary().splitlines() if "allowed" in line)
    assert "1.6" in line and "nan" not in line


def test_populations_with_rewards_of_their_own_are_not_taken_together(case_a, mild, gentle):
    from align import smc

    apart, together = (smc(case_a, rewards, 8, 2, batch=2) for rewards in ([mild, gentle], mild))
    assert together.replicates and "+-" in together.summary()
    assert not apart.replicates and "by population" in apart.summary()
    with pytest.raises(ValueError, match="^log_z: got populations of different rewards or cond"):
        apart.evidence()
    apart.plot()


def test_summaries_of_even_weights_do_not_pass_over_forbidden_samples(numbered):
    """Their mean reward is -inf, not that of the others."""
    rewards = torch.tensor([[-torch.inf, 1.0, 2.0, 3.0]], dtype=torch.float64)
    even = dataclasses.replace(numbered(1), rewards=rewards, log_weights=torch.zeros(1, 4))
    assert "-inf by weight, best 3" in even.summary()
    assert "2 by weight, best 3" in dataclasses.replace(even, log_weights=(rewards > 0).log()).summary()


def test_a_result_shows_in_one_line(numbered):
    out = numbered(2)
    assert repr(out) == "Alignment(by hand, 2 x 4 samples of shape (1,), reward_calls=0)"
    assert repr(dataclasses.replace(out, nfe=9, reward_calls=8)).endswith("of shape (1,), nfe=9, reward_calls=8)")
