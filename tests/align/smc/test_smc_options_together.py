"""Evidence and law stay exact where options of every kind meet."""

import pytest
import torch

from diamond.interpolant import Cosine

TOGETHER = {  # options of every kind at once; the rooms of each kind test it alone
    "steering": {"value": "plugin", "potential": "max", "tempering": lambda t: t, "resampling": "residual"},
    "twisted": {"value": "plugin", "proposal": "plugin", "tempering": lambda t: t, "resampling": "stratified"},
    "junk": {
        "value": "junk",
        "proposal": "score",
        "antithetic": True,
        "tempering": 0.8,
        "ess_threshold": 0.9,
        "rho": 0.4,
    },
    "exact": {"value": "exact", "proposal": "score", "ess_threshold": 0.95, "rho": 0.0},
    "look-ahead": {"proposal": "lookahead", "tempering": 0.9, "antithetic": True, "resampling": "multinomial"},
    "pressed": {"proposal": "lookahead", "tempering": lambda t: t / 2, "potential": "max", "rho": 0.4},
    "one draw": {"mc": 1, "tempering": lambda t: t, "resampling": "residual", "rho": 0.0},
    "slopes": {"proposal": "score", "tempering": 0.9, "potential": "max", "proposal_strength": 0.5},
}


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("interpolant", [None, Cosine()], ids=["linear", "cosine"])
def test_evidence_and_law_are_exact_for_any_options_together(
    name, interpolant, correlated, gentle, check_tilt, values, run
):
    model, options = correlated(interpolant), {"mc": 4, "ess_threshold": 1.0, **TOGETHER[name]}
    options |= values[options.pop("value")](model, gentle) if "value" in options else {}
    out = run(model, gentle, seed=11, populations=800, particles=16, steps=4, **options)
    assert (out.ancestors[1:] != torch.arange(16)).any()
    check_tilt(out, gentle.law(model), gentle.log_z(model))
