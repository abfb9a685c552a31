"""Published weights of the tests' own: random ones, under the names and in the shapes of print."""

import pytest
import torch

STAGES = ((16, 16), (16, 32), (32, 64))  # channels in and out


@pytest.fixture(scope="session")
def weights():
    """`weights(n, classes)` are arrays in float64 for n blocks a stage, with statistics far from those of new layers."""

    def make(n, classes=10):
        generator = torch.Generator().manual_seed(n)
        found = {}

        def convolution(name, channels, planes):
            found[f"{name}.weight"] = _normal((planes, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5

        def normalisation(name, planes):
            found[f"{name}.weight"] = 1 + 0.2 * _normal((planes,))
            found[f"{name}.bias"] = 0.2 * _normal((planes,))
            found[f"{name}.running_mean"] = 0.2 * _normal((planes,))
            found[f"{name}.running_var"] = 0.5 + torch.rand(planes, generator=generator, dtype=torch.float64)

        def _normal(shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        convolution("conv1", 3, 16)
        normalisation("bn1", 16)
        for stage, (channels, planes) in enumerate(STAGES, 1):
            for block in range(n):
                name = f"layer{stage}.{block}"
                convolution(f"{name}.conv1", planes if block else channels, planes)
                normalisation(f"{name}.bn1", planes)
                convolution(f"{name}.conv2", planes, planes)
                normalisation(f"{name}.bn2", planes)
        found["linear.weight"], found["linear.bias"] = _normal((classes, 64)) / 8, _normal((classes,))
        return found

    return make


@pytest.fixture
def images():
    """Images `(5, 3, 32, 32)` in [-1, 1], in float64."""
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(5, 3, 32, 32, generator=generator, dtype=torch.float64) - 1
