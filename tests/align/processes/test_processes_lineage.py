"""Ancestors, beams and raised estimates of a population that lies in two processes."""

import math

import pytest
import torch


@pytest.mark.parametrize("seeds", [0, list(range(5, 17))])
@pytest.mark.parametrize("ess_threshold", [0.7, 1.0])
def test_ancestors_are_global_and_offspring_come_from_elsewhere(seeds, ess_threshold, both, agreed):
    """Of pictures that never move, each must be that of the ancestor which the lineage names."""
    born = agreed(both("still", algorithm="best_of_n", seeds=seeds, n=8, batch=12))
    options = {"particles": 8, "steps": 4, "batch": 12, "mc": 1, "ess_threshold": ess_threshold}
    out = agreed(both("still", algorithm="smc", seeds=seeds, **options))
    origin = out.lineage()[0]
    assert torch.equal(out.samples, born.samples[torch.arange(12)[:, None], origin])
    here = torch.arange(8) // 4
    assert ((origin // 4 != here) & (here == 0)).any() and ((origin // 4 != here) & (here == 1)).any()


def test_every_process_draws_the_same_ancestors(both, agreed):
    """Systematic resampling gives each ancestor its expected number of offspring up to one. Shares of two draws would
    not, at the ancestor where they meet."""
    born = agreed(both("still", algorithm="best_of_n", n=8, batch=200))
    out = agreed(both("still", algorithm="smc", particles=8, batch=200, steps=2, mc=1, ess_threshold=1.0))
    offspring = torch.nn.functional.one_hot(out.ancestors[1], 8).sum(1)
    assert ((offspring - 8 * born.rewards.softmax(1)).abs() < 1 + 1e-9).all()


def test_the_beam_is_of_all_processes(both, agreed):
    out = agreed(both("ladder"))
    assert torch.allclose(out.rewards[0], torch.tensor([3.7, 3.6, 3.1, 3.0], dtype=torch.float64))
    assert torch.allclose(out.rewards[1], torch.tensor([0.7, 0.6, 0.1, 0.0], dtype=torch.float64))
    assert torch.equal(out.samples[..., 0], out.rewards)
    assert out.ancestors.tolist() == [[[3, 3, 2, 2], [0, 0, 1, 1]], [[0, 1, 0, 1]] * 2]


def test_each_particle_keeps_its_best_branch_where_it_is(both, agreed):
    out = agreed(both("ladder", keep="each"))
    expected = 0.7 + torch.tensor([[0.0, 1, 2, 3], [0, -1, -2, -3]], dtype=torch.float64)
    assert torch.allclose(out.samples[..., 0], expected) and torch.allclose(out.rewards, expected)
    assert (out.ancestors == torch.arange(4)).all()


def test_members_without_hope_in_one_process_stand_below_those_of_the_others(both, agreed):
    """An estimate of -inf is raised to the least finite one of the population, which the other process holds."""
    out = agreed(both("hopeless"))
    assert out.rewards.tolist() == [[-torch.inf, -torch.inf, -50, -50]]
    assert float(out.log_z) == pytest.approx(-50 - math.log(2), abs=1e-12)
