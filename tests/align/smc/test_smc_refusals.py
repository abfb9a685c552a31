"""Options that do not fit, or contradict each other, are refused by name; others are welcome."""

import math

import pytest
import torch

import align

from diamond.flow import Flow

REFUSED = {
    "particles": ({"particles": 0}, "^particles: got 0"),
    "steps": ({"steps": 0}, "^steps: got 0"),
    "mc": ({"mc": 0}, "^mc: got 0"),
    "batch": ({"batch": 0}, "^batch: got 0"),
    "chunk": ({"chunk": 0}, "^chunk: got 0"),
    "ess_threshold": ({"ess_threshold": 1.5}, "^ess_threshold: got 1.5"),
    "ess_threshold nan": ({"ess_threshold": math.nan}, "^ess_threshold: got nan"),
    "resampling": ({"resampling": "ssp"}, "^resampling: got 'ssp', expected one of systematic"),
    "never": ({"resampling": "residual", "ess_threshold": 0}, "^resampling: got 'residual' with ess_threshold=0"),
    "times": ({"times": [0, 0.5, 0.5, 1]}, "^times: got"),
    "rho": ({"rho": 1.5}, "^rho: got"),
    "value": ({"value": 3.0}, "^value: got float"),
    "value's shape": ({"value": lambda x, t: x}, "^value: it returned shape"),
    "value's nan": ({"value": lambda x, t: t * torch.nan}, "^value: it returned nan"),
    "reward's nan": ({"reward": lambda z: z[:, 0] * torch.nan}, "^reward: it returned nan"),
    "generator": ({"generator": [torch.Generator()]}, "^generator: got 1 generators"),
    "strength of none": ({"proposal_strength": 0.5}, "^proposal_strength: got 0.5 with proposal=None"),
    "strength of a look-ahead": (
        {"proposal_strength": 0.5, "proposal": "lookahead"},
        "^proposal_strength: got 0.5 with proposal='lookahead'",
    ),
    "strength": ({"proposal_strength": -1.0, "proposal": "score"}, "^proposal_strength: got -1.0, expected a finite"),
    "strength nan": ({"proposal_strength": math.nan, "proposal": "plugin"}, "^proposal_strength: got nan"),
    "look-ahead of a value": (
        {"proposal": "lookahead", "value": lambda x, t: 0 * t},
        "^value: got a value function with proposal='lookahead'",
    ),
    "antithetic value": (
        {"antithetic": True, "value": lambda x, t: 0 * t},
        "^antithetic: got True with a value function",
    ),
    "antithetic value and mean": (
        {"antithetic": True, "value": lambda x, t: 0 * t, "proposal": "plugin"},
        "^antithetic: got True with a value function",
    ),
    "unused potential": ({"potential": "max", "ess_threshold": 0}, "^potential: got 'max' with ess_threshold=0"),
    "unused tempering": ({"tempering": 0.5, "ess_threshold": 0}, "^tempering: got 0.5 with ess_threshold=0"),
    "idle tempering": ({"tempering": 0.5, "ess_threshold": 0.5}, "^ess_threshold: got 0.5 with tempering=0.5"),
}


def test_options_that_do_not_contradict_each_other_are_welcome(case_a, mild):
    for options in (
        {"antithetic": True, "value": lambda x, t: 0 * t, "proposal": "score"},
        {"tempering": 0.5, "ess_threshold": 0, "proposal": "lookahead"},
        {"tempering": 0.5},
        {"tempering": 0.5, "ess_threshold": 0.6},
    ):
        out = align.smc(case_a, mild, 6, 3, mc=2, batch=2, generator=torch.Generator().manual_seed(0), **options)
        assert out.log_z.isfinite().all()


def test_weighted_draws_are_not_looked_ahead_at(case_a, mild):
    class Weighted(type(case_a)):
        def weighted_posterior(self, x_t, t, n=1, *, cond=None, generator=None):
            raise AssertionError

    model = Weighted(case_a.weights, case_a.means, case_a.covariances)
    with pytest.raises(ValueError, match="^proposal: got 'lookahead' for a Weighted, whose draws are weighted"):
        align.smc(model, mild, proposal="lookahead")


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case, case_a, mild):
    changed, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        align.smc(**({"model": case_a, "reward": mild, "particles": 4, "steps": 3, "batch": 2} | changed))


def test_a_flow_without_a_posterior_is_refused_with_the_way_out(mild):
    with pytest.raises(ValueError, match=r"^model: got Flow, .*diamond\.GlassFlow\(flow\)"):
        align.smc(Flow(lambda x, t: -x, event_shape=(2,)), mild)
