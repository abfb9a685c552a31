"""The preconditioned network: the exact flow of an isotropic Gaussian, and a correction in posterior deviations."""

import math

import pytest
import torch

from diamond.mixture import GaussianMixtureFlow
from diamond.nets import Preconditioned, ResidualMLP


def scalar_flow(path, inner=None):
    inner = inner or ResidualMLP((2, 3), width=8, depth=1)
    return Preconditioned(inner, std=0.4, mean=-0.7, interpolant=path).double()


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_preconditioned_network_of_zeros_is_the_exact_flow_of_a_gaussian(path, t, seeded):
    means, covariances = torch.full((1, 6), -0.7).double(), torch.full((1,), 0.16).double()
    model = GaussianMixtureFlow(torch.ones(1).double(), means, covariances, path)
    x = torch.randn(4, 6, dtype=torch.float64, generator=seeded())
    found = scalar_flow(path)(x.reshape(-1, 2, 3), torch.full((4,), t).double()).flatten(1)
    torch.testing.assert_close(found, model.velocity(x, t), rtol=1e-6, atol=1e-6)


def test_preconditioned_correction_moves_the_denoiser_by_posterior_deviations(path, sown, seeded, awake):
    net = scalar_flow(path)
    x = torch.randn(4, 2, 3, dtype=torch.float64, generator=seeded())
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    plain = path.denoiser_from_velocity(x, t, net(x, t))
    awake(net)
    alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
    total = alpha**2 * 0.16 + sigma**2
    correction = sigma * 0.4 / total.sqrt() * net.net((x + alpha * 0.7) / total.sqrt(), t)
    torch.testing.assert_close(path.denoiser_from_velocity(x, t, net(x, t)), plain + correction, rtol=0, atol=1e-9)


def test_preconditioned_network_passes_states_times_and_labels_as_they_are(seeded):
    seen = []

    class Spy(torch.nn.Module):
        event_shape = (3,)

        def forward(self, x, t, cond, states, times):
            seen.extend([t, cond, *states, *times])
            return x

    x, one, other = torch.randn(3, 4, 3, dtype=torch.float64, generator=seeded())
    t, r = torch.rand(2, 4, dtype=torch.float64, generator=seeded(1))
    cond = torch.arange(4)
    Preconditioned(Spy(), std=1.0)(x, t, cond, (one, other), (r,))
    assert all(found is given for found, given in zip(seen, (t, cond, one, other, r), strict=True))


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf, math.nan])
def test_a_standard_deviation_that_is_none_is_refused(std, makers):
    with pytest.raises(ValueError, match=f"^std: got {std}, expected a finite number above 0"):
        Preconditioned(makers["perceptron"](), std=std)
