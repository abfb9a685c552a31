"""The whitened network: the exact flow of the Gaussian fit, and a correction in posterior deviations."""

import pytest
import torch

from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Whitened


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_whitened_network_of_zeros_is_the_exact_flow_of_the_gaussian_fit(path, t, seeded):
    data = torch.randn(500, 6, generator=seeded()) @ torch.randn(6, 6, generator=seeded(1)) + 0.7
    data = data.double()
    net = Whitened(ResidualMLP((6,), width=8, depth=1), (2, 3), path, data=data.reshape(-1, 2, 3)).double()
    model = GaussianMixtureFlow(torch.ones(1).double(), data.mean(0)[None], data.T.cov()[None], path)
    x = torch.randn(4, 6, dtype=torch.float64, generator=seeded(2))
    times = torch.full((4,), t, dtype=torch.float64)
    found = net(x.reshape(-1, 2, 3), times).flatten(1)
    torch.testing.assert_close(found, model.velocity(x, t), rtol=1e-4, atol=1e-4)  # its buffers are kept in float32


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)
def test_whitened_correction_moves_the_denoiser_by_posterior_deviations(path, seeded, awake):
    """D = D_linear + Q sqrt(P) F(white), with F at unit scale."""
    data = torch.randn(500, 3, generator=seeded()) @ torch.tensor([[1.0, 0, 0], [0.5, 0.2, 0], [0, 0.1, 2.0]])
    net = Whitened(ResidualMLP((3,), width=8, depth=1), (3,), path, data=data).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=seeded(2))
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    plain = path.denoiser_from_velocity(x, t, net(x, t))
    awake(net)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    total = alpha**2 * net.variances + sigma**2
    white = (x - alpha * net.mean) @ net.basis / total.sqrt()
    correction = (sigma * (net.variances / total).sqrt() * net.net(white, t)) @ net.basis.T
    torch.testing.assert_close(path.denoiser_from_velocity(x, t, net(x, t)), plain + correction, rtol=0, atol=1e-6)


def test_data_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"^data: got shape \(5, 4\), expected a floating tensor of shape \(B, 3\)"):
        Whitened(ResidualMLP((3,)), (3,), data=torch.zeros(5, 4))


def test_whitened_network_sees_states_in_its_own_basis(seeded):
    """Noise is rotated as the state is, and not rescaled: it is white in every basis."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x, t, cond, states, times):
            seen.append((x, states, times))
            return x

    data = torch.randn(500, 3, generator=seeded()) @ torch.tensor([[1.0, 0, 0], [0.5, 0.2, 0], [0, 0.1, 2.0]])
    net = Whitened(Spy(), (3, 1), data=data.unsqueeze(-1)).double()
    x, one, other = torch.randn(3, 4, 3, 1, dtype=torch.float64, generator=seeded(1))
    t, r = torch.rand(2, 4, dtype=torch.float64, generator=seeded(2))
    net(x, t, None, (one, other), (r,))
    white, states, times = seen[0]
    scale = (t[:, None] ** 2 * net.variances + (1 - t[:, None]) ** 2).sqrt()
    torch.testing.assert_close(white * scale @ net.basis.T + t[:, None] * net.mean, x[..., 0], rtol=0, atol=1e-5)
    for state, rotated in zip((one, other), states, strict=True):
        torch.testing.assert_close(rotated @ net.basis.T, state[..., 0], rtol=0, atol=1e-5)
    assert times[0] is r
