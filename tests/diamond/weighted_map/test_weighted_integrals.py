"""Weights as integrals over a grid of noise: values, gradients and moments to many digits."""

import pytest
import torch

from diamond.interpolant import Cosine
from diamond.renoising import renoising
from diamond.weighted_map import WeightedDiamondMap


@pytest.fixture
def check_value_and_gradient(integrate, reward):
    """Tests both against the closed forms, for the estimator that needs no constants."""

    def check(model, law, x, t, noise=None, atol=1e-6):
        x = x.clone().requires_grad_()
        z, log_weights = integrate(model, x, t, noise)
        value = (reward(z) + log_weights).logsumexp(0) - log_weights.logsumexp(0)
        (slope,) = torch.autograd.grad(value.sum(), x)
        torch.testing.assert_close(value, reward.value(law, x, t), rtol=0, atol=atol)
        torch.testing.assert_close(slope, reward.gradient(law, x.detach(), t), rtol=0, atol=atol)

    return check


@pytest.mark.parametrize("snr", [1.7, 3.0, 10.0])
@pytest.mark.parametrize("t", [0.2, 0.6, 0.85])
def test_value_and_gradient_are_exact_on_the_line(path, t, snr, line, check_value_and_gradient, line_map, states):
    law = line(path)
    check_value_and_gradient(WeightedDiamondMap(line_map(law), snr, quadrature=16), law, states, t)


@pytest.mark.parametrize("t", [0.0, 0.05, 0.6, 0.95])
def test_value_and_gradient_are_exact_with_a_matched_factor(path, t, line, check_value_and_gradient, line_map, states):
    law = line(path)
    check_value_and_gradient(WeightedDiamondMap(line_map(law), quadrature=16, data_std=0.8), law, states, t)


@pytest.mark.parametrize("snr", [2.0, 5.0])
@pytest.mark.parametrize("t", [0.3, 0.7])
def test_value_and_gradient_of_a_gaussian_need_two_nodes_only(
    path, t, snr, check_value_and_gradient, gaussian, grid, gaussian_map
):
    law = gaussian(path)
    (axis, log_density), x = grid(141, 11.0), torch.tensor([[0.2, -0.5], [-0.9, 1.0]], dtype=torch.float64)
    noise = torch.cartesian_prod(axis.flatten(), axis.flatten())[:, None]
    plane = noise, (log_density + log_density.flatten()).reshape(-1, 1)
    check_value_and_gradient(WeightedDiamondMap(gaussian_map(law), snr), law, x, t, plane)


@pytest.mark.parametrize("t", [0.2, 0.6, 0.85])
def test_weighted_proposals_have_the_moments_of_the_posterior(
    path, t, line, posterior_law, moments, integrate, line_map, states
):
    law = line(path)
    z, log_weights = integrate(WeightedDiamondMap(line_map(law), 3.0, quadrature=16), states, t)
    weights = log_weights.softmax(0)[..., None]
    mean, covariance = moments(*posterior_law(law, states, t))
    torch.testing.assert_close((weights * z).sum(0), mean, rtol=0, atol=1e-7)
    torch.testing.assert_close((weights * (z - mean).square()).sum(0), covariance[..., 0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("snr", [2.0, 6.0])
@pytest.mark.parametrize("t", [0.15, 0.5, 0.8])
def test_constants_make_the_mean_weight_one(path, t, snr, line, integrate, line_map, states):
    """`log p_t'(x_t) - log p_t(x_t) + d log(s / sigma_t)`, with every term of the weights."""
    law = line(path)
    _, log_weights = integrate(WeightedDiamondMap(line_map(law), snr, quadrature=16), states, t)
    time = torch.tensor([t], dtype=torch.float64)
    noisier, _, noise = renoising(path, time, snr)
    ratio = law.log_prob(states, noisier.item()) - law.log_prob(states, t)
    constant = ratio + (noise / path.sigma(time)).log()
    torch.testing.assert_close(log_weights.logsumexp(0) + constant, torch.zeros(3).double(), rtol=0, atol=1e-8)


def test_score_at_the_wrong_time_is_found_out(line, check_value_and_gradient, line_map, states):
    law = line()
    wrong = WeightedDiamondMap(line_map(law, score_time=0.6), 3.0, quadrature=16)
    with pytest.raises(AssertionError, match="not close"):
        check_value_and_gradient(wrong, law, states, 0.6, atol=0.02)


def test_rules_of_few_nodes_come_near_in_turn(line, reward, states, integrate, line_map):
    law, exact = line(), reward.gradient(line(), states, 0.5)
    errors = []
    for nodes in (2, 3, 5, 8):
        x = states.clone().requires_grad_()
        z, log_weights = integrate(WeightedDiamondMap(line_map(law), 3.0, quadrature=nodes), x, 0.5)
        value = (reward(z) + log_weights).logsumexp(0) - log_weights.logsumexp(0)
        errors.append(float((torch.autograd.grad(value.sum(), x)[0] - exact).abs().max()))
    assert all(later < earlier / 3 for earlier, later in zip(errors[:-1], errors[1:], strict=True))


@pytest.mark.parametrize(("nodes", "published"), [(16, -2.888), (2, -2.863)])
def test_gradient_in_the_form_of_the_paper(nodes, published, line, line_map, states, integrate, reward, grid):
    """The terms averaged by the weights of values, without self-normalisation; figures computed elsewhere."""
    model, x = WeightedDiamondMap(line_map(line()), 3.0, quadrature=nodes), states[:1].clone().requires_grad_()
    z, log_weights = integrate(model, x, 0.6)
    weights = (reward(z) + log_weights).softmax(0).detach()
    noise = grid()[0]
    terms = model.posterior_terms(x, 0.6, len(noise), noise=noise)
    torch.testing.assert_close(terms.z, z)
    assert not terms.score_difference.requires_grad
    (slope,) = torch.autograd.grad((weights * (reward(terms.z) + terms.recovery)).sum(), x)
    found = slope + (weights[..., None] * terms.score_difference).sum(0)
    assert float(found) == pytest.approx(published, abs=8e-3)  # of 200 000 draws
    if nodes == 16:
        torch.testing.assert_close(found, reward.gradient(line(), states[:1], 0.6), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("snr", "share"), [(2.0, 0.42), (2.5, 0.46), (3.0, 0.45), (4.0, 0.41), (10.0, 0.33), (20.0, 0.31)]
)
def test_share_of_effective_draws_under_a_reward(snr, share, line, integrate, line_map, states, reward, grid):
    """Figures computed elsewhere, for the weights with the reward in them."""
    z, log_weights = integrate(WeightedDiamondMap(line_map(line()), snr, quadrature=16), states[:1], 0.6)
    tilted = log_weights + reward(z)
    found = (2 * tilted.logsumexp(0) - (2 * tilted - grid()[1]).logsumexp(0)).exp()
    assert float(found) == pytest.approx(share, abs=0.006)


def test_derivative_of_the_weights_is_that_of_their_exact_formula(line, line_map, grid, quietly, states):
    """But for the constant of the state, whose derivative is the score's at `x_t`."""
    law, h = line(Cosine()), 1e-5
    model, noise = WeightedDiamondMap(line_map(law), 3.0, quadrature=16), grid(9, 2.5)[0].expand(-1, 3, 1)

    def log_weights(x):
        return quietly(model.weighted_posterior, x, 0.5, 9, noise=noise)[1]

    x = states.clone().requires_grad_()
    ahead, behind = log_weights(states + h), log_weights(states - h)
    for i in range(9):
        (slope,) = torch.autograd.grad(log_weights(x)[i].sum(), x)
        torch.testing.assert_close(slope[:, 0], (ahead - behind)[i] / (2 * h), rtol=1e-6, atol=1e-6)


def test_weights_of_noise_lead_to_the_law_of_the_data(line, integrate, line_map, states):
    law = line()
    z, log_weights = integrate(WeightedDiamondMap(line_map(law), 4.0), states, 0.0)
    mean = (log_weights.softmax(0)[..., None] * z).sum(0)
    torch.testing.assert_close(mean, law.mean().expand(3, 1), rtol=0, atol=1e-8)
