"""The U-Net: any size of picture, what it sees, what it costs, and the paths that start silent."""

import pytest
import torch

from torch.utils.flop_counter import FlopCounterMode

from diamond.nets import UNet, deepen, grow


@pytest.mark.parametrize(
    ("shape", "patch", "multipliers"),
    [((1, 8, 8), 1, (1, 2)), ((3, 64, 64), 1, (1, 1, 2, 2)), ((1, 28, 28), 1, (1, 2, 2, 2)), ((1, 28, 28), 2, (1, 2, 3)),
     ((3, 7, 5), 1, (1, 2, 2)), ((4, 1, 1), 1, (1, 1)), ((2, 6, 9), 3, (1,))],
)  # fmt: skip
def test_every_size_of_picture_passes_with_its_forward_derivative(shape, patch, multipliers, sown, seeded, awake):
    net = awake(UNet(shape, 8, multipliers, patch=patch, states=1, times=3, embedding=8))
    x, state = torch.randn(2, 2, *shape, dtype=torch.float64, generator=seeded())
    t, s, r, outer = torch.rand(4, 2, dtype=torch.float64, generator=seeded(1)) * 0.9

    def call(x, r):
        return net(x, t, None, (state,), (s, r, outer))

    step = 1e-6
    found, slope = torch.func.jvp(call, (x, r), (state, torch.ones_like(r)))
    assert found.shape == x.shape
    expected = (call(x + step * state, r + step) - call(x - step * state, r - step)) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


def test_images_need_not_be_contiguous(sown, seeded, awake):
    net = awake(UNet((2, 4, 6), 8, (1, 2), embedding=8))
    x = torch.randn(3, 6, 4, 2, dtype=torch.float64, generator=seeded()).permute(0, 3, 2, 1)
    t = torch.full((), 0.3, dtype=torch.float64).expand(3)
    plain = net(x.contiguous(), t)
    torch.testing.assert_close(net(x, t), plain)
    torch.testing.assert_close(torch.func.jvp(lambda x: net(x, t), (x,), (x,))[0], plain)


@pytest.mark.parametrize(("multipliers", "attention", "everywhere"), [((1,), 0, False), ((1,), 16, True)])
def test_pixels_see_their_neighbours_and_with_attention_all(multipliers, attention, everywhere, sown, awake):
    net = awake(UNet((1, 16, 16), 8, multipliers, attention=attention, embedding=8))
    net.norm = torch.nn.Identity()  # a normalisation couples all pixels
    for block in (*net.pyramid.down, *net.pyramid.up):
        block.norm = block.second_norm = torch.nn.Identity()
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    seen = torch.autograd.grad(net(x, torch.full((1,), 0.4).double())[0, 0, 0, 0], x)[0][0, 0] != 0
    assert bool(seen[:6, :6].all())
    assert bool(seen[-1, -1]) == everywhere


def test_a_coarse_resolution_widens_the_view(sown, awake):
    def seen(multipliers):
        net = awake(UNet((1, 32, 32), 8, multipliers, attention=0, embedding=8))
        for module in net.modules():
            for name, child in module.named_children():
                if isinstance(child, torch.nn.GroupNorm):
                    setattr(module, name, torch.nn.Identity())
        x = torch.zeros(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
        return int((torch.autograd.grad(net(x, torch.full((1,), 0.4).double())[0, 0, 0, 0], x)[0] != 0).sum())

    assert 2 * seen((1,)) < seen((1, 1)) < seen((1, 1, 1))


def test_blocks_start_as_the_identity_and_the_output_at_zero(sown, seeded):
    net = UNet((3, 8, 8), 8, (1, 2), attention=8, embedding=8)
    x, t = torch.randn(2, 3, 8, 8, generator=seeded()), torch.rand(2, generator=seeded(1))
    hidden = torch.randn(2, 8, 8, 8, generator=seeded(2))
    for block in (*net.pyramid.down, *net.pyramid.up):
        assert torch.equal(block(hidden, torch.randn(2, 8, generator=seeded(3))), hidden)
    assert (net(x, t) == 0).all()


def test_gains_of_noise_are_of_the_pixel(sown, seeded, awake):
    """The gain is a function of the features: with the path of the output silent, F is the gain times the noise."""
    net = awake(UNet((1, 6, 6), 8, (1, 2), states=1, embedding=8))
    with torch.no_grad():
        net.leave.weight.zero_()
        net.leave.bias.zero_()
        net.enter_states.weight.zero_()
    x, one, other = torch.randn(3, 2, 1, 6, 6, dtype=torch.float64, generator=seeded())
    t = torch.rand(2, dtype=torch.float64, generator=seeded(1))
    gains = net(x, t, None, (one,)) / one
    torch.testing.assert_close(net(x, t, None, (other,)), gains * other)
    assert float(gains.detach().flatten(1).std(1).min()) > 0.01


def test_cost_at_the_size_of_a_digit(sown):
    """A patch of 2 keeps a map of 28 x 28 pixels below 50 million multiply-adds a sample, with over a million weights."""
    net = grow(UNet((1, 28, 28), 32, (1, 3, 4), classes=10, patch=2), states=1, times=3)
    x, t = torch.zeros(2, 1, 28, 28), torch.zeros(2)
    with FlopCounterMode(display=False) as counter:
        net(x, t, None, (x,), (t, t, t))
    assert counter.get_total_flops() / 2 / len(x) < 50e6
    assert 1e6 < sum(weights.numel() for weights in net.parameters()) < 2.5e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"event_shape": (28, 28)}, r"event_shape: got \(28, 28\), expected \(C, H, W\)"),
     ({"event_shape": (1, 7, 8), "patch": 2}, r"event_shape: got \(1, 7, 8\), expected .* multiples of patch=2"),
     ({"event_shape": (1, 8, 8), "patch": 0}, "patch: got 0, expected a whole number of at least 1"),
     ({"event_shape": (1, 8, 8), "width": 6}, "width: got 6, expected a multiple of 4"),
     ({"event_shape": (1, 8, 8), "multipliers": ()}, r"multipliers: got \(\), expected a whole number"),
     ({"event_shape": (1, 8, 8), "multipliers": (1, 0)}, r"multipliers: got \(1, 0\), expected a whole number")],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        UNet(**arguments)


def test_blocks_can_be_counted_for_each_resolution(sown, seeded, awake):
    few, many = (UNet((1, 8, 8), 8, (1, 2), blocks, embedding=8).double() for blocks in (1, (1, 3)))
    assert len(many.pyramid.down) == 1 and len(many.pyramid.inner.up) == 3
    awake(few)
    x, t = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=seeded()), torch.full((2,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(deepen(few, (1, 3))(x, t), few(x, t))
    with pytest.raises(ValueError, match="^blocks: got 0, expected a whole number, or one for each of 2 resolutions"):
        UNet((1, 8, 8), 8, (1, 2), 0)
