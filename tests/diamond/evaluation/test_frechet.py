"""The Frechet distance against the closed form of two Gaussians."""

import numpy as np
import pytest
import torch

from scipy.linalg import sqrtm

from diamond.evaluation import frechet_distance, gaussian_frechet_distance


def matrix(rows):
    return torch.tensor(rows, dtype=torch.float64)


C, D = matrix([[0.6, -0.3], [-0.3, 0.2]]), matrix([[0.3, 0.2], [0.2, 0.5]])


def rows_with(mean, covariance, count, generator):
    """Rows whose sample mean and covariance are exactly the given ones."""
    rows = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
    rows = rows - rows.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(rows.T.cov()), rows.T, upper=False)
    return mean + (torch.linalg.cholesky(covariance) @ white).T


def test_gaussians_whose_covariances_do_not_commute(seeded):
    mean, other = matrix([0.5, -1.0]), matrix([-0.2, 0.4])
    product = C @ D
    root_trace = (product.trace() + 2 * product.det().sqrt()).sqrt()  # of a 2x2 matrix's root
    exact = (mean - other).square().sum() + C.trace() + D.trace() - 2 * root_trace
    assert gaussian_frechet_distance(mean, C, other, D).item() == pytest.approx(exact.item(), rel=1e-12)
    x, y = rows_with(mean, C, 50, seeded(1)), rows_with(other, D, 80, seeded(2))
    assert frechet_distance(x, y) == pytest.approx(exact.item(), rel=1e-10)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-10)


def test_many_dimensions_agree_with_the_general_matrix_root(seeded):
    a, b = torch.randn(2, 12, 12, generator=seeded(), dtype=torch.float64)
    a, b, mean = a @ a.T, b @ b.T, torch.zeros(12).double()
    exact = (a + b).trace() - 2 * float(np.trace(sqrtm((a @ b).numpy())).real)
    assert gaussian_frechet_distance(mean, a, mean, b).item() == pytest.approx(float(exact), rel=1e-6)


def test_on_the_line_it_is_the_gap_of_means_and_deviations():
    x = torch.tensor([[1.0], [3.0]])  # mean 2, deviation sqrt 2
    y = torch.tensor([[0.0], [6.0]])  # mean 3, deviation 3 sqrt 2
    assert frechet_distance(x, y) == pytest.approx(1 + 8, rel=1e-12)


def test_fewer_rows_than_features_and_features_that_never_vary(seeded):
    x = torch.randn(6, 20, generator=seeded())
    x[:, 3:8] = 0
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 0.5) == pytest.approx(20 * 0.25, rel=1e-6)


def test_what_is_refused():
    x = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"^y: got shape \(4, 2\)"):
        frechet_distance(x, x[:, :2])
    with pytest.raises(ValueError, match=r"^x: got shape \(1, 3\)"):
        frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match="^y: got an entry that is not finite"):
        frechet_distance(x, x / 0)
