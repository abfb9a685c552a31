"""What the tests of Gaussian mixtures share: laws of both kinds, states, and a reward that tilts them."""

import pytest
import torch

from diamond.mixture import GaussianMixtureFlow

KINDS = ["isotropic", "full"]


@pytest.fixture(params=KINDS)
def model(request, path, case_a, seeded):
    """Isotropic components in the plane, and correlated ones in space: in the plane an eigenbasis is often its own
    transpose, and hides a confusion of the two."""
    if request.param == "isotropic":
        return GaussianMixtureFlow(case_a.weights, case_a.means, case_a.covariances, path)
    factors = 0.5 * torch.randn(3, 3, 3, dtype=torch.float64, generator=seeded(8))
    means = torch.tensor([[-1.0, 0.5, 0.2], [1.0, -0.5, 0.0], [0.5, 1.0, -0.6]], dtype=torch.float64)
    covariances = factors @ factors.mT + 0.05 * torch.eye(3, dtype=torch.float64)
    return GaussianMixtureFlow(torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64), means, covariances, path)


@pytest.fixture
def tilt(model):
    """The linear part and the precision of a reward."""
    return torch.tensor([0.8, -0.5, 0.3], dtype=torch.float64)[: model.event_shape[0]], 0.7


@pytest.fixture
def reward(tilt):
    linear, precision = tilt
    return lambda z: z @ linear - precision * z.square().sum(-1) / 2


@pytest.fixture
def twin():
    """The same law with its isotropic covariances written as matrices."""

    def of(model):
        full = model.covariances[:, None, None] * torch.eye(2, dtype=torch.float64)
        return GaussianMixtureFlow(model.weights, model.means, full, model.interpolant)

    return of


@pytest.fixture
def x(model, seeded):
    return 1.5 * torch.randn(7, *model.event_shape, dtype=torch.float64, generator=seeded(2))


@pytest.fixture
def plane(seeded):
    return 1.5 * torch.randn(7, 2, dtype=torch.float64, generator=seeded(2))
