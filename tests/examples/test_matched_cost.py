"""The matched-cost benchmark: its yardsticks are right, its accounts are honest, and it runs."""

import math
import sys

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import diamond

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # the examples are not installed
    sys.path.insert(0, str(ROOT))

from examples.benchmarks.matched_cost import digits, methods, mixtures  # noqa: E402
from examples.benchmarks.matched_cost.figures import law_figures, mean_and_error, root_mean_square  # noqa: E402
from examples.benchmarks.matched_cost.models import CANDIDATES, Ideal, Models, PlugIn, mixture_models  # noqa: E402
from examples.benchmarks.matched_cost.overview import overview  # noqa: E402
from examples.benchmarks.matched_cost.plot import draw  # noqa: E402
from examples.benchmarks.matched_cost.report import line, tables  # noqa: E402
from examples.benchmarks.matched_cost.settings import QUICK  # noqa: E402
from examples.benchmarks.matched_cost.tilts import TILTS, make_tilt  # noqa: E402

TINY = replace(
    QUICK, mixture_steps=2, populations=2, mixture_budgets=(100,), mixture_calls=40, teacher_steps=2, map_steps=2,
    flow_map_steps=2, digit_nfe=64, digit_calls=20,
)  # fmt: skip

unlikely = pytest.mark.filterwarnings(
    "ignore::diamond.degeneracy.DegenerateWeights"
)  # of maps of two steps, or in name only


@pytest.fixture(scope="module")
def contest():
    """The plane's problem on exact models: the mixture, its GLASS flow, and a flow map in name only."""
    tilt = make_tilt(2)
    mixture = tilt.mixture
    teacher = diamond.Flow(mixture.denoise, mixture.interpolant, (2,), "denoiser")
    flow_map = diamond.FlowMap(lambda x, t, cond, times: mixture.velocity(x, t), mixture.interpolant, (2,))
    by_name = {
        "exact": Ideal(mixture.weights, mixture.means, mixture.covariances),
        "GLASS-4": diamond.GlassFlow(teacher, 4),
        "plug-in": PlugIn(teacher),
        "flow map": flow_map,
        "weighted": diamond.WeightedDiamondMap(flow_map, proposals=CANDIDATES),
    }
    models = Models(teacher, flow_map, by_name)
    return tilt, methods.Contest(models, methods.CountedReward(tilt.reward), mixtures.WALK, mixtures.GUIDE)


@pytest.mark.parametrize("size", TILTS)
def test_evidence_and_masses_are_a_look_at_the_target(size):
    """`Z = (2 pi tau^2)^{d/2} sum_k w_k N(c; m_k, S_k + tau^2)`, and its terms are the tilted masses."""
    tilt = make_tilt(size)
    data, c = tilt.mixture.double(), tilt.target.double()
    noise = tilt.width * torch.eye(size, dtype=torch.float64)
    densities = [
        torch.distributions.MultivariateNormal(m, s + noise).log_prob(c)
        for m, s in zip(data.means, data.covariances, strict=True)
    ]
    terms = data.weights.log() + torch.stack(densities) + size / 2 * math.log(2 * math.pi * tilt.width)
    assert tilt.log_z == pytest.approx(float(terms.logsumexp(0)), abs=1e-4)
    assert torch.allclose(tilt.law.weights, terms.softmax(0), atol=1e-4)
    assert 0.7 < float(tilt.law.weights[0]) < 0.8


def test_draws_needed_are_a_moment_on_a_grid():
    tilt = make_tilt(2)
    axis = torch.linspace(-6, 6, 401, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    density = tilt.mixture.double().log_prob(points).exp() * 0.03**2
    weight = tilt.reward(points).exp()
    first, second = (density * weight).sum(), (density * weight**2).sum()
    assert tilt.log_z == pytest.approx(float(first.log()), abs=1e-4)
    assert tilt.draws_needed == pytest.approx(float(second / first**2), rel=1e-3)
    mean = (density * weight) @ points / first
    assert torch.allclose(tilt.law.mean(), mean, atol=1e-4)


def test_figures_of_the_law_itself_and_of_a_shifted_one(seeded):
    """Independent draws err by `1 / sqrt(N)` tilted deviations, whatever the law; a shift of one deviation is one."""
    tilt = make_tilt(16)
    populations, draws = 400, 50
    samples = tilt.law.sample(populations * draws, generator=seeded(3)).unflatten(0, (populations, draws))
    even = torch.zeros(populations, draws)
    figures = law_figures(samples, even, torch.full((populations,), tilt.log_z + 0.5), tilt)
    square, error = figures["mean"]["mean"] ** 2, 2 * figures["mean"]["mean"] * figures["mean"]["error"]
    assert abs(square - 1 / draws) < 4.5 * error
    assert figures["log z"] == {"mean": pytest.approx(0.5), "error": pytest.approx(0.0, abs=1e-12)}
    assert figures["log z, root mean square"]["mean"] == pytest.approx(0.5)
    assert figures["ess"]["mean"] == pytest.approx(1.0)
    deviations = tilt.law.covariance().diagonal().sqrt()
    point = law_figures((tilt.law.mean() + deviations).expand(4, 3, -1), torch.zeros(4, 3), None, tilt)
    assert point["mean"]["mean"] == pytest.approx(1.0)
    assert point["covariance"]["mean"] == pytest.approx(1.0)  # a point has none
    assert "log z" not in point


def test_standard_errors():
    values = torch.tensor([1.0, 3.0, 5.0, 7.0])
    spread = math.sqrt(20 / 3)
    assert mean_and_error(values) == {"mean": 4.0, "error": pytest.approx(spread / 2)}
    assert root_mean_square(values) == {"mean": 2.0, "error": pytest.approx(spread / 2 / 4)}


def test_prices_are_what_the_methods_say(contest):
    tilt, contest = contest
    models, steps, mc = contest.models.by_name, 8, 4
    smc = {"nfe": steps + (steps - 1) * mc, "reward_calls": (steps - 1) * mc + 1}
    expected = {
        ("exact", "importance (best-of-N)"): {"nfe": 1, "reward_calls": 1},
        ("exact", "SMC, tempered"): smc,
        ("exact", "guidance"): {"nfe": 16 * (1 + mc), "reward_calls": 16 * mc + 1},
        ("GLASS-4", "SMC, tempered"): {**smc, "nfe": 4 * smc["nfe"]},
        ("flow map", "SMC, tempered"): {"nfe": 2 * steps - 1, "reward_calls": steps},  # one draw a state
        ("plug-in", "SMC, tempered"): {"nfe": 2 * steps - 1, "reward_calls": steps},
        ("plug-in", "FKS (SMC, plug-in value)"): {"nfe": 2 * steps - 1, "reward_calls": steps},
        ("plug-in", "search"): {"nfe": 4 * (2 * steps - 1), "reward_calls": 4 * steps},
        ("plug-in", "guidance"): {"nfe": 31, "reward_calls": 16},
        ("GLASS-4", "GLASS value guidance"): {"nfe": 16, "reward_calls": 17},
        ("GLASS-4", "FKS (SMC, plug-in value)"): {"nfe": 4 * steps + steps - 1, "reward_calls": steps},
        ("GLASS-4", "DPS (plug-in guidance)"): {"nfe": 31, "reward_calls": 16},
        ("weighted", "importance (best-of-N)"): {"nfe": 3 * CANDIDATES + 1, "reward_calls": 1},
    }
    for (model, name), cost in expected.items():
        method = methods.methods_of(model)[name]
        assert methods.price(contest, models[model], method) == cost, (model, name)
        assert methods.affordable(contest, models[model], method, 1000, "nfe") == 1000 // cost["nfe"]


@unlikely
@pytest.mark.parametrize("model", ["exact", "GLASS-4", "plug-in", "flow map", "weighted"])
def test_costs_are_the_particles_times_the_price_however_calls_are_cut(contest, monkeypatch, seeded, model):
    """But for the weighted map's, which has evaluations of a state that all its draws share."""
    if model != "weighted":
        monkeypatch.setattr(methods, "CHUNK", 7)
    contest = contest[1]
    sampler = contest.models.by_name[model]
    for name, method in methods.methods_of(model).items():
        particles = 2
        result, calls = methods.run(contest, sampler, method, particles, 2, seeded(0))
        cost = methods.price(contest, sampler, method)
        assert (result.nfe, calls) == (particles * cost["nfe"], particles * cost["reward_calls"]), name


@unlikely
@pytest.mark.parametrize("model", methods.IMPOSSIBLE)
def test_what_is_left_out_is_refused_or_is_no_sample(contest, seeded, model):
    """The rest of all methods runs on all models: the test above."""
    contest = contest[1]
    sampler = contest.models.by_name[model]
    assert set(methods.METHODS) - set(methods.methods_of(model)) == methods.IMPOSSIBLE[model]
    for name in methods.IMPOSSIBLE[model]:
        if name in ("none", "importance (best-of-N)"):
            samples = methods.METHODS[name](contest, sampler, 8, batch=1, generator=seeded(0)).samples[0]
            assert float(samples.std(0).max()) < 1e-5  # the mean of all data
        else:
            with pytest.raises(ValueError, match="lookahead|score"):
                methods.METHODS[name](contest, sampler, 8, batch=1, generator=seeded(0))


def test_methods_of_the_field_are_those_on_the_plug_in(contest, seeded):
    """From the same seed, sample by sample: FKS is its SMC, DPS its guidance."""
    contest = contest[1]
    plug_in = contest.models.by_name["plug-in"]

    def samples(name):
        return methods.run(contest, plug_in, methods.METHODS[name], 16, 2, seeded(4))[0].samples

    assert torch.equal(samples("SMC"), samples("FKS (SMC, plug-in value)"))
    assert torch.allclose(samples("guidance"), samples("DPS (plug-in guidance)"), rtol=1e-2, atol=1e-2)


def test_plug_in_steps_are_the_ancestral_samplers(contest, seeded):
    """Whose mean and variance are those of a Gaussian step around the denoiser's mean."""
    tilt, contest = contest
    plug_in = contest.models.by_name["plug-in"]
    x, t, t_next = torch.tensor([[0.3, -0.4]]).expand(20000, 2), 0.4, 0.7
    moved = plug_in.transition(x, t, t_next, generator=seeded(7)).double()
    mean = tilt.mixture.denoise(x[:1], t)[0].double()
    rho = t * (1 - t_next) / ((1 - t) * t_next)
    carried = rho * (1 - t_next) / (1 - t)
    variance = (1 - t_next) ** 2 * (1 - rho**2)
    expected = (t_next - carried * t) * mean + carried * x[0].double()
    assert float(((moved.mean(0) - expected).abs() / (variance / 20000) ** 0.5).max()) < 4.5
    assert float((moved.var(0) / variance - 1).abs().max()) < 4.5 * (2 / 20000) ** 0.5


def test_importance_sampling_of_the_exact_model_finds_the_evidence(contest, seeded):
    """The variance of `Z` estimated from n draws is `(draws_needed - 1) / n` of its square."""
    tilt, contest = contest
    n, populations = 2048, 64
    result, calls = methods.run(
        contest, contest.models.by_name["exact"], methods.METHODS["importance (best-of-N)"], n, populations, seeded(5)
    )
    ratio = (result.log_z.double() - tilt.log_z).exp().mean()
    assert abs(float(ratio) - 1) < 4.5 * math.sqrt((tilt.draws_needed - 1) / (n * populations))
    assert calls == n == result.reward_calls == result.nfe
    figures = law_figures(result.samples, result.log_weights, result.log_z, tilt)
    assert figures["ess"]["mean"] * n < 4 * n / tilt.draws_needed


def test_unsteered_samples_have_no_weights(contest, seeded):
    tilt, contest = contest
    result, _ = methods.run(contest, contest.models.by_name["exact"], methods.METHODS["none"], 64, 4, seeded(0))
    assert result.log_z is None
    assert bool((result.log_weights == 0).all())


def test_frechet_distance_of_known_moments(seeded):
    """Of Gaussians with commuting covariances: `|m - m'|^2 + |s - s'|^2` for deviations s and s'."""
    raw = torch.randn(50, 3, generator=seeded(1), dtype=torch.float64)
    raw = raw - raw.mean(0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T.cov())).T
    s, s_other = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([1.5, 0.5, 0.5]).double()
    basis = torch.linalg.qr(torch.randn(3, 3, generator=seeded(2), dtype=torch.float64)).Q
    shift = torch.tensor([1.0, -2.0, 0.0]).double()
    distance = digits.frechet_distance((white * s) @ basis.T, (white.flip(0) * s_other) @ basis.T + shift)
    assert float(distance) == pytest.approx(5.0 + float((s - s_other).square().sum()), rel=1e-9)


def test_models_are_trained_once(tmp_path):
    """And again for another number of steps."""
    tilt = make_tilt(2)
    first, again, other = (mixture_models(tilt, steps, tmp_path, 0) for steps in (1, 1, 2))
    maps = [models.by_name["map"] for models in (first, again, other)]
    x, t = torch.ones(1, 2), torch.full((1,), 0.5)
    with torch.no_grad():
        assert torch.equal(maps[0].denoise(x, t), maps[1].denoise(x, t))
    assert [model.metadata["steps"] for model in maps] == [1, 1, 2]
    assert not any(parameter.requires_grad for model in maps for parameter in model.parameters())


@unlikely
def test_mixtures_end_to_end(tmp_path, monkeypatch):
    """Every row keeps to its budget, and the page and the plot are made."""
    few = {"importance, 8 steps", "SMC", "SMC, lookahead", "FMTT (SMC, flow map value)", "guidance"}
    of_all = methods.methods_of
    monkeypatch.setattr(
        mixtures, "methods_of", lambda model: {name: run for name, run in of_all(model).items() if name in few}
    )
    rows = list(mixtures.compare_on_mixtures(TINY, tmp_path, 0))
    assert {row["method"] for row in rows if row["model"] == "map"} >= {"SMC, lookahead", "FMTT (SMC, flow map value)"}
    assert all(row["budget"] is None or row[row["currency"]] <= row["budget"] for row in rows)
    page = tables(rows, TINY, "a machine", 60.0)
    assert "### d = 2, equal NFE: 100" in page and "### d = 2, equal reward calls: 40" in page
    assert "<details>" in page and "RMSE of log Z:" in page
    bold = [text for text in page.splitlines() if "**" in text]
    assert bold and not any(text.startswith("| exact") for text in bold)
    assert "particles" in line(rows[-1])
    short = overview(rows).splitlines()
    assert "d=2: log Z" in short[0] and any(text.startswith("| plug-in |") for text in short)
    draw(rows, tmp_path / "plot.png")
    assert 0 < (tmp_path / "plot.png").stat().st_size < 200_000


@unlikely
def test_digits_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "methods_of", lambda model: dict(list(methods.methods_of(model).items())[:2]))
    rows = list(digits.compare_on_digits(TINY, tmp_path, 0))
    real, *steered = rows
    assert real["figures"]["agrees"]["mean"] > 0.9  # the judge knows real digits
    assert real["figures"]["diversity"]["mean"] == pytest.approx(1.0, abs=0.15)
    assert min(row["figures"]["frechet"]["mean"] for row in steered) > real["figures"]["frechet"]["mean"]
    assert all(row[row["currency"]] <= row["budget"] for row in steered)
