"""Gradients of rewards of minus infinity, and of rewards that have no derivative."""

import pytest
import torch

import align

from diamond.flow_map import FlowMap


@pytest.mark.parametrize("estimator", ["reparam", "plugin"])
def test_rewards_without_a_derivative_are_refused_where_one_is_needed(estimator, case_a, mild, states, times):
    with pytest.raises(ValueError, match="^reward: .*for a black-box reward take estimator='score'"):
        align.value_gradient(case_a, lambda z: mild(z.detach()), states, times, estimator=estimator)


def test_rewards_without_a_derivative_are_welcome_to_the_score_estimator(case_a, mild, seeded, states, times):
    black_box, white_box = (
        align.value_gradient(case_a, r, states, times, 9, "score", generator=seeded())
        for r in (lambda z: mild(z.detach()), mild)
    )
    assert torch.equal(black_box, white_box)


def test_score_estimator_refuses_what_it_cannot_do(case_a, mild, states, times):
    with pytest.raises(ValueError, match="^mc: got 1, expected at least 2"):
        align.value_gradient(case_a, mild, states, times, 1, "score")
    with pytest.raises(ValueError, match="^t: got 1, expected times before it"):
        align.value_gradient(case_a, mild, states, 1.0, 4, "score")
    with pytest.raises(ValueError, match="^estimator: got 'scores', expected one of reparam, score, plugin"):
        align.value_gradient(case_a, mild, states, times, 4, "scores")


def test_draws_that_are_one_point_are_not_compared(mild, states, times):
    """Their weights would leave the mean where it is, and guide nobody, without a word."""
    model = FlowMap(lambda x, t, cond, times: -x, event_shape=(2,))
    refusal = "got 'score' for a FlowMap, all of whose draws are one point"
    with pytest.raises(ValueError, match=f"^estimator: {refusal}"):
        align.value_gradient(model, mild, states, times, 4, "score")
    with pytest.raises(ValueError, match=f"^estimator: {refusal}"):
        align.guide(model, mild, 4, estimator="score")
    with pytest.raises(ValueError, match=f"^proposal: {refusal}"):
        align.smc(model, mild, 4, proposal="score")
    assert model.nfe == 0


def test_hard_constraints_have_a_score_gradient(case_a, seeded, check_mean, states, share_allowed, forbidding):
    """The derivative of `log P(z_0 < 0 | x)`, though the reward itself has none."""
    x = states[:1].clone().requires_grad_()
    share = share_allowed(case_a, x, 0.4)
    (expected,) = torch.autograd.grad(share.log().sum(), x)
    many = states[:1].expand(8000, -1)
    for chunk in (None, 5000):
        gradients = align.value_gradient(case_a, forbidding, many, 0.4, 4, "score", generator=seeded(), chunk=chunk)
        evidence = align.value(case_a, forbidding, many, 0.4, 4, generator=seeded()).exp() / share.detach()
        check_mean(evidence[:, None] * gradients, 0.75 * expected[0], limit=4)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_states_with_no_allowed_draw_have_a_gradient_of_zero(estimator, case_a, states, times):
    def never(z):
        return torch.where(z[:, 0] < 100, -torch.inf, z[:, 0])

    assert not align.value_gradient(case_a, never, states, times, 20, estimator).any()


def test_partly_forbidden_draws_leave_the_others_their_gradient(case_a, mild, seeded, states):
    """A reward of -inf has weight zero and no derivative; the rest are differentiated as ever."""

    def half(z):
        return torch.where(z[:, 0] < 0, mild(z), -torch.inf)

    found = align.value_gradient(case_a, half, states[:1], 0.4, 12, generator=seeded())
    x = states[:1].clone().requires_grad_()
    z = case_a.posterior(x, 0.4, 12, generator=seeded())[:, 0]
    allowed = z[:, 0] < 0
    assert 0 < int(allowed.sum()) < 12
    (expected,) = torch.autograd.grad(mild(z[allowed]).logsumexp(0), x)
    assert torch.allclose(found, expected, rtol=1e-10)
