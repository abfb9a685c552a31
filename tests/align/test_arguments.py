"""Arguments of another kind than they should be of are refused by name, before anything is asked."""

import math

import pytest
import torch

import align

from align.rewards import Brightness
from diamond.flow_map import FlowMap
from diamond.weighted_map import WeightedDiamondMap

METHODS = {"best_of_n": align.best_of_n, "search": align.search, "smc": align.smc, "guide": align.guide}
REFUSED = [
    ({"callback": 3}, "^callback: got int, expected a callable"),
    ({"times": "early"}, "^times: got 'early', expected times that rise from 0 to 1"),
    ({"times": {}}, "^times: got {}, expected times that rise from 0 to 1"),
    ({"reward": Brightness}, "^reward: got the class Brightness, expected a callable"),
]


@pytest.mark.parametrize("options, message", REFUSED)
@pytest.mark.parametrize("method", METHODS)
def test_every_algorithm_refuses_them_before_it_asks(method, options, message, case_a):
    def never(z):
        raise AssertionError("the reward was asked")

    with pytest.raises(ValueError, match=message):
        METHODS[method](case_a, **{"reward": never, **options})


@pytest.mark.parametrize("rho", ["0.5", {}, True, math.nan, 1.5])
@pytest.mark.parametrize("method", ["best_of_n", "search", "smc"])
def test_a_correlation_is_a_number(method, rho, case_a, mild):
    with pytest.raises(ValueError, match=r"^rho: got .*, expected a correlation in \[-1, 1\], or None for DDPM's"):
        METHODS[method](case_a, mild, rho=rho)


@pytest.mark.parametrize("share", ["half", [], {}, None, torch.zeros(2), True])
def test_a_share_is_a_number(share, case_a, mild):
    with pytest.raises(ValueError, match=r"^eta: got .*, expected a number in \[0, 1\]"):
        align.guide(case_a, mild, eta=share)
    if share is not None:  # the usual one
        with pytest.raises(ValueError, match=r"^ess_threshold: got .*, expected a share in \[0, 1\]"):
            align.smc(case_a, mild, ess_threshold=share)


@pytest.mark.parametrize("scheme", ["", 0, []])
def test_an_empty_name_is_no_scheme(scheme, case_a, mild):
    with pytest.raises(ValueError, match="^resampling: got .*, expected one of systematic"):
        align.smc(case_a, mild, resampling=scheme)


@pytest.mark.parametrize("scale", ["2", None, math.nan, math.inf, torch.tensor([1.0, 2.0]), lambda t: t])
def test_a_guided_flow_has_one_finite_scale(scale, case_a, mild):
    """One a row would be taken for that of whichever rows a chunk has."""
    with pytest.raises(ValueError, match="^scale: got .*, expected a finite number"):
        align.GuidedFlow(case_a, mild, scale)


def test_what_is_no_flow_map_is_not_looked_ahead_with(case_a, tiny_flow, mild):
    weighted = WeightedDiamondMap(FlowMap(lambda x, t, cond, times: -x, event_shape=(2,)))
    for model in (case_a, tiny_flow, weighted, lambda x, t: x, FlowMap):
        with pytest.raises(ValueError, match="^flow_map: got .* without .*, expected a flow map"):
            align.LookAhead(model, mild)


@pytest.mark.parametrize("number", ["1", None, [], torch.zeros(2)])
def test_numbers_of_helpers_are_numbers(number, case_a):
    with pytest.raises(ValueError, match="^curvature: got"):
        align.damping(case_a.interpolant, number)
    with pytest.raises(ValueError, match="^spread: got"):
        align.damping(case_a.interpolant, 1.0, number)
    with pytest.raises(ValueError, match="^temperature: got"):
        Brightness().temper(number)
    if number is not None:
        with pytest.raises(ValueError, match="^low: got .*, expected a number, or None"):
            Brightness().clip(number, 1)


def test_ancestors_are_drawn_by_a_tensor_and_as_many_as_are_asked_for():
    for scheme in align.resampling.SCHEMES.values():
        with pytest.raises(ValueError, match=r"^log_weights: got list, expected a tensor \(..., K\)"):
            scheme([0.0, 1.0])
    for count in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"^count: got {count}"):
            align.resampling.systematic(torch.zeros(3), count=count)


@pytest.mark.parametrize("method", METHODS)
def test_each_step_leaves_a_size_and_each_result_its_grid(method, case_a, mild, seeded):
    out = METHODS[method](case_a, mild, 4, times=[0, 0.1, 0.5, 1], batch=2, generator=seeded())
    assert out.ess.shape == (3, 2) and out.ancestors.shape == (3, 2, 4)
    assert out.settings["times"] == [0, 0.1, 0.5, 1]
    if method == "best_of_n":  # nothing is weighed but the last
        assert out.ess[:2].tolist() == [[4.0] * 2] * 2
        assert torch.equal(out.ess[2], align.resampling.ess(out.rewards))
