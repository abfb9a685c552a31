"""Rewards on the images of a model that works on latents: decoded once, with prompts, differentiable."""

import pytest
import torch

from torch import nn

import align

from align.rewards import Brightness, Combined, Decoded, Symmetry


class Painter:
    """A model whose images are `tanh` of its latents, repeated; it counts what it decodes."""

    def __init__(self):
        self.decoded = 0

    def decode(self, z):
        self.decoded += len(z)
        return z.tanh().expand(-1, 3, -1, -1)

    def prompts_of(self, cond, rows):
        return ["a cat"] * rows if cond is None else [f"prompt {number}" for number in cond.tolist()]


@pytest.fixture
def latents(seeded):
    return torch.randn(4, 1, 5, 5, generator=seeded(0))


def test_the_reward_sees_images(latents):
    painter = Painter()
    images = latents.tanh().expand(-1, 3, -1, -1)
    torch.testing.assert_close(Decoded(Symmetry(), painter)(latents), Symmetry()(images))
    assert painter.decoded == 4


def test_gradients_go_through_the_decoder(latents):
    z = latents.requires_grad_()
    slope = torch.autograd.grad(Decoded(2.0 * Brightness(), Painter())(z).sum(), z)[0]
    torch.testing.assert_close(slope, 2 * (1 - z.tanh().square()) / 25)


@pytest.mark.parametrize("cond", [None, torch.tensor([2, 0, 1, 1])])
def test_a_reward_of_two_arguments_gets_the_prompts(cond, latents):
    seen = []

    def reward(images, prompts):
        seen.append(prompts)
        return images.new_tensor([len(prompt) for prompt in prompts])

    found = Decoded(reward, Painter())(latents, cond)
    expected = ["a cat"] * 4 if cond is None else ["prompt 2", "prompt 0", "prompt 1", "prompt 1"]
    assert seen == [expected] and found.tolist() == [float(len(prompt)) for prompt in expected]


def test_parts_of_a_reward_are_decoded_once(latents):
    """Sums and combinations keep their components."""
    painter = Painter()
    combined = Combined({"light": (Brightness(), 2.0), "even": (Symmetry(), 0.5)})
    reward = Decoded(combined, painter)
    found = align.scoring.Scorer(reward).components(latents, None)
    images = latents.tanh().expand(-1, 3, -1, -1)
    assert painter.decoded == 4
    assert set(found[1]) == {"light", "even"}
    torch.testing.assert_close(found[0], 2.0 * Brightness()(images) + 0.5 * Symmetry()(images))
    torch.testing.assert_close(reward(latents), found[0])
    painter.decoded = 0
    torch.testing.assert_close(Decoded(2.0 * Brightness() + Symmetry(), painter)(latents),
                               2.0 * Brightness()(images) + Symmetry()(images))  # fmt: skip
    assert painter.decoded == 4


def test_decoded_rewards_add_and_scale(latents):
    """As any reward does; each term decodes for itself then."""
    painter = Painter()
    images = latents.tanh().expand(-1, 3, -1, -1)
    reward = 3.0 * Decoded(Brightness(), painter) - Decoded(Symmetry(), painter)
    torch.testing.assert_close(reward(latents), 3.0 * Brightness()(images) - Symmetry()(images))


def test_modules_of_the_reward_are_modules_of_this_and_the_model_is_not():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, images):
            return self.weight * images.flatten(1).mean(1)

    class Net(nn.Module, Painter):
        def __init__(self):
            nn.Module.__init__(self)
            Painter.__init__(self)
            self.large = nn.Parameter(torch.ones(1000))

    reward = Decoded(Learned(), Net())
    assert [p.numel() for p in reward.parameters()] == [1]


@pytest.mark.parametrize("model", [None, torch.nn.Identity(), "a path"])
def test_a_model_without_images_is_refused(model):
    with pytest.raises(ValueError, match="^model: got a .*, expected one with decode and prompts_of"):
        Decoded(Brightness(), model)


def test_bad_rewards_are_refused(latents):
    with pytest.raises(ValueError, match="^reward: "):
        Decoded("brightness", Painter())
    model = Decoded(lambda images: images, Painter())
    with pytest.raises(ValueError, match="^reward: .*shape"):
        align.scoring.Scorer(model)(latents)
