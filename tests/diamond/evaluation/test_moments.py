"""Errors of means and widths, against those that draws were made with."""

import pytest
import torch

from diamond.evaluation import mean_error, spread

SHIFT = torch.tensor([0.3, -0.4, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("size", [0.0, 1.0])
def test_the_error_of_the_mean_is_estimated_without_bias(paired, size, seeded, check_mean):
    """4,000 laws in space with 5 draws each: naive squares would come out too high by about a fifth of the variance."""
    y = torch.randn(5, 4000, 3, generator=seeded(1), dtype=torch.float64)
    noise = y if paired else torch.randn(y.shape, generator=seeded(2), dtype=torch.float64)
    x = 0.5 * noise + size * SHIFT
    squares = mean_error(x, y) * y.var(0).sum(1)
    check_mean(squares, size * SHIFT.square().sum())
    by_pairs = torch.einsum("ibd,jbd->ijb", x - y, x - y)
    apart = by_pairs[~torch.eye(5, dtype=torch.bool)].mean(0)
    assert torch.allclose(squares, apart, atol=1e-12)


def test_the_error_of_the_mean_is_a_share_of_the_reference_s_variance(seeded):
    y = torch.randn(2000, 2, 4, 4, generator=seeded(), dtype=torch.float64)
    found = mean_error(10 * (y + 0.5), 10 * y)
    assert torch.allclose(found, torch.full((2,), 0.25, dtype=torch.float64), rtol=0.05)
    assert torch.allclose(found, mean_error(y + 0.5, y), rtol=1e-9)


def test_the_spread_is_a_ratio_of_variances(seeded):
    y = torch.randn(50, 2, 3, generator=seeded(), dtype=torch.float64)
    scales = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    assert torch.allclose(spread(scales * y + 7, y), scales.square().flatten(), rtol=1e-9)
    uneven = y * torch.tensor([1.0, 1.0, 3.0], dtype=torch.float64)
    assert torch.allclose(spread(uneven, y), uneven.var(0).sum(1) / y.var(0).sum(1), rtol=1e-9)


@pytest.mark.parametrize("figure", [mean_error, spread])
def test_events_may_be_plain_numbers(figure, seeded):
    x, y = torch.randn(2, 6, 3, generator=seeded(), dtype=torch.float64)
    assert torch.allclose(figure(x, y), figure(x[..., None], y[..., None]))


@pytest.mark.parametrize("figure", [mean_error, spread])
@pytest.mark.parametrize("shapes", [((3, 2, 1), (3, 2, 2)), ((1, 2, 1), (1, 2, 1))])
def test_draws_must_match_and_be_two_or_more(figure, shapes):
    with pytest.raises(ValueError, match="x, y: got shapes .* expected equal ones with two draws or more"):
        figure(*(torch.zeros(shape) for shape in shapes))
