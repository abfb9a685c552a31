"""How values are estimated: in chunks, with generators and conditioning of each state's own, and what is refused."""

import pytest
import torch

import align

from diamond.flow import Flow
from diamond.glass import GlassFlow


@pytest.mark.parametrize("source", ["one", "list"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 8, 20, 64, 1000])
def test_values_do_not_depend_on_the_chunk(source, chunk, case_a, mild, family, seeded, states, times):
    """With more draws than are held at once, and more rows than a chunk, or fewer."""

    def values(chunk):
        generator = seeded() if source == "one" else family([1, 2])
        return align.value(case_a, mild, states, times, 37, generator=generator, chunk=chunk)

    assert torch.allclose(values(chunk), values(None), rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 4, 9, 100])
def test_no_call_of_network_or_reward_has_more_rows_than_the_chunk(chunk, tiny_flow, mild, seeded, states, times):
    seen = []

    def reward(z):
        seen.append(len(z))
        return mild(z)

    align.value(GlassFlow(tiny_flow, steps=2), reward, states, times, 21, generator=seeded(), chunk=chunk)
    assert max(seen) <= chunk
    assert sum(seen) == 4 * 21
    assert tiny_flow.net.largest <= chunk


def test_a_state_with_its_own_generator_ignores_the_others(case_a, mild, family, states, times):
    together = align.value(case_a, mild, states, times, 20, generator=family([1, 2, 3, 4]))
    for row in range(4):
        alone = align.value(
            case_a, mild, states[row : row + 1], times[row : row + 1], 20, generator=family([row + 1]), chunk=7
        )
        assert torch.allclose(together[row : row + 1], alone, rtol=1e-12)


def test_the_global_state_is_neither_read_nor_moved(case_a, mild, seeded, states, times):
    before = torch.get_rng_state()
    fresh = [align.value(case_a, mild, states, times) for _ in range(2)]
    align.value_gradient(case_a, mild, states, times)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(*fresh)
    torch.manual_seed(1)
    first = align.value(case_a, mild, states, times, generator=seeded())
    torch.manual_seed(2)
    assert torch.equal(align.value(case_a, mild, states, times, generator=seeded()), first)


def test_conditioning_meets_the_draws_of_its_own_state(still):
    """Draws are stacked before states: conditioning must be repeated in that order, for model and reward alike."""
    x = torch.arange(5, dtype=torch.float64)[:, None]
    cond = 10.0 ** torch.arange(5, dtype=torch.float64)[:, None]

    def reward(z, cond):
        return -(z - cond).abs().squeeze(1)

    for chunk in (None, 1, 2, 7, 100):
        values = align.value(still, reward, x, 0.5, 18, cond=cond, chunk=chunk)
        assert torch.allclose(values, -x.squeeze(1), rtol=1e-9)


BAD_CALLS = {
    "mc": ({"mc": 0}, "^mc: got 0"),
    "t": ({"t": 1.5}, "^t: got times from 1.5 to 1.5"),
    "t's shape": ({"t": torch.zeros(3)}, "^t: got shape"),
    "x_t": ({"x_t": torch.zeros(4, 3)}, "^x_t: got shape"),
    "chunk": ({"chunk": 0}, "^chunk: got 0"),
    "reward": ({"reward": lambda z: z}, "^reward: it returned shape"),
    "generator": ({"generator": [torch.Generator()] * 3}, "^generator: got 3 generators for 4 rows"),
}


@pytest.mark.parametrize("function", [align.value, align.value_gradient])
@pytest.mark.parametrize("case", BAD_CALLS)
def test_what_does_not_fit_is_refused_by_name(function, case, case_a, mild, states, times):
    changed, message = BAD_CALLS[case]
    with pytest.raises(ValueError, match=message):
        function(**({"model": case_a, "reward": mild, "x_t": states, "t": times} | changed))


MORE_BAD_CALLS = {
    "a flow": ({"model": Flow(lambda x, t: x, event_shape=(2,))}, r"^model: got Flow, .*diamond.GlassFlow\(flow\)"),
    "a network": ({"model": torch.nn.Linear(2, 2)}, "^model: got Linear, expected a posterior sampler"),
    "few rows of cond": ({"cond": torch.zeros(3, 2)}, r"^cond: got shape \(3, 2\), expected leading dimension 4"),
    "one row of cond": ({"cond": torch.zeros(1, 2)}, r"^cond: got shape \(1, 2\), expected leading dimension 4"),
    "many rows of cond": ({"cond": {"a": torch.zeros(8)}}, r"^cond: got shape \(8,\), expected leading dimension 4"),
    "a number as cond": ({"cond": torch.tensor(1.0)}, r"^cond: got shape \(\), expected leading dimension 4"),
    "texts": ({"cond": ["a cat"]}, r"^cond: got shape \(1,\), expected leading dimension 4"),
    "a seed": ({"generator": 5}, "^generator: got 5, expected a torch.Generator, .*manual_seed"),
    "a word": ({"generator": "seed"}, "^generator: got 'seed', expected a torch.Generator"),
}


@pytest.mark.parametrize("function", [align.value, align.value_gradient])
@pytest.mark.parametrize("changed, message", MORE_BAD_CALLS.values(), ids=MORE_BAD_CALLS)
def test_models_conditioning_and_generators_that_do_not_fit_are_refused(
    function, changed, message, case_a, mild, states, times
):
    with pytest.raises(ValueError, match=message):
        function(**({"model": case_a, "reward": mild, "x_t": states, "t": times} | changed))


def test_seeds_are_no_generators_for_any_algorithm(algorithm, case_a, mild):
    with pytest.raises(ValueError, match="^generator: got 5, expected a torch.Generator"):
        algorithm(case_a, mild, generator=5)


@pytest.mark.parametrize("chunk", [None, 2])
def test_no_states_have_no_values(chunk, case_a, mild, states):
    none = states[:0]
    for options in ({}, {"correction": "jackknife"}, {"control": "plugin"}, {"antithetic": True}):
        found = align.value(case_a, mild, none, 0.5, 4, chunk=chunk, **options)
        assert found.shape == (0,) and found.dtype == torch.float64
    for estimator in ("reparam", "score", "plugin"):
        assert align.value_gradient(case_a, mild, none, 0.5, 4, estimator, chunk=chunk).shape == (0, 2)
