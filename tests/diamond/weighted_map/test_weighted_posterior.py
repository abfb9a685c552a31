"""Draws that are chosen by weight: the law of the posterior and of transitions, their gradients and their cost."""

import pytest
import torch

import diamond

from diamond.interpolant import Cosine
from diamond.randomness import SlicedNoise
from diamond.renoising import renoising
from diamond.weighted_map import WeightedDiamondMap


@pytest.mark.parametrize("t", [0.0, 0.4, 0.8])
def test_draws_have_the_law_of_the_posterior(t, line, posterior_law, moments, seeded, check_law, states, line_map):
    law, x = line(), states[:2]
    model = WeightedDiamondMap(line_map(law), 4.0, proposals=150, quadrature=5)
    mean, covariance = moments(*posterior_law(law, x, t))
    check_law(model.posterior(x, t, 700, generator=seeded()), mean, covariance)


def test_few_proposals_fall_short_and_one_is_not_weighed(line, seeded, line_map, states):
    model, x = WeightedDiamondMap(line_map(line()), 3.0, proposals=1), states.clone().requires_grad_()
    drawn = model.posterior(x, 0.6, 4, generator=seeded())
    proposed = model.weighted_posterior(x, 0.6, 4, generator=seeded())[0]
    torch.testing.assert_close(drawn, proposed)
    slopes = (torch.autograd.grad(z[2].sum(), x)[0] for z in (drawn, proposed))
    torch.testing.assert_close(*slopes)
    with torch.no_grad():
        gap = model.posterior(states, 0.6, 2000, generator=seeded()) - line().denoise(states, 0.6)
    assert (gap.mean(0).abs() > 6 * gap.std(0) / 2000**0.5)[:2].all()  # as draws of the posterior would not


def test_a_candidate_is_chosen_as_often_as_it_weighs(line, seeded, check_mean, line_map, states):
    """Candidates shared by every draw, by way of a noise that is read again and again."""
    model = WeightedDiamondMap(line_map(line()), 3.0, proposals=3)
    noise = torch.tensor([-1.0, 0.2, 1.1], dtype=torch.float64)

    class Repeating(SlicedNoise):
        def take(self, draw, shape, batch_axis, device, dtype):
            if len(shape) == 2:
                return torch.rand(shape, generator=seeded(), dtype=dtype)
            return noise.reshape(1, 1, 3, 1).expand(shape)

    drawn = model.posterior(states, 0.6, 5000, generator=Repeating(seeded(), 3, 5000))
    z, log_weights = model.weighted_posterior(states, 0.6, 3, noise=noise.reshape(3, 1, 1).expand(3, 3, 1))
    share = (drawn[:, None] == z).squeeze(-1).double()  # (draws, candidates, states)
    assert (share.sum(1) == 1).all()
    check_mean(share, log_weights.softmax(0))


def test_draws_are_differentiable_through_the_chosen_and_the_same_with_and_without(line, seeded, line_map, states):
    law = line()
    model, x = WeightedDiamondMap(line_map(law), 3.0, proposals=6), states.clone().requires_grad_()
    drawn = model.posterior(x, 0.5, 4, generator=seeded())
    torch.testing.assert_close(model.posterior(states, 0.5, 4, generator=seeded()), drawn)
    place = renoising(law.interpolant, torch.tensor([0.5]), 3.0)
    (slope,) = torch.autograd.grad(drawn[1].sum(), x)
    # dX/dx' = p_t'(x') / p_1(z), and x' is the place from which z is reached
    back = line_map(law)(drawn[1].detach(), torch.ones(3).double(), float(place.time))
    expected = place.scale * (law.log_prob(back, float(place.time)) - law.log_prob(drawn[1].detach())).exp()
    torch.testing.assert_close(slope[:, 0], expected.detach(), rtol=1e-6, atol=1e-9)


def test_draws_do_not_depend_on_their_company(line, seeded, line_map, states):
    model, t = WeightedDiamondMap(line_map(line()), 3.0, proposals=5), torch.tensor([0.2, 0.6, 0.9]).double()
    whole = model.posterior(states, t, 6, generator=SlicedNoise(seeded(), 3, 6))
    source = SlicedNoise(seeded(), 3, 6)
    for rows, draws in [(slice(0, 2), slice(0, 6)), (slice(2, 3), slice(0, 4)), (slice(2, 3), slice(4, 6))]:
        part = source.part(rows, draws)
        found = model.posterior(states[rows], t[rows], draws.stop - draws.start, generator=part)
        torch.testing.assert_close(found, whole[draws, rows])
    assert len(whole[:, 0].unique()) == 6


@pytest.mark.parametrize("rho", [None, 0.4])
def test_transitions_have_the_law_of_the_kernel(rho, line, kernel_moments, seeded, check_law, line_map, states):
    law = line(Cosine())
    model = WeightedDiamondMap(line_map(law), 4.0, proposals=120, quadrature=5)
    found = model.transition(states[:1].expand(1500, 1), 0.4, 0.7, rho=rho, generator=seeded())
    mean, covariance = kernel_moments(law, states[:1], 0.4, 0.7, rho)
    check_law(found, mean[0], covariance[0])


def test_velocity_denoiser_and_score_are_the_flow_maps(line, line_map, states):
    flow_map = line_map(line())
    model = WeightedDiamondMap(flow_map)
    with torch.no_grad():
        for name in ("velocity", "denoise", "score"):
            assert torch.equal(getattr(model, name)(states, 0.4), getattr(flow_map, name)(states, 0.4))
    assert isinstance(model, diamond.PosteriorSampler)
    assert diamond.WeightedDiamondMap is WeightedDiamondMap


@pytest.mark.parametrize("quadrature", [2, 3, 5])
def test_evaluations_are_counted_as_documented(quadrature, line, line_map, states):
    model = WeightedDiamondMap(line_map(line()), 3.0, proposals=4, quadrature=quadrature)

    def cost(function, *args):
        model.nfe = 0
        function(*args)
        assert model.nfe == model.flow_map.nfe
        return model.nfe / len(states)

    assert cost(model.weighted_posterior, states, 0.5, 7) == quadrature * 7 + 1
    assert cost(model.posterior, states, 0.5, 3) == 3 * 4 * quadrature + 1
    assert cost(model.posterior, states.clone().requires_grad_(), 0.5, 3) == 3 * 4 * quadrature + 1 + 3
    assert cost(model.transition, states, 0.5, 0.7) == 4 * quadrature + 1
    assert cost(model.posterior_terms, states, 0.5, 7) == 2 * 7 + 1
