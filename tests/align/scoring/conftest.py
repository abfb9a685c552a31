"""What the tests of scoring share."""

import pytest
import torch


@pytest.fixture
def samples():
    """Six in the plane, half of them right of the middle."""
    return torch.linspace(-1, 1, 12).reshape(6, 2)
