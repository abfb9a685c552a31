"""Judges that go away: what was answered is kept, with its samples and in its place."""

import pytest
import torch

import align


class Leaving:
    """A judge that answers so many samples and then is gone, in the middle of a call."""

    def __init__(self, reward, answers):
        self.reward, self.left = reward, answers

    def __call__(self, z):
        if len(z) > self.left:
            found = torch.full((len(z),), torch.nan, dtype=z.dtype)
            found[: self.left] = self.reward(z[: self.left]).detach()
            raise align.RewardFailure("the judge is gone", found)
        self.left -= len(z)
        return self.reward(z)


@pytest.mark.parametrize("chunk", [None, 4])
def test_failures_carry_the_samples_and_what_was_finished(chunk, algorithm, case_a, mild, family):
    """At the end of the call in its last samples: those of the final scoring, all but one of them answered."""
    whole = algorithm(case_a, mild, batch=2, generator=family([1, 2]), chunk=chunk)
    with pytest.raises(align.RewardFailure) as caught:
        judge = Leaving(mild, 2 * whole.reward_calls - 1)
        algorithm(case_a, judge, batch=2, generator=family([1, 2]), chunk=chunk)
    samples, rewards = caught.value.samples, caught.value.rewards
    assert rewards.shape == samples.shape[:1]
    assert rewards.isnan().nonzero().flatten().tolist() == [len(rewards) - 1]
    assert torch.allclose(rewards[:-1], mild(samples[:-1]))
    if algorithm.func is not align.search:  # which scores candidates
        assert torch.allclose(samples, whole.samples.flatten(0, 1))


@pytest.mark.parametrize("reward_chunk", [None, 5])
def test_the_failure_of_one_populations_judge_keeps_everyones_place(reward_chunk, case_a, mild, family):
    """Two of the second population's four samples were answered, and all of the first's."""
    rewards = [mild, Leaving(mild, 2), mild]
    with pytest.raises(align.RewardFailure) as caught:
        align.best_of_n(case_a, rewards, 4, batch=3, generator=family([1, 2, 3]), reward_chunk=reward_chunk)
    samples, found = caught.value.samples, caught.value.rewards
    assert samples.shape == (12, 2) and found.shape == (12,)
    answered = ~found.isnan()
    assert answered.tolist() == [True] * 6 + [False] * 6
    assert torch.allclose(found[answered], mild(samples[answered]))
