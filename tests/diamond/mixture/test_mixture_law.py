"""The exact model of a Gaussian mixture as a law: its samples, its moments, its numbers."""

import math

import torch

from diamond.mixture import GaussianMixtureFlow


def test_samples_have_the_mean_and_covariance_of_the_mixture(model, seeded, check_law):
    check_law(model.sample(50_000, generator=seeded()), model.mean(), model.covariance())


def test_samples_fill_the_distribution_function_evenly(line, seeded, check_mean):
    """Under its own distribution function a sample is uniform, whatever its law."""
    model = line()
    z = model.sample(50_000, generator=seeded())
    level = (model.weights * torch.special.ndtr((z - model.means[:, 0]) / model.covariances.sqrt())).sum(-1)
    shares = torch.nn.functional.one_hot((20 * level).long(), 20).double()
    check_mean(shares, torch.full((20,), 0.05, dtype=torch.float64))


def test_mean_and_covariance_have_their_closed_form(case_a, twin):
    mean = 0.35 * case_a.means[0] + 0.65 * case_a.means[1]
    gap = (case_a.means[1] - case_a.means[0])[:, None]
    within = (0.35 * 0.16 + 0.65 * 0.36) * torch.eye(2, dtype=torch.float64)
    for model in (case_a, twin(case_a)):
        torch.testing.assert_close(model.mean(), mean)
        torch.testing.assert_close(model.covariance(), within + 0.35 * 0.65 * gap @ gap.T)


def test_weights_are_normalised(case_a):
    scaled = GaussianMixtureFlow(7 * case_a.weights, case_a.means, case_a.covariances)
    torch.testing.assert_close(scaled.weights, case_a.weights)


def test_whole_numbers_and_lists_are_read_as_numbers(plane):
    model = GaussianMixtureFlow([1, 3], [[0, 1], [2, -1]], [1, 2])
    assert model.weights.tolist() == [0.25, 0.75]
    exact = GaussianMixtureFlow(*(torch.tensor(v).double() for v in ([1, 3], [[0, 1], [2, -1]], [1, 2])))
    torch.testing.assert_close(model.denoise(plane.float(), 0.5), exact.denoise(plane, 0.5).float())


def test_single_precision_is_close_to_double(model, x, tilt):
    single = GaussianMixtureFlow(*(v.float() for v in model.state_dict().values()), model.interpolant)
    for t in (0.1, 0.5, 0.9):
        torch.testing.assert_close(single.denoise(x.float(), t).double(), model.denoise(x, t), rtol=1e-4, atol=1e-4)
    found = single.value(x.float(), 0.5, *tilt).double()
    torch.testing.assert_close(found, model.value(x, 0.5, *tilt), rtol=1e-4, atol=1e-4)


def test_the_model_is_a_yardstick_that_costs_nothing(model, x):
    model.posterior(x, 0.5, 10)
    model.velocity(x, 0.5)
    assert model.nfe == 0
    assert model.event_shape == x.shape[1:]
    assert math.isclose(float(model.weights.sum()), 1)
