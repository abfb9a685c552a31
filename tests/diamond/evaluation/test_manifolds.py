"""Precision and recall on sets whose manifolds are plain to see, and against the definition word by word."""

import pytest
import torch

from diamond.evaluation import precision_recall


def by_definition(real, made, k):
    def inside(point, centres):
        for i, centre in enumerate(centres):
            others = sorted(float((centre - other).norm()) for j, other in enumerate(centres) if j != i)
            if float((centre - point).norm()) <= others[k - 1]:
                return True
        return False

    precision = sum(inside(point, real) for point in made) / len(made)
    return precision, sum(inside(point, made) for point in real) / len(real)


@pytest.mark.parametrize("k", [1, 3])
def test_the_definition(k, seeded):
    real = torch.randn(30, 2, generator=seeded(1), dtype=torch.float64)
    made = 1.2 * torch.randn(40, 2, generator=seeded(2), dtype=torch.float64) + 0.8
    found = precision_recall(real, made, k)
    assert found == pytest.approx(by_definition(real, made, k)) and all(0.2 < share < 1 for share in found)


def test_a_dropped_mode_costs_recall_and_an_invented_one_precision(seeded):
    cluster = torch.randn(200, 2, generator=seeded(1))
    both = torch.cat([cluster[:100], cluster[100:] + 50])
    one = torch.randn(200, 2, generator=seeded(2))
    precision, recall = precision_recall(both, one)
    assert precision > 0.9 and 0.45 < recall <= 0.5
    precision, recall = precision_recall(one, both)
    assert 0.45 < precision <= 0.5 and recall > 0.9


def test_the_same_set_and_sets_far_apart(seeded):
    x = torch.randn(1500, 3, generator=seeded())  # more than one chunk
    assert precision_recall(x, x) == (1.0, 1.0) and precision_recall(x, x + 100) == (0.0, 0.0)


def test_what_is_refused():
    x = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"^made: got shape \(3, 3\), expected \(N, F\) with N above k = 3"):
        precision_recall(x, x[:3])
    with pytest.raises(ValueError, match="^k: got 0"):
        precision_recall(x, x, 0)
