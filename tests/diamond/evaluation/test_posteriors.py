"""References, distances to them, and how many GLASS steps a distance is worth."""

import pytest
import torch

from diamond.evaluation import (
    compare,
    distances_to,
    draw_in_tiles,
    draw_references,
    energy_distance,
    equivalent_steps,
    glass_distances,
    mean_error,
    spread,
)
from diamond.glass import GlassFlow


def test_an_exact_posterior_is_at_no_distance_and_glass_comes_nearer(correlated, seeded, check_mean):
    model = correlated()
    z = model.sample(200, generator=seeded(1))
    references = draw_references(model, z, (0.3, 0.7), draws=24, exact=True, generator=seeded(2))
    again = draw_references(model, z, (0.3, 0.7), draws=24, exact=True, generator=seeded(2))
    assert all(
        torch.equal(a.draws, b.draws) and torch.equal(a.x_t, b.x_t) for a, b in zip(references, again, strict=True)
    )
    fresh = draw_references(model, z, (0.3, 0.7), draws=24, exact=True, generator=seeded(2))

    class Exact:
        own = seeded(3)

        def posterior(self, x_t, t, n, noise, generator):
            return model.posterior(x_t, t, n, generator=self.own)

    check_mean(distances_to(fresh, Exact()).T, torch.zeros(2).double())
    far, near = (distances_to(references, GlassFlow(model, steps)).mean(1) for steps in (1, 16))
    assert bool((near < 0.2 * far).all())


def test_a_comparison_tells_each_figure_of_the_same_draws(correlated, seeded):
    model = correlated()
    references = draw_references(model, model.sample(3, generator=seeded(1)), (0.2, 0.8), draws=30, generator=seeded(2))
    glass = GlassFlow(model, 2, grid="uniform")
    found = compare(references, glass)
    for i, r in enumerate(references):
        draws = glass.posterior(r.x_t, r.t, 30, noise=r.noise)
        for figure, of_draws in zip(found, (energy_distance, mean_error, spread), strict=True):
            assert figure.shape == (2, 3) and torch.allclose(figure[i], of_draws(draws, r.draws), rtol=1e-9)
    assert bool((found.spread < 0.6).all())  # two Euler steps draw too narrowly


def test_tiles_make_no_difference_to_draws_from_given_noises(correlated, seeded, monkeypatch):
    model = correlated()
    x_t, glass = torch.randn(7, 2, generator=seeded(), dtype=torch.float64), GlassFlow(model, 3)
    noise = torch.randn(10, 7, 2, generator=seeded(1), dtype=torch.float64)
    whole = glass.posterior(x_t, 0.3, 10, noise=noise)
    for rows in (1, 22, 2048):
        monkeypatch.setattr("diamond.evaluation.posteriors.ROWS", rows)
        assert torch.allclose(draw_in_tiles(glass, x_t, 0.3, 10, noise=noise), whole, atol=1e-12)
        assert draw_in_tiles(model, x_t, 0.3, 10, generator=seeded()).shape == (10, 7, 2)


def test_no_states_have_no_draws_and_no_draws_are_refused(correlated):
    model, none = correlated(), torch.zeros(0, 2, dtype=torch.float64)
    (reference,) = draw_references(model, none, (0.5,), draws=3, reference_steps=1)
    assert reference.draws.shape == (3, 0, 2)
    assert compare([reference], GlassFlow(model, 1)).distance.shape == (1, 0)
    with pytest.raises(ValueError, match="^draws: got 0"):
        draw_references(model, none, (0.5,), draws=0)
    with pytest.raises(ValueError, match="^n: got 0"):
        draw_in_tiles(model, none, 0.5, 0)


def test_states_are_data_noised_to_their_times(correlated, seeded, check_law):
    model = correlated()
    z = model.sample(4000, generator=seeded(1))
    (reference,) = draw_references(model, z, (0.4,), draws=1, exact=True, generator=seeded(2))
    gap = reference.x_t - 0.4 * z
    check_law(gap, torch.zeros(2).double(), 0.36 * torch.eye(2).double())


@pytest.mark.parametrize("grid", ["uniform", "posterior"])
def test_glass_draws_are_their_own_reference(grid, correlated, seeded):
    """The reference takes the grid fitted to the posterior; others are those of GLASS as published, if not told."""
    model = correlated()
    z = model.sample(3, generator=seeded(1))
    found = glass_distances(
        GlassFlow(model, 8, grid=grid), model, z, (0.2, 0.6), draws=20, steps=(2, 8), reference_steps=8,
        generator=seeded(2), **({} if grid == "uniform" else {"grid": grid}),
    )  # fmt: skip
    assert found["map"].shape == (2, 3) and found["glass"].shape == (2, 2, 3)
    assert torch.equal(found["map"], found["glass"][1]) and bool((found["glass"][0] > found["map"]).all())
    assert bool((found["map"] == 0).all()) is (grid == "posterior")


@pytest.mark.parametrize(
    "distance, steps", [(4.0, 1.0), (1.0, 2.0), (0.5, 8**0.5), (0.25, 4.0), (0.01, 4.0), (-1, 4.0)]
)
def test_equivalent_steps_interpolate_logarithms(distance, steps):
    assert equivalent_steps(distance, (1, 2, 4), (4.0, 1.0, 0.25)) == pytest.approx(steps)
