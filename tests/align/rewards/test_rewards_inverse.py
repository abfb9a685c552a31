"""Inpainting: the tilt is the Gaussian posterior, exactly."""

import pytest
import torch

import align

from align.rewards import Inpainting

MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.8, 0.3, -0.2], [0.3, 0.5, 0.1], [-0.2, 0.1, 0.4]], dtype=torch.float64)
SEEN = torch.tensor([1.2, 99.0, 0.4], dtype=torch.float64)  # the second entry was not measured
MASK = torch.tensor([True, False, True])


def gaussian_posterior(noise):
    """Mean, covariance and log evidence of the measurement, relative to a perfect one, by linear algebra."""
    look = torch.eye(3, dtype=torch.float64)[MASK]
    gap = SEEN[MASK] - look @ MEAN
    spread = look @ COVARIANCE @ look.T + noise**2 * torch.eye(2, dtype=torch.float64)
    gain = torch.linalg.solve(spread, look @ COVARIANCE).T
    log_z = -0.5 * (gap @ torch.linalg.solve(spread, gap) + torch.logdet(spread / noise**2))
    return MEAN + gain @ gap, COVARIANCE - gain @ look @ COVARIANCE, log_z


def test_reward_is_the_log_likelihood_of_what_was_seen():
    reward = Inpainting(SEEN, MASK, noise=0.5)
    z = torch.tensor([[1.2, 0.0, 0.4], [0.2, 5.0, 0.9]], dtype=torch.float64)
    assert reward(z).tolist() == pytest.approx([0.0, -(1.0 + 0.25) / (2 * 0.25)])


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_importance_sampling_finds_the_gaussian_posterior(noise, normal_law, seeded, check_tilt):
    mean, covariance, log_z = gaussian_posterior(noise)
    out = align.best_of_n(
        normal_law(MEAN, COVARIANCE), Inpainting(SEEN, MASK, noise), 64, batch=2000, generator=seeded()
    )
    check_tilt(out, normal_law(mean, covariance), log_z)


def test_smc_finds_the_gaussian_posterior(normal_law, seeded, check_tilt):
    noise = 0.4
    mean, covariance, log_z = gaussian_posterior(noise)
    out = align.smc(
        normal_law(MEAN, COVARIANCE), Inpainting(SEEN, MASK, noise), 48, 5, mc=4, ess_threshold=0.8, batch=800,
        generator=seeded(),
    )  # fmt: skip
    check_tilt(out, normal_law(mean, covariance), log_z)


def test_events_have_any_shape_and_the_mask_any_kind():
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn((4, 2, 3, 5), generator=generator), torch.randn((2, 3, 5), generator=generator)
    mask = torch.rand((2, 3, 5), generator=generator) < 0.4
    expected = torch.stack([-((image - y)[mask] ** 2).sum() / (2 * 0.3**2) for image in z])
    for kind in (torch.bool, torch.uint8, torch.float32):
        assert torch.allclose(Inpainting(y, mask.to(kind), 0.3)(z), expected, rtol=1e-5)
    assert Inpainting(y, mask, 0.3)(z.double()).dtype == torch.float64


def test_gradients_are_those_of_the_formula():
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(Inpainting(SEEN, MASK, 0.7), (z.requires_grad_(),))


def test_measurement_moves_with_the_module():
    reward = Inpainting(SEEN, MASK, 0.5).to(torch.float32)
    assert reward.y.dtype == torch.float32
    assert set(dict(reward.named_buffers())) == {"y", "mask"}


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^mask: got shape \(2,\), expected that of y, \(3,\)"):
        Inpainting(SEEN, MASK[:2], 0.5)
    for noise in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="^noise: got"):
            Inpainting(SEEN, MASK, noise)
    with pytest.raises(ValueError, match=r"^z: got events of shape \(2,\), expected that of y, \(3,\)"):
        Inpainting(SEEN, MASK, 0.5)(torch.zeros(4, 2))
