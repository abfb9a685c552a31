"""The scales of noising a state further: its time, its factor and its noise, and the ends where they stay."""

import pytest
import torch

from diamond.renoising import renoising


@pytest.mark.parametrize("snr", [1.1, 3.0, 50.0])
def test_noising_multiplies_the_noise_to_signal_ratio_and_keeps_the_marginal(path, snr):
    t = torch.tensor([0.05, 0.4, 0.9, 0.999], dtype=torch.float64)
    time, scale, noise = renoising(path, t, snr)
    torch.testing.assert_close(path.noise_to_signal(time), snr * path.noise_to_signal(t), rtol=1e-9, atol=0)
    torch.testing.assert_close(scale * path.alpha(t), path.alpha(time))
    torch.testing.assert_close((scale * path.sigma(t)).square() + noise.square(), path.sigma(time).square())
    assert (time < t).all()


def test_the_ends_of_time_stay_where_they_are(path):
    time, scale, noise = renoising(path, torch.tensor([0.0, 1.0]), 4.0)
    assert torch.allclose(time, torch.tensor([0.0, 1.0]).double(), atol=1e-12)
    assert torch.allclose(scale, torch.tensor([0.5, 1.0]).double())
    assert torch.allclose(noise, torch.tensor([0.75**0.5, 0.0]).double(), atol=1e-12)


@pytest.mark.parametrize("std", [0.3, 1.0, 20.0])
def test_matched_factor_is_two_and_the_noise_to_signal_ratio_of_the_data(path, std):
    t = torch.tensor([0.05, 0.4, 0.9, 0.999], dtype=torch.float64)
    matched = renoising(path, t, 3.0, std)
    factors = 2 + path.noise_to_signal(t) / std**2
    for i in range(len(t)):
        plain = renoising(path, t[i : i + 1], float(factors[i]))
        for found, expected in zip(matched, plain, strict=True):
            torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-9, atol=1e-12)


def test_matched_factor_makes_noise_of_noise_and_leaves_data(path):
    time, scale, noise = renoising(path, torch.tensor([0.0, 1.0]), 3.0, 0.5)
    for found, expected in zip((time, scale, noise), ([0.0, 1.0], [0.0, 1.0], [1.0, 0.0]), strict=True):
        torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-12)
