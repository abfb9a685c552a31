"""Tilts of a mixture and its values, in closed form."""

import pytest
import torch

TIMES = [0.0, 0.1, 0.5, 0.9, 1.0]
KINDS = ["isotropic", "full"]


def test_tilted_density_is_the_density_times_the_exponential_of_the_reward(model, x, tilt, reward):
    tilted = model.tilt(*tilt)
    torch.testing.assert_close(tilted.log_prob(x), model.log_prob(x) + reward(x) - model.log_normaliser(*tilt))


@pytest.mark.parametrize("t", TIMES)
def test_tilted_marginal_is_the_marginal_times_the_exponential_of_the_value(model, x, t, tilt):
    value = model.value(x, t, *tilt)
    tilted = model.tilt(*tilt).log_prob(x, t)
    torch.testing.assert_close(tilted, model.log_prob(x, t) + value - model.log_normaliser(*tilt))


def test_value_ends_in_the_reward_and_starts_at_log_z(model, x, tilt, reward):
    torch.testing.assert_close(model.value(x, 1.0, *tilt), reward(x))
    torch.testing.assert_close(model.value(x, 0.0, *tilt), model.log_normaliser(*tilt).expand(len(x)))


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_value_is_the_log_mean_of_exponential_rewards(model, x, t, seeded, check_mean, tilt, reward):
    draws = model.posterior(x, t, 10_000, generator=seeded())
    check_mean(reward(draws).exp(), model.value(x, t, *tilt).exp())


def test_normaliser_is_the_mean_exponential_reward_of_the_data(model, seeded, check_mean, tilt, reward):
    z = model.sample(50_000, generator=seeded())
    check_mean(reward(z).exp(), model.log_normaliser(*tilt).exp())


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_gradient_of_the_value_is_a_tilted_mean_less_the_mean(model, x, t, tilt):
    """grad V = alpha / sigma^2 (E_tilted[z | x] - E[z | x])."""
    x.requires_grad_()
    slope = torch.autograd.grad(model.value(x, t, *tilt).sum(), x)[0]
    time = torch.tensor(t, dtype=torch.float64)
    factor = model.interpolant.alpha(time) / model.interpolant.sigma(time) ** 2
    torch.testing.assert_close(slope, factor * (model.tilt(*tilt).denoise(x, t) - model.denoise(x, t)))


CASES = {
    "mild": ((-1.0, 0.0), 0.5, -1.544201, (-1.14818, 0.27864), ((0.43671, -0.13129), (-0.13129, 0.19141))),
    "hard": ((-2.5, 1.5), 0.05, -7.246811, (-2.2619, 1.2619), ((0.0381, 0.0), (0.0, 0.0381))),
    "very hard": ((-3.0, 2.0), 0.02, -15.747047, (-2.83333, 1.83333), ((0.01778, 0.0), (0.0, 0.01778))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_reference_tilts(case, kind, case_a, twin):
    """r(z) = -|z - c|^2 / (2 tau^2), whose constant part is not the mixture's business."""
    target, width, log_z, mean, covariance = CASES[case]
    target, mean, covariance = (torch.tensor(v, dtype=torch.float64) for v in (target, mean, covariance))
    model = twin(case_a) if kind == "full" else case_a
    constant = -target.square().sum() / (2 * width)
    assert abs(float(model.log_normaliser(target / width, 1 / width) + constant) - log_z) < 1e-6
    tilted = model.tilt(target / width, 1 / width)
    torch.testing.assert_close(tilted.mean(), mean, rtol=0, atol=5e-5)
    torch.testing.assert_close(tilted.covariance(), covariance, rtol=0, atol=5e-5)
    if case == "mild":
        torch.testing.assert_close(tilted.weights, torch.tensor([0.85041, 0.14959]).double(), rtol=0, atol=5e-6)


def test_linear_tilt_moves_means_and_keeps_covariances(case_a):
    slope = torch.tensor([0.4, -1.1], dtype=torch.float64)
    tilted = case_a.tilt(slope)
    variances = case_a.covariances
    log_weights = case_a.weights.log() + case_a.means @ slope + variances * slope.square().sum() / 2
    torch.testing.assert_close(tilted.means, case_a.means + variances[:, None] * slope)
    torch.testing.assert_close(tilted.covariances, variances)
    torch.testing.assert_close(tilted.weights, log_weights.softmax(-1))
    torch.testing.assert_close(case_a.log_normaliser(slope), log_weights.logsumexp(-1))
