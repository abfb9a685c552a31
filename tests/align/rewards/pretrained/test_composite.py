"""The paper's combined reward."""

import pytest
import torch

from align.rewards import CLIPScore, Combined, HPSv2, PickScore, composite


@pytest.fixture
def models(clip_folder):
    return {
        "hps": {"model": clip_folder, "processor": clip_folder},
        "pickscore": {"model": clip_folder},
        "clip": {"model": clip_folder},
    }


def test_it_is_the_papers_sum_with_its_parts_reported(clip_folder, models, images, prompts, monkeypatch):
    asked = []

    def image_reward(**settings):
        asked.append(settings)
        return CLIPScore(clip_folder, **settings) * 0.02

    monkeypatch.setitem(composite.__globals__["KINDS"], "imagereward", image_reward)
    reward = composite(prompts[0], models=models, chunk=3, local_files_only=True)
    assert isinstance(reward, Combined) and asked == [{"prompt": prompts[0], "chunk": 3, "local_files_only": True}]
    x = images()
    parts = reward.components(x)
    assert list(parts) == ["imagereward", "hps", "pickscore", "clip"]
    by_hand = parts["imagereward"] + 5 * parts["hps"] + 0.05 * parts["pickscore"] + 0.01 * parts["clip"]
    assert torch.allclose(reward(x), by_hand, rtol=1e-6)
    for name, kind in (("hps", HPSv2), ("pickscore", PickScore), ("clip", CLIPScore)):
        own = kind(**models[name], prompt=prompts[0], local_files_only=True)
        assert torch.allclose(parts[name], own(x), rtol=0, atol=2e-4)


def test_parts_without_a_weight_are_not_loaded_and_prompts_reach_the_others(models, images, prompts):
    reward = composite(weights={"clip": 1.0, "hps": 0.0}, models={name: models[name] for name in ("clip", "hps")})
    x = images().requires_grad_()
    parts = reward.components(x, prompts)
    assert list(parts) == ["clip", "hps"] and torch.equal(reward.total(parts), parts["clip"])
    assert torch.autograd.grad(reward(x, prompts).sum(), x)[0].ne(0).any()
    with pytest.raises(ValueError, match="^cond: got 2 prompts for 4 images"):
        reward(x, prompts[:2])


def test_it_drives_an_algorithm_on_images(models, prompts, seeded):
    """Best of n over images of a model that draws them at random: the reward of the best is the largest."""
    import align

    from diamond.mixture import GaussianMixtureFlow

    reward = composite(prompts[0], weights={"clip": 0.01}, models={"clip": models["clip"]})
    flow = GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 3 * 64), torch.full((1,), 0.1))
    out = align.best_of_n(flow, lambda z: reward(z.reshape(-1, 3, 8, 8)), 5, generator=seeded())
    assert out.rewards.shape == (1, 5) and torch.equal(out.rewards, reward(out.samples.reshape(5, 3, 8, 8))[None])
