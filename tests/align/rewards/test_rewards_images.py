"""Simple rewards on images, by hand."""

import io

import pytest
import torch

from PIL import Image

import align

from align.rewards import Brightness, JPEGSize, Symmetry


def test_brightness_is_the_mean_entry():
    images = torch.tensor([[[[1.0, 0.0], [-1.0, 0.5]]], [[[-1.0, -1.0], [-1.0, -1.0]]]])
    assert Brightness()(images).tolist() == pytest.approx([0.125, -1.0])


def test_symmetry_is_minus_the_mean_square_gap_to_the_mirror():
    image = torch.tensor([[[1.0, 0.0, -1.0], [0.5, 7.0, 0.5]]])
    # gaps 2, 0, -2 in the first row and none in the second
    assert Symmetry()(image[None]).tolist() == pytest.approx([-(4 + 4) / 6])
    assert Symmetry()(image.flip(-1)[None]).tolist() == pytest.approx([-(4 + 4) / 6])
    assert Symmetry()(torch.stack([image + image.flip(-1), image * 0])).tolist() == [0.0, 0.0]


def test_symmetry_is_least_for_opposite_halves():
    image = torch.cat([torch.ones(1, 3, 4, 4), -torch.ones(1, 3, 4, 4)], dim=-1)
    assert Symmetry()(image).tolist() == [-4.0]


@pytest.mark.parametrize("reward", [Brightness(), Symmetry()])
def test_gradients_are_those_of_the_formula(reward):
    images = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(reward, (images.requires_grad_(),))


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("quality", [30, 90])
def test_jpeg_reward_is_minus_the_file_size_in_kilobytes(channels, mode, quality):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, channels, 16, 24), generator=generator) * 2 - 1
    images[0] = 0.2
    found = JPEGSize(quality)(images)
    for image, score in zip(images, found.tolist(), strict=True):
        levels = [round(float(level)) for level in (image.permute(1, 2, 0).flatten() + 1) * 127.5]
        picture = Image.frombytes(mode, (24, 16), bytes(levels))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        assert score == pytest.approx(-len(file.getvalue()) / 1000)
    assert found[0] > found[1]


def test_jpeg_reward_takes_entries_out_of_range_for_the_ends():
    wild = torch.tensor([-9.0, 9.0]).repeat(32).reshape(1, 1, 8, 8)
    assert torch.equal(JPEGSize()(wild), JPEGSize()(wild.clamp(-1, 1)))


def test_jpeg_reward_is_a_black_box(case_a):
    """Neither refused where no derivative is needed, nor taken where one is."""
    reward = JPEGSize()
    assert not reward(torch.zeros(2, 1, 8, 8, requires_grad=True)).requires_grad

    def seen(z):
        return reward(z[:, :, None, None].expand(-1, -1, 8, 8)[:, :1])

    assert align.guide(case_a, seen, 2, 2, 3, estimator="score").samples.isfinite().all()
    with pytest.raises(ValueError, match="^reward: .*take estimator='score'"):
        align.guide(case_a, seen, 2, 2, 3)


@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 8, 8), (4, 8, 8)])
def test_jpeg_reward_refuses_what_is_no_image(shape):
    with pytest.raises(ValueError, match="^z: got shape"):
        JPEGSize()(torch.zeros(shape))


@pytest.mark.parametrize("quality", [0, 96])
def test_jpeg_reward_refuses_a_quality_out_of_range(quality):
    with pytest.raises(ValueError, match=f"^quality: got {quality}"):
        JPEGSize(quality)
