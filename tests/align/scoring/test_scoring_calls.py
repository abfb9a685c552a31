"""How rewards are asked: in chunks, with gradients, on copies, and each population its own."""

import pytest
import torch

from align.rewards import Combined
from align.scoring import ByPopulation, RewardFailure, Scorer


def test_rewards_that_work_in_place_change_nothing(algorithm, differentiates, case_a, mild, family):
    def doubling(z):
        return mild(z.mul_(2.0) / 2)

    def rude(z):
        score = mild(z)
        z.fill_(7.0)
        return score

    polite = algorithm(case_a, mild, generator=family([4]))
    for reward in [doubling] if differentiates else [doubling, rude]:
        out = algorithm(case_a, reward, generator=family([4]))
        assert torch.equal(out.samples, polite.samples)
        assert torch.equal(out.rewards, polite.rewards)


@pytest.mark.parametrize("chunk", [None, 1, 4, 5, 6, 100])
def test_scores_do_not_depend_on_the_chunk_and_are_counted(chunk, samples):
    seen = []

    def reward(z):
        seen.append(len(z))
        return z.prod(1)

    scorer = Scorer(reward, chunk)
    assert torch.equal(scorer(samples), samples.prod(1))
    assert torch.equal(scorer(samples[:2]), samples[:2].prod(1))
    assert scorer.calls == sum(seen) == 8
    assert max(seen) <= (chunk or 6)


def test_gradients_pass_through_where_they_are_asked_for(samples):
    z = samples.clone().requires_grad_()
    for chunk in (None, 4):
        (slope,) = torch.autograd.grad(Scorer(lambda z: z.square().sum(1), chunk)(z).sum(), z)
        assert torch.allclose(slope, 2 * samples)


@pytest.mark.parametrize("chunk", [None, 1, 2, 4])
def test_parts_of_several_rewards_keep_the_places_of_mixed_rows(chunk, samples):
    """In chunks with rows of one population alone, too; each population's conditioning reaches its parts."""

    def made(slope):
        return Combined({"a": lambda z: slope * z[:, 0], "b": (lambda z, cond: z[:, 1] + cond, 2.0)})

    population, cond = torch.tensor([0, 0, 1, 0, 1, 1]), torch.arange(6.0)
    rewards, parts = Scorer(ByPopulation([made(1.0), made(-3.0)]), chunk).components(samples, (population, cond))
    assert torch.allclose(parts["a"], torch.tensor([1.0, -3.0])[population] * samples[:, 0])
    assert torch.allclose(parts["b"], samples[:, 1] + cond)
    assert torch.allclose(rewards, parts["a"] + 2 * parts["b"])


def test_the_failure_of_one_of_several_rewards_keeps_the_places_of_mixed_rows(samples):
    """Rows of draws come population by population within each draw, not all of a population together."""

    def gone(z):
        raise RewardFailure("the judge is gone", torch.tensor([5.0, torch.nan, torch.nan]))

    scorer = Scorer(ByPopulation([lambda z: z[:, 0], gone]))
    with pytest.raises(RewardFailure) as caught:
        scorer(samples, (torch.tensor([0, 1, 0, 1, 0, 1]), None))
    expected = samples[:, 0].clone()
    expected[1] = 5.0
    assert torch.equal(caught.value.rewards[[0, 1, 2, 4]], expected[[0, 1, 2, 4]])
    assert caught.value.rewards[[3, 5]].isnan().all()
    assert torch.equal(caught.value.samples, samples)
