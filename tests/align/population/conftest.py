"""What the tests of populations share: a model that follows its conditioning, and a reward that does."""

import pytest
import torch

from diamond.glass import GlassFlow


@pytest.fixture
def cond():
    """That of three populations in the plane."""
    return torch.tensor([[0.5, -0.5], [1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def glass(tiny_flow):
    return GlassFlow(tiny_flow, steps=2)


@pytest.fixture
def attracted():
    """The reward that draws samples to their conditioning."""

    def reward(z, cond):
        return -(z - cond).square().sum(-1)

    return reward
