"""Where random numbers come from: generators, lists of them, slices of one draw; never the global state."""

import numpy as np
import pytest
import torch

from diamond.checkpoint import load
from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.nets import ResidualMLP
from diamond.randomness import AntitheticNoise, SlicedNoise, fresh_generator, normal, uniform
from diamond.snr_choice import choose_snr
from diamond.weighted_map import WeightedDiamondMap

DRAWS, ROWS = 6, 8
SOURCES = {"one": lambda: torch.Generator().manual_seed(3), "list": lambda: family(range(4))}


def family(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("draw", [normal, uniform])
def test_the_same_seed_gives_the_same_numbers(draw, seeded):
    first, second, other = (draw((5, 3), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("draw", [normal, uniform])
def test_a_fresh_generator_gives_new_numbers_each_time(draw):
    assert not torch.equal(draw((8,)), draw((8,)))
    assert fresh_generator().initial_seed() != fresh_generator().initial_seed()


def test_normal_numbers_have_the_moments_of_the_normal_law(seeded, check_mean):
    x = normal((200_000,), seeded(), dtype=torch.float64)
    powers = torch.stack([x, x**2, x**3, x**4], dim=-1)
    check_mean(powers, torch.tensor([0.0, 1.0, 0.0, 3.0], dtype=torch.float64))


def test_uniform_numbers_fill_the_unit_interval_evenly(seeded, check_mean):
    u = uniform((200_000,), seeded(), dtype=torch.float64)
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    shares = torch.nn.functional.one_hot((10 * u).long(), 10).double()
    check_mean(shares, torch.full((10,), 0.1, dtype=torch.float64))


@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize("axis", [0, 1])
def test_numbers_of_a_population_do_not_depend_on_the_others(draw, axis):
    shape = [5, 5]
    shape[axis] = 8
    together = draw(shape, family([10, 11, 12, 13]), batch_axis=axis)
    shape[axis] = 2
    for place, seed in enumerate([10, 11, 12, 13]):
        alone = draw(shape, family([seed]), batch_axis=axis)
        assert torch.equal(together.narrow(axis, 2 * place, 2), alone)
        assert torch.equal(alone, draw(shape, family([seed])[0], batch_axis=axis))


@pytest.mark.parametrize("count", [0, 3])
def test_generators_that_cannot_share_the_rows_are_refused(count):
    with pytest.raises(ValueError, match=f"^generator: got {count} generators for 8 rows"):
        normal((8, 2), family(range(count)))


STRANGE = {
    "a seed": 5,
    "numpy's": np.random.default_rng(0),
    "a word": "seed",
    "seeds": [1, 2],
    "one of them none": [torch.Generator(), None],
    "antithetic seed": AntitheticNoise(5),
    "slices of a seed": SlicedNoise(5, 8, 2),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("draw", [normal, uniform])
def test_what_is_no_generator_is_refused_by_every_draw(draw, strange):
    with pytest.raises(ValueError, match="^generator: got .*, expected a torch.Generator, .* a seed makes one: "):
        draw((2, 8, 3), STRANGE[strange], batch_axis=1)


@pytest.mark.parametrize("strange", [5, np.random.default_rng(0), [5]])
def test_what_is_no_generator_is_refused_by_every_model(strange, case_a):
    x, flow = torch.zeros(4, 2, dtype=torch.float64), Flow(ResidualMLP((2,), width=8, depth=1).double())
    flow_map = FlowMap(ResidualMLP((2,), width=8, depth=1, times=1).double())
    outer = DiamondMap(ResidualMLP((2,), width=8, depth=1, states=1, times=3).double())
    stochastic = [case_a, GlassFlow(flow, steps=2), outer, WeightedDiamondMap(flow_map)]
    calls = [lambda model=model: model.prior(4, generator=strange) for model in (*stochastic, flow, flow_map)]
    calls += [lambda model=model: model.sample(4, generator=strange) for model in (case_a, flow, flow_map, outer)]
    calls += [lambda model=model: model.posterior(x, 0.5, 2, generator=strange) for model in stochastic]
    calls += [lambda model=model: model.transition(x, 0.5, 0.8, generator=strange) for model in (*stochastic, flow_map)]
    calls += [
        lambda: flow.sample(4, eta=1.0, generator=strange),
        lambda: choose_snr(flow_map, x, 0.5, generator=strange),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="^generator: got .*, expected a torch.Generator"):
            call()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("draws", [1, 4, 6])
def test_slices_of_noise_make_up_the_whole_draw_for_any_chunks(source, chunk, draws):
    def ask(noise, rows, columns):
        """What one part of a call draws: a start, then uniform numbers, then noise with a Monte Carlo axis."""
        yield normal((rows, 3), noise)
        yield uniform((rows,), noise)
        yield normal((columns, rows, 2), noise, batch_axis=1)
        yield normal((rows, 3), noise, dtype=torch.float64)

    whole = list(ask(SOURCES[source](), ROWS, DRAWS))
    noise = SlicedNoise(SOURCES[source](), ROWS, DRAWS)
    seen = [torch.full_like(tensor, torch.nan) for tensor in whole]
    for top in range(0, DRAWS, draws):
        for left in range(0, ROWS, chunk):
            columns, rows = slice(top, min(top + draws, DRAWS)), slice(left, min(left + chunk, ROWS))
            part = noise.part(rows, columns)
            pieces = list(ask(part, rows.stop - rows.start, columns.stop - columns.start))
            for place in (0, 1, 3):
                seen[place][rows] = pieces[place]
            seen[2][columns, rows] = pieces[2]
    assert all(torch.equal(one, other) for one, other in zip(seen, whole, strict=True))


def test_a_part_of_the_rows_has_all_the_draws(seeded):
    whole = normal((DRAWS, ROWS, 2), seeded(), batch_axis=1)
    part = SlicedNoise(seeded(), ROWS, DRAWS).part(slice(2, 5))
    assert torch.equal(normal((DRAWS, 3, 2), part, batch_axis=1), whole[:, 2:5])


def test_a_request_that_does_not_fit_its_part_is_refused(seeded):
    part = SlicedNoise(seeded(), ROWS).part(slice(0, 4))
    with pytest.raises(ValueError, match=r"^noise: asked for shape \(5, 2\), but this part of the call has \(4, 2\)"):
        normal((5, 2), part)


@pytest.mark.parametrize("source", [*SOURCES, "fresh"])
def test_the_global_state_is_neither_read_nor_moved(source, case_a):
    flow = Flow(ResidualMLP((2,), width=8, depth=1))
    models = [
        case_a,
        flow,
        GlassFlow(flow, steps=2),
        FlowMap(ResidualMLP((2,), width=8, depth=1, times=1)),
        DiamondMap(ResidualMLP((2,), width=8, depth=1, states=1, times=3)),
    ]

    def run():
        results = []
        for model in models:
            generator = None if source == "fresh" else SOURCES[source]()
            x = model.prior(4, generator=generator)
            results.append(x)
            if not isinstance(model, Flow):
                results.append(model.posterior(x, 0.5, 3, generator=generator))
                results.append(model.transition(x, 0.5, 0.8, generator=generator))
                results.append(model.transition(x, 0.5, 0.8, rho=0.2, generator=generator))
            if not isinstance(model, GlassFlow):
                results.append(model.sample(4, generator=generator))
        results.append(flow.sample(4, steps=3, eta=1.0, generator=generator))
        return results

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = run()
    alike = [torch.equal(one, other) for one, other in zip(first, second, strict=True)]
    assert not any(alike) if source == "fresh" else all(alike)


def test_loading_a_model_leaves_the_global_state_alone(tmp_path):
    Flow(ResidualMLP((2,), width=8, depth=1)).save(tmp_path / "flow.ckpt")
    before = torch.get_rng_state()
    load(tmp_path / "flow.ckpt")
    assert torch.equal(torch.get_rng_state(), before)


# -------------------------------------------------------------------- opposite noise


@pytest.mark.parametrize("source", SOURCES)
def test_the_second_half_of_antithetic_numbers_mirrors_the_first(source):
    noise = AntitheticNoise(SOURCES[source]())
    x = normal((DRAWS, ROWS, 3), noise, batch_axis=1)
    u = uniform((DRAWS, ROWS), noise, batch_axis=1)
    half = DRAWS // 2
    assert torch.equal(x[half:], -x[:half])
    assert torch.equal(u[half:], 1 - u[:half])
    plain = SOURCES[source]()
    assert torch.equal(x[:half], normal((half, ROWS, 3), plain, batch_axis=1))
    assert torch.equal(u[:half], uniform((half, ROWS), plain, batch_axis=1))


def test_each_antithetic_number_has_the_law_it_would_have_alone(seeded, check_mean):
    x = normal((2, 50_000), AntitheticNoise(seeded()), batch_axis=1, dtype=torch.float64)
    u = uniform((2, 50_000), AntitheticNoise(seeded()), batch_axis=1, dtype=torch.float64)
    for row in range(2):
        powers = torch.stack([x[row] ** k for k in (1, 2, 3, 4)], dim=-1)
        check_mean(powers, torch.tensor([0.0, 1.0, 0.0, 3.0], dtype=torch.float64))
        check_mean(torch.stack([u[row], u[row] ** 2], dim=-1), torch.tensor([1 / 2, 1 / 3], dtype=torch.float64))


@pytest.mark.parametrize("chunk, draws", [(3, 1), (8, 2), (2, 5)])
def test_slices_of_antithetic_noise_make_up_the_whole_draw(chunk, draws, seeded):
    whole = normal((DRAWS, ROWS, 2), AntitheticNoise(seeded()), batch_axis=1)
    noise = SlicedNoise(AntitheticNoise(seeded()), ROWS, DRAWS)
    seen = torch.full_like(whole, torch.nan)
    for top in range(0, DRAWS, draws):
        for left in range(0, ROWS, chunk):
            columns, rows = slice(top, min(top + draws, DRAWS)), slice(left, min(left + chunk, ROWS))
            shape = (columns.stop - columns.start, rows.stop - rows.start, 2)
            seen[columns, rows] = normal(shape, noise.part(rows, columns), batch_axis=1)
    assert torch.equal(seen, whole)


def test_antithetic_noise_needs_pairs_of_draws(seeded):
    for shape, axis in (((3, 4), 1), ((4, 4), 0)):
        with pytest.raises(ValueError, match="^generator: got antithetic noise for shape .*expected an even number"):
            normal(shape, AntitheticNoise(seeded()), batch_axis=axis)
