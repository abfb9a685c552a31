"""The numbers of a Weighted Diamond Map: saved with it, and refused where they do not fit."""

import math

import pytest
import torch

import diamond

from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine
from diamond.nets import ResidualMLP
from diamond.weighted_map import WeightedDiamondMap


def test_what_is_saved_comes_back(tmp_path, seeded, quietly):
    net = ResidualMLP((1, 4, 4), width=8, depth=1, embedding=8, times=1)
    model = WeightedDiamondMap(FlowMap(net, Cosine()), 2.5, proposals=3, quadrature=4, data_std=0.7)
    model.metadata["data"] = "digits"
    model.save(tmp_path / "weighted.ckpt")
    found = diamond.load(tmp_path / "weighted.ckpt")
    assert (type(found), found.snr, found.proposals, found.quadrature) == (WeightedDiamondMap, 2.5, 3, 4)
    assert found.data_std == 0.7
    assert found.metadata == {"data": "digits"}
    x = torch.randn(2, 1, 4, 4, generator=seeded())
    drawn = [quietly(m.posterior, x, 0.5, 2, generator=seeded()) for m in (model, found)]
    torch.testing.assert_close(*drawn)


@pytest.mark.parametrize("snr", [1, 1.0, 0.5, -2.0, math.nan, math.inf, "3", True])
def test_factors_that_are_not_above_one_are_refused(snr, line, line_map):
    with pytest.raises(ValueError, match="^snr: got .*, expected a finite factor above 1"):
        WeightedDiamondMap(line_map(line()), snr)


@pytest.mark.parametrize("data_std", [0.0, -1.0, math.nan, math.inf, "1"])
def test_standard_deviations_that_are_not_positive_are_refused(data_std, line, line_map):
    with pytest.raises(ValueError, match="^data_std: got .*, expected a positive standard deviation"):
        WeightedDiamondMap(line_map(line()), data_std=data_std)


def test_what_is_no_flow_map_is_refused(line):
    flow = Flow(lambda x, t: x, event_shape=(1,))
    for other in (flow, GlassFlow(flow), line(), lambda x, t, r, cond=None: x, None):
        with pytest.raises(ValueError, match="^flow_map: got .* without .*, expected a flow map"):
            WeightedDiamondMap(other)


BAD_ARGUMENTS = {
    "n": ({"n": 0}, "^n: got 0"),
    "t": ({"t": 1.2}, "^t: got times from 1.2"),
    "x_t": ({"x_t": torch.zeros(3, 2)}, "^x_t: got shape"),
}


@pytest.mark.parametrize("method", ["weighted_posterior", "posterior", "posterior_terms"])
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_what_does_not_fit_is_refused_by_name(method, case, line, line_map, states):
    changed, message = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        getattr(WeightedDiamondMap(line_map(line())), method)(**({"x_t": states, "t": 0.5, "n": 2} | changed))


@pytest.mark.parametrize("event", [(1,), (1, 2, 2), ()])
def test_no_states_have_no_draws(event):
    net = torch.nn.Module()
    net.forward = lambda x, t, cond, times: x
    model, none = WeightedDiamondMap(FlowMap(net, event_shape=event), proposals=3), torch.zeros(0, *event)
    z, log_weights = model.weighted_posterior(none, 0.5, 2)
    assert (z.shape, log_weights.shape) == ((2, 0, *event), (2, 0))
    assert model.posterior(none, 0.5, 2).shape == (2, 0, *event)
    assert model.transition(none, 0.5, 0.7).shape == (0, *event)


def test_other_numbers_that_do_not_fit_are_refused_by_name(line, line_map, states):
    flow_map = line_map(line())
    with pytest.raises(ValueError, match="^proposals: got 0"):
        WeightedDiamondMap(flow_map, proposals=0)
    with pytest.raises(ValueError, match="^quadrature: got 1, expected a whole number of at least 2"):
        WeightedDiamondMap(flow_map, quadrature=1)
    with pytest.raises(ValueError, match="^noise: got .*shape"):
        WeightedDiamondMap(flow_map).weighted_posterior(states, 0.5, 2, noise=torch.zeros(3, 3, 1))
    with pytest.raises(ValueError, match="^candidates: got none"):
        diamond.choose_snr(flow_map, states, 0.5, ())
    with pytest.raises(ValueError, match="^t_next: got 0.4"):
        WeightedDiamondMap(flow_map).transition(states, 0.5, 0.4)
