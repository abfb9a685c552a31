"""Rewards and values of minus infinity: hard constraints, a value that says never, and nothing allowed."""

import pytest
import torch


def forbidding(z):
    return torch.where(z[:, 0] < 0, 0.0, -torch.inf)


@pytest.mark.parametrize("mc, ess_threshold", [(1, 0.0), (1, 0.5), (2, 1.0), (4, 0.5)])
def test_evidence_of_a_hard_constraint_is_its_probability(mc, ess_threshold, case_a, check_mean, run):
    """Estimates of -inf from a few unlucky draws must not kill a particle for good."""
    out = run(case_a, forbidding, seed=6, mc=mc, ess_threshold=ess_threshold)
    tails = torch.special.ndtr(-case_a.means[:, 0] / case_a.covariances.sqrt())
    allowed = case_a.weights @ tails
    check_mean(out.log_z.exp() / allowed, torch.ones((), dtype=torch.float64), limit=4)
    weights = out.log_weights.softmax(-1)
    assert not weights[out.samples[..., 0] >= 0].any()
    # the first component's share among the allowed, by its second coordinate's mean
    shares = case_a.weights * tails / allowed
    means = (out.log_z.exp() / allowed)[:, None] * torch.einsum("bk,bkd->bd", weights, out.samples)
    check_mean(means[:, 1], shares @ case_a.means[:, 1], limit=4)


def test_a_value_function_may_say_never(case_a, mild, check_tilt, run):
    """It may be wrong: the law stays exact."""
    sometimes, always = lambda x, t: torch.where(x[:, 1] > 0.2, -torch.inf, mild(x)), lambda x, t: t - torch.inf
    for value in (sometimes, always):
        out = run(case_a, mild, seed=7, value=value, ess_threshold=0.9)
        check_tilt(out, mild.law(case_a), mild.log_z(case_a))


def test_populations_without_an_allowed_sample_are_refused(case_a, run):
    with pytest.raises(ValueError, match=r"^reward: it returned -inf for all \d+ samples"):
        run(case_a, lambda z: torch.full((len(z),), -torch.inf), populations=2)
