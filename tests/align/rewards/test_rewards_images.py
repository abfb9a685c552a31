"""Simple rewards on images, by hand."""

import io

import pytest
import torch

from PIL import Image

import align

from align.rewards import Brightness, Contrast, JPEGSize, MeanColour, Sparsity, Symmetry


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


def test_contrast_is_the_spread_of_the_grey_levels():
    image = torch.tensor([[[1.0, 0.0, -1.0], [0.5, 0.5, -1.0]]])
    assert Contrast()(image[None]).tolist() == pytest.approx([(3.5 / 6) ** 0.5])
    board = torch.tensor([1.0, -1.0]).repeat(8).reshape(1, 1, 4, 4)
    assert Contrast()(board).tolist() == Contrast()(board.expand(1, 3, 4, 4)).tolist() == pytest.approx([1.0])
    assert Contrast()(0 * board + 0.3).tolist() == pytest.approx([0.0], abs=1e-7)


def test_contrast_of_a_coloured_image_is_that_of_its_luminance():
    levels = torch.randint(256, (2, 3, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for image, score in zip(levels, Contrast()(levels / 127.5 - 1).tolist(), strict=True):
        grey = Image.frombytes("RGB", (4, 5), bytes(image.permute(1, 2, 0).flatten().tolist())).convert("L")
        spread = torch.tensor(list(grey.tobytes()), dtype=torch.float64).std(correction=0) / 127.5
        assert score == pytest.approx(float(spread), abs=0.01)  # its levels are whole numbers
    red, blue = torch.zeros(2, 1, 3, 2, 2)
    red[:, 0, 0], blue[:, 2, 0] = 1, 1
    assert Contrast()(red).tolist() == pytest.approx([0.299 / 2])
    assert Contrast()(blue).tolist() == pytest.approx([0.114 / 2])


def test_contrast_has_a_finite_gradient_even_of_a_flat_image():
    for level in (0.5, 0.3):  # the mean of the one is exact, of the other rounded
        flat = torch.full((1, 1, 4, 4), level, requires_grad=True)
        (slope,) = torch.autograd.grad(Contrast()(flat).sum(), flat)
        assert float(slope.norm()) <= 0.25 + 1e-6  # never longer than 1 / sqrt(pixels)


def test_colour_is_minus_the_mean_square_distance_of_the_mean_colour():
    pixels = torch.tensor([[1.0, -1.0], [0.0, 0.5], [-1.0, -1.0]])  # means 0, 0.25, -1
    images = pixels.reshape(1, 3, 1, 2)
    assert MeanColour((0.5, 0.25, -0.5))(images).tolist() == pytest.approx([-(0.25 + 0 + 0.25) / 3])
    assert MeanColour([1, 1, 1])(-torch.ones(2, 3, 4, 4)).tolist() == [-4.0, -4.0]
    for name in ("orange", "#ffa500", "rgb(255, 165, 0)", (1.0, 165 / 127.5 - 1, -1.0)):
        flat = torch.tensor([255.0, 165.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4) / 127.5 - 1
        assert MeanColour(name)(flat).tolist() == pytest.approx([0.0], abs=1e-12)


def test_colour_leaves_the_drawing_free():
    noise = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawing = noise - noise.mean((2, 3), keepdim=True)
    reward = MeanColour("teal")
    assert torch.allclose(reward(0.2 + drawing), reward(0.2 + 0 * drawing))


def test_colour_refuses_what_has_none():
    with pytest.raises(ValueError, match=r"^z: got grey images of shape \(2, 1, 4, 4\), expected RGB ones"):
        MeanColour("red")(torch.zeros(2, 1, 4, 4))
    for shape in ((2, 3), (2, 4, 4, 4), (3, 4, 4)):
        with pytest.raises(ValueError, match="^z: got shape .*, expected RGB images"):
            MeanColour("red")(torch.zeros(shape))
    for colour in ("reddish", "", (1, 2, 3), (0.0, 0.0), (0.0, 0.0, float("nan")), None, 0.5, ("a", "b", "c")):
        with pytest.raises(ValueError, match=r"^colour: got .*, expected three numbers in \[-1, 1\], or a name"):
            MeanColour(colour)


def test_sparsity_is_minus_the_mean_distance_from_the_background():
    image = torch.tensor([[[[1.0, -1.0], [-0.5, -1.0]]]])
    assert Sparsity()(image).tolist() == pytest.approx([-(2.0 + 0.5) / 4])
    assert Sparsity(1)(image).tolist() == pytest.approx([-(2.0 + 1.5 + 2.0) / 4])
    assert Sparsity()(-torch.ones(1, 1, 4, 4)).tolist() == [0.0]
    assert Sparsity()(torch.ones(1, 3, 4, 4)).tolist() == [-2.0]
    empty = -torch.ones(1, 1, 2, 2, requires_grad=True)
    assert not torch.autograd.grad(Sparsity()(empty).sum(), empty)[0].any()
    for background in (float("nan"), float("inf"), "dark", None):
        with pytest.raises(ValueError, match="^background: got"):
            Sparsity(background)


@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 8, 8), (4, 8, 8)])
def test_contrast_refuses_what_is_no_image(shape):
    with pytest.raises(ValueError, match="^z: got shape"):
        Contrast()(torch.zeros(shape))


@pytest.mark.parametrize("reward", [Brightness(), Contrast(), MeanColour("teal"), Sparsity(), Symmetry()])
def test_gradients_are_those_of_the_formula(reward):
    images = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(reward, (images.requires_grad_(),))


@pytest.mark.parametrize("reward", [Brightness(), Contrast(), MeanColour("teal"), Sparsity(), Symmetry(), JPEGSize()])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tells_apart_what_single_precision_does(reward, dtype):
    images = (torch.rand((6, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1).to(dtype)
    assert torch.allclose(reward(images).double(), reward(images.float()).double(), rtol=1e-5, atol=1e-7)


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


def test_an_image_of_nan_is_no_simple_one():
    images = torch.zeros(3, 1, 8, 8)
    images[1, 0, 2, 3] = torch.nan
    assert JPEGSize()(images).isnan().tolist() == [False, True, False]


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


@pytest.mark.parametrize("quality", [0, 96, 50.5, "90"])
def test_jpeg_reward_refuses_a_quality_out_of_range(quality):
    with pytest.raises(ValueError, match=f"^quality: got {quality!r}"):
        JPEGSize(quality)
