"""A reward of its own for each population, and the parts of rewards, which are kept with the samples."""

import pytest
import torch

import align


def test_rewards_of_their_own_are_separate_runs(algorithm, glass, family, attracted, cond):
    """With generators of their own, exactly; conditioning included."""
    rewards = [attracted, lambda z, cond: attracted(z, -2 * cond), lambda z: -z.square().sum(-1)]
    together = algorithm(glass, rewards, batch=3, cond=cond, generator=family([5, 6, 7]))
    for row, reward in enumerate(rewards):
        alone = algorithm(glass, reward, cond=cond[row : row + 1], generator=family([5 + row]))
        for name in ("samples", "rewards", "log_weights"):
            assert torch.allclose(getattr(alone, name)[0], getattr(together, name)[row], rtol=1e-9, atol=1e-12), name
        assert torch.equal(alone.ancestors[:, 0], together.ancestors[:, row])
        assert (alone.nfe, alone.reward_calls) == (together.nfe, together.reward_calls)
    assert not torch.allclose(together.rewards[0], together.rewards[1])


def test_rewards_of_their_own_must_be_one_for_each_population(algorithm, case_a, mild):
    with pytest.raises(ValueError, match="^reward: got 2 rewards, expected one, or one for each of 3 populations"):
        algorithm(case_a, [mild, mild], batch=3)
    with pytest.raises(ValueError, match="^reward: got float, expected a callable"):
        algorithm(case_a, [mild, 3.0], batch=2)


def test_the_name_of_a_reward_is_none(algorithm, case_a):
    expected = r"^reward: got 'bright', expected a callable reward\(z\) -> \(N,\), like align.rewards.Brightness\(\)$"
    for batch in (1, 6):
        with pytest.raises(ValueError, match=expected):
            algorithm(case_a, "bright", batch=batch)


def test_what_the_parts_of_a_reward_say_is_kept_with_the_samples(algorithm, case_a, mild, family, tmp_path):
    """Unweighted, a held-out part of weight 0 among them; on disk too."""
    reward = align.rewards.Combined(
        {"near": (mild, 0.5), "low": lambda z: -z[:, 1], "watched": (lambda z: z[:, 0], 0.0)}
    )
    out = algorithm(case_a, reward, batch=2, generator=family([1, 2]))
    assert list(out.components) == ["near", "low", "watched"]
    expected = mild(out.samples), -out.samples[..., 1], out.samples[..., 0]
    for part, answer in zip(out.components.values(), expected, strict=True):
        assert torch.allclose(part, answer)
    assert torch.allclose(out.rewards, 0.5 * expected[0] + expected[1])
    out.save(tmp_path / "result")
    back = align.Alignment.load(tmp_path / "result")
    assert list(back.components) == sorted(out.components) or list(back.components) == list(out.components)
    assert all(torch.equal(back.components[name], part) for name, part in out.components.items())
    if out.inverse_temperatures is not None:
        assert torch.equal(back.inverse_temperatures, out.inverse_temperatures)
    assert back.settings == out.settings
    assert all(name in out.summary() for name in out.components)


@pytest.mark.parametrize("reward_chunk", [None, 5])
def test_parts_of_rewards_of_their_own_are_kept_where_they_have_the_same_names(reward_chunk, algorithm, case_a, mild):
    def tilted(slope, watched="low"):
        return align.rewards.Combined({"near": (mild, 0.5), watched: (lambda z: slope * z[:, 1], -1.0)})

    backwards = align.rewards.Combined({"low": (lambda z: 3 * z[:, 1], -1.0), "near": (mild, 2.0)})
    out = algorithm(case_a, [tilted(1.0), tilted(2.0), backwards], batch=3, reward_chunk=reward_chunk)
    assert list(out.components) == ["near", "low"]
    slopes = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None]
    assert torch.allclose(out.components["near"], mild(out.samples))
    assert torch.allclose(out.components["low"], slopes * out.samples[..., 1])
    weights = torch.tensor([0.5, 0.5, 2.0], dtype=torch.float64)[:, None]
    assert torch.allclose(out.rewards, weights * out.components["near"] - out.components["low"])
    for other in (tilted(1.0, "high"), mild):
        assert algorithm(case_a, [tilted(1.0), other], batch=2, reward_chunk=reward_chunk).components == {}


@pytest.mark.parametrize("reward_chunk", [None, 3])
def test_no_population_loses_its_gradient_beside_others(reward_chunk, algorithm, differentiates, case_a, mild):
    """Together the rewards have a derivative, which is zero for the black box: its samples would not be guided."""
    rewards = [mild, lambda z: mild(z.detach())]
    if not differentiates:
        algorithm(case_a, rewards, batch=2, reward_chunk=reward_chunk)
        return
    with pytest.raises(ValueError, match="^reward: that of population 1 returned numbers that do not depend"):
        algorithm(case_a, rewards, batch=2, reward_chunk=reward_chunk)
