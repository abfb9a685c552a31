"""The aesthetic reward, against its definition; and its head."""

import pytest
import torch

from safetensors.torch import save_file

from align.rewards import LAIONAesthetic
from align.rewards.pretrained.head import head_from


@pytest.fixture
def head_file(head, tmp_path):
    path = tmp_path / "head.safetensors"
    save_file({f"layers.{name}": tensor for name, tensor in head.state_dict().items()}, path)
    return path


@pytest.fixture
def made(clip_folder, head_file):
    return lambda **settings: LAIONAesthetic(clip_folder, head=head_file, local_files_only=True, **settings)


def test_it_is_the_head_on_the_unit_vector(made, clip, head, images, pictures, image_processor):
    x = images()
    pixels = torch.stack(
        [torch.as_tensor(image_processor(p, return_tensors="pt")["pixel_values"][0]) for p in pictures(x)]
    )
    with torch.no_grad():
        vectors = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)
        expected = head(vectors / vectors.norm(dim=-1, keepdim=True)).squeeze(-1)
    found = made()(x)
    assert found.dtype == torch.float32 and float(found.std()) > 1e-3
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_it_needs_no_prompt_and_takes_part_in_sums(made, images):
    x = images().requires_grad_()
    reward = made(chunk=2, checkpoint=True)
    assert torch.allclose((2 * reward)(x, ["a cat"] * 4), 2 * made()(x), rtol=0, atol=1e-6)
    (slope,) = torch.autograd.grad(reward(x).sum(), x)
    (expected,) = torch.autograd.grad(made()(x).sum(), x)
    assert torch.allclose(slope, expected, rtol=1e-4, atol=1e-8) and slope.ne(0).any()


def test_its_gradient_is_that_of_differences(made, images, seeded):
    x = images(2, 33, 28, dtype=torch.float64).mul(0.9).requires_grad_()
    reward = made(dtype=torch.float64)
    (slope,) = torch.autograd.grad(reward(x).sum(), x)
    way = torch.randn(x.shape, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (reward(x + step * way).sum() for step in (1e-6, -1e-6))
    assert float((slope * way).sum()) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-5)


def test_half_precision(made, images):
    found = made(dtype=torch.bfloat16)(images())
    assert found.dtype == torch.float32 and torch.allclose(found, made()(images()), rtol=0.05, atol=0.05)


def test_a_head_among_other_tensors_is_found(clip, head, clip_folder, made, images, tmp_path):
    state = {f"model.layers.{name}": tensor for name, tensor in head.state_dict().items()}
    state |= {f"model.vision_model.{name}": tensor for name, tensor in clip.vision_model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    found = LAIONAesthetic(clip_folder, head=tmp_path, local_files_only=True)
    assert torch.equal(found(images()), made()(images()))


def test_other_heads_are_refused(head, clip_folder, tmp_path):
    plain = head.state_dict()
    other = {name.replace("2.", "3.").replace("4.", "6."): tensor for name, tensor in plain.items()}  # with activations
    for state in ({}, other, plain | {"8.weight": torch.zeros(1)}):
        with pytest.raises(
            ValueError, match=r"^odd: got a head of .*, expected linear layers N.weight and .bias, N = 0, 2, 4"
        ):
            head_from(state, "", "odd")
    with pytest.raises(ValueError, match="^odd: its head's layers do not fit"):
        head_from(plain | {"2.bias": torch.zeros(5)}, "", "odd")
    path = tmp_path / "wide.safetensors"
    wide = {**plain, "0.weight": torch.zeros(16, 40)}
    save_file({f"layers.{name}": tensor for name, tensor in wide.items()}, path)
    with pytest.raises(ValueError, match="^head: got one for vectors of 40 numbers and a model that gives 32"):
        LAIONAesthetic(clip_folder, head=path, local_files_only=True)
    with pytest.raises(FileNotFoundError, match="^nobody/head: there is no such folder"):
        LAIONAesthetic(clip_folder, head="nobody/head", local_files_only=True)
