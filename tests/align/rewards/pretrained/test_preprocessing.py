"""Preprocessing with a derivative, against the processors that work on files.

Those round to whole levels after each pass of a resize. A first pass along the rows is off by half a level at most, which
the second one multiplies by no more than the largest sum of its weights' sizes, and rounds again by half a level.
"""

import numpy
import pytest
import torch
import transformers

from PIL import Image
from torch.nn.functional import interpolate

from align.rewards.pretrained.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing

CLIPProcessor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
BLIPProcessor = getattr(transformers, "BlipImageProcessorPil", transformers.BlipImageProcessor)

SIZES = [(24, 24), (64, 48), (31, 77), (17, 9), (10, 13), (24, 51), (24, 25), (200, 133), (8, 96)]


def levels_off(found, expected, std=CLIP_STD):
    """The largest difference of two preprocessed batches, in levels of 255."""
    return float((found - expected).abs().mul(torch.tensor(std)[:, None, None] * 255).max())


def reference(processor, pictures):
    return torch.stack([torch.as_tensor(processor(p, return_tensors="pt")["pixel_values"][0]) for p in pictures])


def rounding(rows, out):
    """The most that rounding explains, in levels, where the second pass takes `rows` to `out`."""
    if rows == out:
        return 0.51
    weights = interpolate(torch.eye(rows)[None, None], (out, rows), mode="bicubic", antialias=True)[0, 0]
    return 0.5 * float(weights.abs().sum(1).max()) + 0.51  # and a hundredth for Pillow's whole-number weights


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["mixed", "noise"])
def test_a_resize_of_the_shorter_side_and_a_crop_are_clips(size, kind, images, pictures):
    x = images(2, *size)
    if kind == "noise":  # overshoots everywhere
        generator = torch.Generator().manual_seed(1)
        x = torch.randint(0, 2, x.shape, generator=generator).float() * 2 - 1
    processor = CLIPProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    found = Preprocessing.from_config(processor.to_dict())(x)
    shorter_out = int(24 * size[0] / min(size))
    assert found.shape == (2, 3, 24, 24)
    assert levels_off(found, reference(processor, pictures(x))) <= rounding(size[0], shorter_out)


@pytest.mark.parametrize("size", SIZES)
def test_a_resize_of_both_sides_is_blips(size, images, pictures):
    x = images(2, *size)
    processor = BLIPProcessor(size={"height": 20, "width": 20})
    found = Preprocessing.from_config(processor.to_dict())(x)
    assert levels_off(found, reference(processor, pictures(x))) <= rounding(size[0], 20)


@pytest.mark.parametrize("size", SIZES)
def test_rounding_is_all_that_is_left(size, images):
    """Pillow's resize of floating-point numbers, pass by pass with the cut-off of levels, is ours."""
    x = images(1, *size)
    found = Preprocessing(30, 22, "stretch", mean=(0, 0, 0), std=(1, 1, 1))(x)[0]
    for channel, ours in zip((x[0] + 1) / 2, found, strict=True):
        for across, down in ((22, size[0]), (22, 30)):
            picture = Image.fromarray(channel.numpy()).resize((across, down), Image.Resampling.BICUBIC)
            channel = torch.from_numpy(numpy.array(picture)).clamp(0, 1)
        assert torch.allclose(ours, channel, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 24), (48, 20), (13, 40), (200, 20)])
def test_padding_fits_the_whole_image_in(size, images, pictures):
    x = images(1, *size)
    scale = 24 / max(size)
    rows, columns = (max(round(side * scale), 1) for side in size)
    black = Image.new("RGB", (24, 24))
    black.paste(
        pictures(x)[0].resize((columns, rows), Image.Resampling.BICUBIC), ((24 - columns) // 2, (24 - rows) // 2)
    )
    expected = reference(CLIPProcessor(do_resize=False, do_center_crop=False), [black])
    found = Preprocessing(24, 24, "pad")(x)
    assert levels_off(found, expected) <= rounding(size[0], rows)


def test_it_is_transformers_own_bilinear_as_well(images, pictures):
    x = images(1, 50, 37)
    processor = CLIPProcessor(size={"shortest_edge": 24}, crop_size={"height": 20, "width": 24}, resample=2)
    found = Preprocessing.from_config(processor.to_dict())(x)
    assert found.shape == (1, 3, 20, 24)
    assert levels_off(found, reference(processor, pictures(x))) <= 1.01


def test_an_image_of_the_right_size_is_only_normalised(images):
    x = images(1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    assert torch.allclose(Preprocessing(24, 24)(x), ((x + 1) / 2 - mean) / std, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_its_derivative_is_that_of_differences(fit):
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(1, 3, 5, 7, generator=generator, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(Preprocessing(4, 4, fit), (x,), atol=1e-8)


def test_half_precision_is_computed_in_single(images):
    x = images(1, 40, 40, dtype=torch.bfloat16)
    assert torch.equal(Preprocessing(24, 24)(x), Preprocessing(24, 24)(x.float()))
    assert Preprocessing(24, 24)(x.double()).dtype == torch.float64


def test_what_lies_outside_is_cut_off_as_in_a_file():
    x = torch.tensor([-3.0, -1.0, 0.5, 1.0, 1.2]).repeat(1, 3, 5, 1).requires_grad_()
    out = Preprocessing(5, 5)(x)
    assert torch.allclose(out[..., [0, 4]], out[..., [1, 3]], rtol=0, atol=3e-5)
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert slope.ne(0)[0, 0, 0].tolist() == [False, True, True, True, False]


def test_white_and_black_have_a_gradient():
    x = torch.cat([torch.ones(1, 3, 50, 20), -torch.ones(1, 3, 50, 30)], -1).requires_grad_()
    (slope,) = torch.autograd.grad(Preprocessing(24, 24)(x)[..., 2:-2].sum(), x)
    assert slope[..., :5].ne(0).float().mean() > 0.5 and slope[..., -5:].ne(0).float().mean() > 0.5


def test_configurations_that_mean_the_same():
    expected = Preprocessing(24, 24, "crop", 24)
    for config in (
        {"size": 24, "crop_size": 24},
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True},
        {"size": 24, "do_center_crop": True, "resample": 3, "image_mean": list(CLIP_MEAN)},
    ):
        assert Preprocessing.from_config(config) == expected
    plain = Preprocessing.from_config({"size": {"height": 8, "width": 9}, "do_normalize": False})
    assert plain == Preprocessing(8, 9, "stretch", mean=(0, 0, 0), std=(1, 1, 1))


def test_what_does_not_fit_is_refused():
    for config in ({"size": {"longest_edge": 9}}, {"resample": 1}, {"do_resize": False}, {"size": "large"}):
        with pytest.raises(ValueError, match="^preprocessor: got .*, expected lengths of sides"):
            Preprocessing.from_config(config)
    for settings, message in (
        ({"height": 0}, "height: got 0"),
        ({"fit": "cover"}, "fit: got 'cover', expected one of crop, pad, stretch"),
        ({"resample": "lanczos"}, "resample: got 'lanczos', expected one of bilinear, bicubic"),
        ({"shorter": 5}, "shorter: got 5, expected at least the crop's 8"),
        ({"width": 9, "fit": "pad"}, "height, width: got 8 and 9, expected a square"),
        ({"std": (1, 0, 1)}, "mean, std: got"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            Preprocessing(**{"height": 8, "width": 8} | settings)
