"""The evidence is unbiased, whatever the settings: every scheme, threshold, estimator and proposal together, tempered
and not.

Each combination runs 1,000 populations of a few particles on a mild tilt in closed form. Its z-score is that of the mean
of `exp(log_z) / Z`; each keeps within 4 standard errors of 1, and their mean square is about 1, so that no small common
bias hides in the limit. A fair sweep crosses the limit about once in forty, and the seeds are fixed.
"""

import functools
import itertools
import math

import pytest
import torch

import align

POPULATIONS, PARTICLES, STEPS = 1000, 8, 3

SCHEMES = {f"{scheme}-{threshold:g}": (scheme, threshold) for scheme in sorted(align.resampling.SCHEMES)
           for threshold in (0.5, 1.0)} | {"never": (None, 0.0)}  # fmt: skip

DRAWS = {"mc1": {"mc": 1}, "mc4": {"mc": 4}, "antithetic": {"mc": 4, "antithetic": True}}
FUNCTIONS = {
    "plug-in": lambda model, reward: align.PlugIn(model, reward),
    "exact": lambda model, reward: functools.partial(reward.value, model),
    "junk": lambda model, reward: lambda x, t: torch.sin(7 * x[:, 0]) - 2 * t * (x[:, 1] > 0),
}
ESTIMATORS = (*DRAWS, *FUNCTIONS)

PROPOSALS = ("none", "lookahead", "reparam", "score", "plugin")

TEMPERINGS = {"untempered": None, "schedule": lambda t: t, "share": 0.4}


def allowed(scheme, estimator, proposal, tempering):
    """Whether the combination means something, and is not refused: look-aheads choose among the draws of the value, a
    difference between draws needs two, and a temperature needs resampling or a guided move to come of it."""
    if proposal == "lookahead" and estimator in FUNCTIONS:
        return False
    if proposal == "score" and estimator == "mc1":
        return False
    return not (scheme == "never" and proposal == "none" and tempering != "untempered")


def combinations():
    """All that are allowed, untempered, and with either kind of temperature in turn."""
    turn = itertools.cycle(["schedule", "share"])
    for choice in itertools.product(SCHEMES, ESTIMATORS, PROPOSALS):
        for tempering in ("untempered", next(turn)):
            if allowed(*choice, tempering):
                yield *choice, tempering


COMBINATIONS = tuple(combinations())


def run(choice, model, reward, generator):
    name, estimator, proposal, tempering = choice
    resampling, threshold = SCHEMES[name]
    value = FUNCTIONS[estimator](model, reward) if estimator in FUNCTIONS else None
    return align.smc(
        model, reward, PARTICLES, STEPS, value=value, **DRAWS.get(estimator, {"mc": 4}), resampling=resampling,
        ess_threshold=threshold, proposal=None if proposal == "none" else proposal, tempering=TEMPERINGS[tempering],
        batch=POPULATIONS, generator=generator,
    )  # fmt: skip


z_scores = {}  # of the combinations that have been run


@pytest.fixture
def z_score(case_a, quadratic, seeded):
    """The z-score of the mean of `exp(log_z) / Z` of a combination, which is run once."""
    reward = quadratic([-1.0, 0.5], 1.0)

    def of(choice):
        if choice not in z_scores:
            out = run(choice, case_a, reward, seeded(COMBINATIONS.index(choice)))
            ratio = (out.log_z - reward.log_z(case_a)).exp()
            z_scores[choice] = float(ratio.mean() - 1) / (float(ratio.std()) / math.sqrt(POPULATIONS))
        return z_scores[choice]

    return of


@pytest.mark.parametrize("choice", COMBINATIONS, ids="-".join)
def test_evidence_is_unbiased(choice, z_score):
    assert abs(z_score(choice)) < 4


def test_z_scores_are_standard_normal(z_score):
    """Their mean square, and the means of those that share a setting: a bias that no one combination shows."""
    scores = torch.tensor([z_score(choice) for choice in COMBINATIONS])
    assert abs(float(scores.square().mean()) - 1) < 4 * math.sqrt(2 / len(scores))
    for place in range(4):
        for setting in dict.fromkeys(choice[place] for choice in COMBINATIONS):
            shared = scores[[choice[place] == setting for choice in COMBINATIONS]]
            assert abs(float(shared.mean())) < 4 / math.sqrt(len(shared)), setting
