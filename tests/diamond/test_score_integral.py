"""Differences of log-densities from scores, against the exact densities of Gaussian mixtures."""

import pytest
import torch

from diamond.mixture import GaussianMixtureFlow
from diamond.score_integral import lobatto, log_density_change

STARTS = torch.tensor([[0.3, -0.4], [-1.0, 1.5], [0.8, 0.1]], dtype=torch.float64)
ENDS = STARTS + 0.6 * torch.randn(5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def exact_change(model, t):
    return torch.stack([model.log_prob(y, t) - model.log_prob(STARTS, t) for y in ENDS])


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 7])
def test_rule_is_exact_up_to_its_degree_and_no_further(nodes):
    positions, weights = lobatto(nodes)
    assert (positions[0], positions[-1], len(positions)) == (0, 1, nodes)
    assert (positions.diff() > 0).all()
    for degree in range(2 * nodes - 2):
        assert float(weights @ positions**degree) == pytest.approx(1 / (degree + 1), rel=1e-13)
    assert float(weights @ positions ** (2 * nodes - 2)) != pytest.approx(1 / (2 * nodes - 1), rel=1e-13)


def test_two_nodes_are_the_trapezoid_rule_and_exact_for_a_gaussian(path):
    covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]], dtype=torch.float64)
    model = GaussianMixtureFlow(torch.ones(1).double(), torch.tensor([[0.6, -0.3]]).double(), covariance, path)
    found = log_density_change(lambda x, copies: model.score(x, 0.4), STARTS, ENDS)
    trapezoid = torch.stack(
        [((model.score(STARTS, 0.4) + model.score(y, 0.4)) * (y - STARTS)).sum(-1) / 2 for y in ENDS]
    )
    torch.testing.assert_close(found, trapezoid, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, exact_change(model, 0.4), rtol=1e-10, atol=1e-12)


def test_more_nodes_come_to_the_exact_difference(correlated):
    model, gaps = correlated(), []
    for nodes in (2, 3, 5, 9, 17):
        found = log_density_change(lambda x, copies: model.score(x, 0.5), STARTS, ENDS, nodes)
        gaps.append(float((found - exact_change(model, 0.5)).abs().max()))
    assert gaps[-1] < 1e-9
    assert all(later < earlier / 3 for earlier, later in zip(gaps[:-1], gaps[1:], strict=True))


@pytest.mark.parametrize("nodes", [2, 5])
def test_derivative_is_the_score_at_the_ends_and_no_derivative_of_it(nodes, correlated):
    model, calls = correlated(), []

    def score(x, copies):
        assert not torch.is_grad_enabled()
        assert len(x) == copies * len(STARTS)
        calls.append(copies)
        return model.score(x, 0.5)

    x, y = STARTS.clone().requires_grad_(), ENDS.clone().requires_grad_()
    pull = torch.arange(15, dtype=torch.float64).reshape(5, 3)
    found = log_density_change(score, x, y, nodes)
    at_start, at_end = torch.autograd.grad((pull * found).sum(), (x, y))
    torch.testing.assert_close(at_start, -pull.sum(0)[:, None] * model.score(STARTS, 0.5))
    torch.testing.assert_close(at_end[2], pull[2, :, None] * model.score(ENDS[2], 0.5))
    assert calls == [1 + 5 * (nodes - 1)]
    plain = log_density_change(score, STARTS, ENDS, nodes)
    assert torch.equal(plain, found)
    assert not plain.requires_grad
