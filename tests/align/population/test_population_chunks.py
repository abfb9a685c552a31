"""Chunks of every algorithm: no call is larger, and no result depends on them."""

from functools import partial

import pytest
import torch

import align

from diamond.flow_map import FlowMap
from diamond.weighted_map import WeightedDiamondMap


@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
@pytest.mark.parametrize("source", ["one", "list"])
def test_results_do_not_depend_on_the_chunk(chunk, source, algorithm, glass, seeded, family, attracted, cond):
    def run(chunk):
        generator = seeded() if source == "one" else family([5, 6, 7])
        return algorithm(glass, attracted, batch=3, cond=cond, generator=generator, chunk=chunk)

    whole, parts = run(None), run(chunk)
    assert torch.equal(parts.ancestors, whole.ancestors)
    for name in ("samples", "rewards", "log_weights", "ess"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12), name
    assert parts.nfe == whole.nfe and parts.reward_calls == whole.reward_calls
    assert parts.nfe_backward == whole.nfe_backward


def test_no_call_of_the_network_has_more_rows_than_the_chunk(algorithm, glass, tiny_flow, attracted, cond):
    algorithm(glass, attracted, batch=3, cond=cond, chunk=5)
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
def test_candidates_of_a_weighted_draw_count_towards_the_chunk(
    name, quadrature, chunk, tiny_flow, family, attracted, cond
):
    """Each state's `proposals * (quadrature - 1) + 1` scores are asked for in one call; two states fit, or one."""
    model = WeightedDiamondMap(FlowMap(MapNet(tiny_flow.net)), proposals=4, quadrature=quadrature)
    assert model.rows_per_posterior == 4 * (quadrature - 1) + 1

    def run(chunk):
        tiny_flow.net.largest = 0
        out = WEIGHTED[name](model, attracted, batch=3, cond=cond, generator=family([5, 6, 7]), chunk=chunk)
        return out, tiny_flow.net.largest

    (whole, largest), (parts, kept) = run(None), run(chunk)
    assert kept <= chunk < largest
    assert kept >= chunk // model.rows_per_posterior * model.rows_per_posterior
    assert torch.allclose(parts.samples, whole.samples, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reward_chunk", [1, 5, 1000])
def test_rewards_may_have_a_chunk_of_their_own(reward_chunk, algorithm, glass, tiny_flow, family, cond):
    sizes = []

    def reward(z):
        sizes.append(len(z))
        return -(z - 0.3).square().sum(-1)

    whole = algorithm(glass, reward, batch=3, cond=cond, generator=family([5, 6, 7]))
    sizes.clear()
    tiny_flow.net.largest = 0
    parts = algorithm(
        glass, reward, batch=3, cond=cond, generator=family([5, 6, 7]), chunk=4, reward_chunk=reward_chunk
    )
    assert max(sizes) <= reward_chunk
    assert tiny_flow.net.largest <= 4
    assert torch.allclose(parts.samples, whole.samples, rtol=1e-9, atol=1e-12)
    assert parts.reward_calls == whole.reward_calls
    with pytest.raises(ValueError, match="^reward_chunk: got 0"):
        algorithm(glass, reward, cond=cond[:1], reward_chunk=0)
