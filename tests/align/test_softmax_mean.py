"""Means with softmax weights over blocks, against the same means at once."""

import pytest
import torch

from align.softmax_mean import SoftmaxMean, weighted_sum


def mean_in_blocks(logits, values, sizes, dtype=torch.float64):
    """Of logits `(K, B)` and values `(K, B, *event)`, in blocks of draws of the sizes given, two slices of rows each."""
    mean = SoftmaxMean(torch.zeros(values.shape[1:], dtype=dtype))
    for part, block in zip(logits.split(sizes), values.split(sizes), strict=True):
        for rows in (slice(0, 1), slice(1, logits.shape[1])):
            mean.add(rows, weighted_sum(mean.weigh(rows, part[:, rows]), block[:, rows]))
    return mean.mean()


@pytest.mark.parametrize("scale", [0.0, 1.0, 400.0])
@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 6]])
def test_blocks_give_the_mean_that_all_draws_give_at_once(scale, sizes, seeded):
    """Also where exponentials of the logits overflow, ascending and descending."""
    logits = scale * torch.randn(12, 3, dtype=torch.float64, generator=seeded()).sort(0)[0]
    values = torch.randn(12, 3, 2, 2, dtype=torch.float64, generator=seeded(1))
    for order in (slice(None), torch.arange(11, -1, -1)):
        expected = torch.einsum("kb,kbij->bij", logits[order].softmax(0), values[order])
        assert torch.allclose(mean_in_blocks(logits[order], values[order], sizes), expected, rtol=1e-10, atol=1e-12)


def test_logits_of_minus_infinity_have_no_weight_and_rows_of_them_a_mean_of_zero(seeded):
    logits = torch.zeros(6, 3, dtype=torch.float64)
    logits[:3, 1], logits[:, 2] = -torch.inf, -torch.inf
    values = torch.randn(6, 3, 2, dtype=torch.float64, generator=seeded())
    expected = torch.stack([values[:, 0].mean(0), values[3:, 1].mean(0), torch.zeros(2, dtype=torch.float64)])
    for sizes in ([6], [2, 2, 2], [1] * 6):
        assert torch.allclose(mean_in_blocks(logits, values, sizes), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_single_precision_or_better(dtype, seeded):
    """A sum of ones stops growing at 2048 in float16 and at 256 in bfloat16."""
    values = torch.ones(5000, 2, 1, dtype=dtype)
    found = mean_in_blocks(torch.zeros(5000, 2), values, [10] * 500, dtype)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.ones(2, 1), rtol=1e-6)
