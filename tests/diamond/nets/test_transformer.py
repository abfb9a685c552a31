"""The transformer: what a patch sees, attention written out, and pictures of several sizes."""

import pytest
import torch

from diamond.nets import Transformer

CLASSES = 3


def test_without_attention_a_patch_sees_itself_alone(sown, awake):
    """Cuts the image into patches and puts each back in its place."""
    net = awake(Transformer((1, 4, 6), patch=2, width=8, depth=0, heads=2))
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = torch.full((1,), 0.4, dtype=torch.float64)
    slope = torch.autograd.grad(net(x, t)[0, 0, 2:4, 4:6].square().sum(), x)[0][0, 0]
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[2:4, 4:6] = True
    assert (slope[~inside] == 0).all()
    assert float(slope[inside].abs().min()) > 0


def test_attention_lets_every_patch_see_every_other(sown, awake):
    net = awake(Transformer((1, 4, 6), patch=2, width=8, depth=1, heads=2))
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    slope = torch.autograd.grad(net(x, torch.full((1,), 0.4).double())[0, 0, 2:4, 4:6].square().sum(), x)[0]
    assert float(slope.abs().min()) > 0


def test_written_out_attention_is_that_of_torch(sown, awake):
    block = awake(Transformer((1, 4, 4), patch=2, width=8, depth=1, heads=2)).blocks[0]
    tokens = torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query, key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in block.mix(tokens).chunk(3, dim=-1))
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(block._attend(tokens), block.merge(attended.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(("shape", "patch"), [((3, 64, 64), 8), ((1, 28, 28), 4), ((4, 32, 32), 4), ((16, 8, 8), 1)])
def test_a_transformer_takes_pictures_and_latents_with_their_forward_derivatives(shape, patch, sown, seeded, awake):
    net = awake(Transformer(shape, patch, width=16, depth=2, heads=2, classes=CLASSES, states=1, times=3))
    x, state, direction = torch.randn(3, 2, *shape, dtype=torch.float64, generator=seeded())
    t, s, r, outer = torch.rand(4, 2, dtype=torch.float64, generator=seeded(1)) * 0.8 + 0.1
    cond, step = torch.tensor([0, CLASSES]), 1e-6

    def call(x, r):
        return net(x, t, cond, (state,), (s, r, outer))

    found, slope = torch.func.jvp(call, (x, r), (direction, torch.ones_like(r)))
    assert found.shape == x.shape
    expected = (call(x + step * direction, r + step) - call(x - step * direction, r - step)) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)
