"""Derivatives that are not there, or not finite: which are harmless, and what is said of the others."""

import pytest
import torch

import align

from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine
from diamond.weighted_map import WeightedDiamondMap

GRADIENTS = ["reparam", "plugin"]


def weighted():
    return WeightedDiamondMap(FlowMap(lambda x, t, cond, times: torch.tanh(2 * x.flip(-1)), Cosine(), (2,)), 2.5)


class Judge(torch.nn.Module):
    """A network with trainable weights, which it gives the samples to as plain numbers: as a preprocessing that leaves
    torch does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.3, -0.7], dtype=torch.float64))

    def forward(self, z):
        return z.detach() @ self.weight


ASKERS = {
    "reparam": lambda model, r, x, t: align.value_gradient(model, r, x, t),
    "weighted": lambda model, r, x, t: align.value_gradient(weighted(), r, x, t),
    "released": lambda model, r, x, t: align.released_gradient(weighted(), r, x, t),
    "plugin": lambda model, r, x, t: align.value_gradient(model, r, x, t, estimator="plugin"),
    "control": lambda model, r, x, t: align.value(model, r, x, t, control="plugin"),
    "guided flow": lambda model, r, x, t: GlassFlow(align.GuidedFlow(model, r)).posterior(x, t),
    "guide": lambda model, r, x, t: align.guide(model, r, 2, 2),
    "smc": lambda model, r, x, t: align.smc(model, r, 2, 3, proposal="reparam"),
}


@pytest.mark.parametrize("ask", ASKERS.values(), ids=ASKERS)
def test_trainable_weights_are_no_derivative(ask, case_a, states, times):
    with pytest.raises(
        ValueError, match="^reward: it returned numbers that do not depend differentiably on the samples"
    ):
        ask(case_a, Judge(), states, times)


def test_models_without_a_derivative_are_told_from_rewards(case_a, mild, states, times):
    class Fixed(type(case_a)):
        def posterior(self, x_t, t, n=1, **options):
            return super().posterior(x_t, t, n, **options).detach()

    model = Fixed(case_a.weights, case_a.means, case_a.covariances)
    with pytest.raises(ValueError, match="^model: it returned samples that do not depend differentiably"):
        align.value_gradient(model, mild, states, times)
    assert align.value_gradient(model, mild, states, times, estimator="score").any()


@pytest.mark.parametrize("ask", ASKERS.values(), ids=ASKERS)
def test_inference_mode_is_named_where_it_takes_the_derivative(ask, case_a, mild, states, times):
    with torch.inference_mode(), pytest.raises(ValueError, match="^torch.inference_mode: it is on"):
        ask(case_a, mild, states, times)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("estimator", GRADIENTS)
def test_states_made_in_inference_mode_have_their_gradient(estimator, chunk, case_a, mild, seeded, states, times):
    with torch.inference_mode():
        made = states * 1.0
    found, expected = (
        align.value_gradient(case_a, mild, x, times, 4, estimator, generator=seeded(), chunk=chunk)
        for x in (made, states)
    )
    assert torch.equal(found, expected)


def chance(z):
    """A probability that is exactly 0 in a half-plane, as those of a sure classifier round to: the derivative of its
    logarithm is NaN there, for autograd."""
    return (z[:, 0] < 0.3) * torch.sigmoid(z[:, 1])


def log_chance(z):
    return chance(z).log()


def log_chance_by_hand(z):
    allowed = z[:, 0] < 0.3
    return torch.where(allowed, torch.where(allowed, chance(z), 1.0).log(), -torch.inf)


LOGS = {
    "reparam": lambda model, r, x, t, g: align.value_gradient(model, r, x, t, 40, generator=g),
    "chunks": lambda model, r, x, t, g: align.value_gradient(model, r, x, t, 40, generator=g, chunk=7),
    "weighted": lambda model, r, x, t, g: align.value_gradient(weighted(), r, x, t, 40, generator=g),
    "released": lambda model, r, x, t, g: align.released_gradient(weighted(), r, x, t, 40, generator=g),
    "plugin": lambda model, r, x, t, g: align.value_gradient(model, r, x, t, estimator="plugin"),
    "guided flow": lambda model, r, x, t, g: align.GuidedFlow(model, r).denoise(x, t),
}


@pytest.mark.parametrize("ask", LOGS.values(), ids=LOGS)
def test_logarithms_of_zero_forbid_and_have_no_derivative(ask, case_a, seeded, states, times):
    z = torch.tensor([[0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(torch.where(log_chance(z).isfinite(), log_chance(z), 0.0).sum(), z)[0].isnan().any()
    found, expected = (ask(case_a, r, states, times, seeded()) for r in (log_chance, log_chance_by_hand))
    assert expected.any() and expected.isfinite().all()
    assert torch.allclose(found, expected, rtol=1e-12)


def test_forbidden_means_of_a_guided_flow_keep_the_flows_own_derivative(case_a, states, times):
    x = states.clone().requires_grad_()
    (plain,) = torch.autograd.grad(case_a.denoise(x, times).sum(), x)
    never = align.GuidedFlow(case_a, lambda z: torch.where(z[:, 0] < 100, -torch.inf, z[:, 0]))
    assert torch.allclose(torch.autograd.grad(never.denoise(x, times).sum(), x)[0], plain)


@pytest.mark.parametrize("ask", [ASKERS[name] for name in ("reparam", "weighted", "plugin", "guided flow", "guide")])
def test_infinite_derivatives_of_finite_rewards_are_refused(ask, case_a, states, times):
    def rooted(z):
        return -(z[:, 0] - z[:, 0].clamp(-9, 9)).abs().sqrt()

    with pytest.raises(ValueError, match="^reward: its derivative is not finite for . of . states"):
        ask(case_a, rooted, states, times)
