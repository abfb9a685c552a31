"""Populations as rows: draws in blocks, branches, and what reaches the model."""

import pytest
import torch

import align

from align.draws import posterior_blocks, row_slices
from align.population import Population


def flat(z):
    return torch.zeros(len(z))


@pytest.mark.parametrize("rows", [1, 5, 12])
@pytest.mark.parametrize("chunk", [None, 1, 4, 12, 50])
def test_row_slices_cover_the_rows_once_in_order(rows, chunk):
    slices = list(row_slices(rows, chunk))
    assert [i for part in slices for i in range(rows)[part]] == list(range(rows))
    assert max(part.stop - part.start for part in slices) <= (chunk or rows)


@pytest.mark.parametrize("mc", [1, 16, 17, 46])
@pytest.mark.parametrize("chunk", [None, 1, 3, 5, 12, 1000])
def test_blocks_give_every_row_its_draws_and_the_same_noise(mc, chunk, case_a, seeded):
    x = case_a.prior(5, generator=seeded(8))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)

    def draws(chunk):
        kept = [[] for _ in range(5)]
        for rows, _, _, z, _ in posterior_blocks(case_a, x, t, mc, None, seeded(), chunk):
            assert chunk is None or z.shape[0] * z.shape[1] <= chunk
            for place, row in enumerate(range(5)[rows]):
                kept[row].append(z[:, place])
        return torch.stack([torch.cat(parts) for parts in kept])

    found = draws(chunk)
    assert found.shape == (5, mc, 2)
    assert len(found.unique()) == 5 * mc * 2  # no number twice, in whatever block
    assert torch.allclose(found.sort(1).values, draws(None).sort(1).values, rtol=1e-12)


def test_blocks_hold_no_more_than_a_tile_of_draws(case_a):
    x = case_a.prior(3)
    sizes = [
        len(block.z) for block in posterior_blocks(case_a, x, torch.full((3,), 0.5), 50, None, torch.Generator(), None)
    ]
    assert sizes == [16, 16, 16, 2]


@pytest.mark.parametrize("chunk", [None, 5])
def test_branches_of_a_particle_are_independent_transitions_of_it(chunk, case_a, seeded, check_mean, kernel_moments):
    population = Population(case_a, flat, 2, 1, generator=seeded(), chunk=None if chunk is None else 5000)
    x = torch.tensor([[0.4, -0.3], [-1.0, 0.2]], dtype=torch.float64)
    after = population.transition(x, 0.4, 0.7, branch=6000).reshape(2, 6000, 2)
    mean, covariance = kernel_moments(case_a, x, 0.4, 0.7)
    for row in range(2):
        gap = after[row] - mean[row]
        check_mean(gap, torch.zeros(2, dtype=torch.float64), limit=4)
        check_mean(gap[:, :, None] * gap[:, None], covariance[row], limit=4)
        check_mean(gap[:3000] * gap[3000:], torch.zeros(2, dtype=torch.float64), limit=4)


def test_branches_get_the_conditioning_of_their_population(still, family):
    class Pulled(type(still)):
        def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
            return x_t + cond

    cond = torch.tensor([[10.0], [20.0]], dtype=torch.float64)
    for chunk in (None, 1, 5):
        population = Population(Pulled(), flat, 3, 2, cond, family([1, 2]), chunk)
        x = population.prior()
        expected = (x.reshape(2, 3, 1) + cond[:, None]).repeat_interleave(4, dim=1).reshape(-1, 1)
        assert torch.equal(population.transition(x, 0.1, 0.2, branch=4), expected)


@pytest.mark.parametrize("rho", [None, 0.4])
@pytest.mark.parametrize("run", [align.smc, align.search, align.best_of_n])
def test_the_correlation_and_the_grid_reach_the_model(rho, run, still):
    asked = []

    class Recording(type(still)):
        def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
            asked.append((t, t_next, rho))
            return x_t

    run(Recording(), lambda z: z[:, 0], 3, times=[0, 0.2, 0.7, 1], rho=rho)
    assert asked == [(0, 0.2, rho), (0.2, 0.7, rho), (0.7, 1, rho)]


@pytest.mark.parametrize("batch, size", [(0, 1), (-1, 2), (1.5, 2)])
def test_populations_of_no_number_are_refused(batch, size, case_a):
    with pytest.raises(ValueError, match="^batch: got"):
        Population(case_a, flat, size, batch)
