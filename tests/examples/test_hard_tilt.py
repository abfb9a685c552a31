"""The hard tilt: its yardstick is right, and a map of a few seconds' distillation has values that beat it."""

import math
import sys

from pathlib import Path

import pytest
import torch

import align
import diamond
import distill

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # the examples are not installed
    sys.path.insert(0, str(ROOT))

from examples.benchmarks import hard_tilt  # noqa: E402


def test_moments_are_integrals():
    """And the deviation of importance sampling is made of them."""
    problem = hard_tilt.make(2)
    axis = torch.linspace(-0.5, 0.5, 401, dtype=torch.float64)
    points = problem.target + torch.cartesian_prod(axis, axis)
    density, reward = problem.mixture.log_prob(points), problem.reward(points)
    first, second = (float((density + power * reward).exp().sum() * 0.0025**2) for power in (1, 2))
    assert problem.log_moment(1) == pytest.approx(math.log(first), abs=1e-6)
    assert problem.log_moment(2) == pytest.approx(math.log(second), abs=1e-6)
    assert problem.importance_deviation(50) == pytest.approx(math.sqrt((second / first**2 - 1) / 50), rel=1e-6)


def test_noise_shrinks_by_one_factor():
    times = hard_tilt.geometric(6, 0.5, 0.98)
    assert times[0] == 0 and times[-1] == 1 and len(times) == 7
    noise = 1 - times[1:-1]
    assert float(noise[0]) == pytest.approx(0.5) and float(noise[-1]) == pytest.approx(0.02)
    assert torch.allclose(noise[1:] / noise[:-1], noise[1] / noise[0])


def test_values_of_a_map_halve_the_error_of_importance_sampling(seeded, check_mean):
    """Moves are the mixture's, so that the evidence is unbiased however little the map has learnt."""
    problem = hard_tilt.make(4)
    exact = problem.mixture
    mixture = diamond.GaussianMixtureFlow(exact.weights.float(), exact.means.float(), exact.covariances.float())
    diamond_map = distill.distill(
        mixture, loss="trajectory", steps=150, batch=128, learning_rate=4e-3, seed=0, progress=False
    )
    out = align.smc(
        hard_tilt.MapValues(exact, diamond_map), problem.reward, 192, batch=40, generator=seeded(1),
        **hard_tilt.walk("geometric"),
    )  # fmt: skip
    ratio = (out.log_z - problem.log_moment(1)).exp()
    check_mean(ratio, 1.0, limit=5)
    error = float((ratio - 1).square().mean().sqrt())
    assert error < 0.5 * problem.importance_deviation(out.reward_calls)
    assert out.nfe == 192 * 9 * 4
