"""What the tests of external rewards share."""

import pytest
import torch


@pytest.fixture
def z():
    """Seven samples in the plane."""
    return torch.linspace(-1, 1, 14, dtype=torch.float64).reshape(7, 2)


@pytest.fixture
def product():
    """The reward that judges give: the product of the two coordinates."""
    return lambda samples: samples[:, 0] * samples[:, 1]
