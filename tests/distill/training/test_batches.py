"""Batches of data in memory: their law, labels left out and images mirrored at the stated rates, and what is refused."""

import pytest
import torch

from torch.utils.data import TensorDataset

import distill

from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP
from distill.training.batches import Batches

IMAGES = torch.arange(24.0).reshape(4, 1, 2, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def within(rate, expected, n, zscore=4.5):
    return abs(rate - expected) < zscore * (expected * (1 - expected) / n) ** 0.5


def test_labels_are_dropped_at_the_stated_rate_and_kept_with_their_sample_otherwise():
    n, labels = 40_000, torch.arange(4)
    z, cond = Batches(IMAGES, labels, 4, label_dropout=0.3).draw(n, generator())
    dropped = cond == 4
    assert within(float(dropped.float().mean()), 0.3, n)
    source = (z[:, 0, 0, 0] / 6).long()  # the first entry of image i is 6 i
    assert torch.equal(cond[~dropped], source[~dropped])
    counts = torch.bincount(source[dropped], minlength=4)  # whichever its class
    assert all(within(float(count) / n, 0.3 / 4, n) for count in counts)


def test_images_are_mirrored_one_half_of_the_time():
    n = 20_000
    z, _ = Batches(IMAGES, flip=True).draw(n, generator(1))
    rising = z[:, 0, 0, 0] < z[:, 0, 0, 2]
    assert within(float(rising.float().mean()), 0.5, n)
    straight = torch.where(rising.view(-1, 1, 1, 1), z, z.flip(-1))
    assert torch.equal(straight, IMAGES[(straight[:, 0, 0, 0] / 6).long()])


def test_options_left_out_draw_nothing():
    """Neither dropout nor flips move the numbers that come after them, unless they are asked for."""
    plain, other = generator(2), generator(2)
    one = Batches(IMAGES, torch.arange(4), 4).draw(8, plain)
    index = torch.randint(4, (8,), generator=other)
    assert torch.equal(one[0], IMAGES[index]) and torch.equal(one[1], index)
    assert torch.equal(torch.rand(3, generator=plain), torch.rand(3, generator=other))


def test_the_network_without_a_label_learns_the_unconditional_mean():
    """Data at 1 for class 1 and at -1 for class 0: with dropout, "no label" means the mean of both, at all noise."""
    data = torch.tensor([[-1.0], [1.0]]).repeat(8, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResidualMLP((1,), width=32, depth=1, classes=2)
    labels = torch.arange(2).repeat(8)
    flow = distill.train_flow(
        data, net, labels=labels, label_dropout=0.5, steps=300, batch=128, learning_rate=5e-3, ema=0.9, progress=False
    )
    x = torch.zeros(3, 1)
    means = flow.denoise(x, 0.25, cond=torch.tensor([0, 1, 2])).detach().flatten()
    assert means.tolist() == pytest.approx([-1, 1, 0], abs=0.2)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((IMAGES, torch.arange(4), 4), {"label_dropout": 1.0}, "label_dropout: got 1.0"),
        ((IMAGES,), {"label_dropout": 0.1}, "label_dropout: got 0.1, but the network was made without classes"),
        ((IMAGES.flatten(1),), {"flip": True}, r"flip: got True for events of shape \(6,\)"),
        ((IMAGES, torch.arange(4), 3), {}, "labels: got labels from 0 to 3, expected whole numbers from 0 to 2"),
        ((IMAGES, torch.arange(4) - 1, 4), {}, "labels: got labels from -1 to 2"),
        ((IMAGES, torch.arange(4.0), 4), {}, "labels: got torch.float32, expected whole numbers"),
        ((IMAGES[:1],), {}, "data: got one sample, expected at least two"),
        ((IMAGES,), {"workers": 2}, "workers: got 2 for data that are in memory"),
        ((IMAGES,), {"workers": -1}, "workers: got -1"),
        ((IMAGES, torch.arange(5), 4), {}, r"labels: got shape \(5,\), expected \(4,\)"),
        ((IMAGES, None, 4), {}, "labels: got None"),
        ((IMAGES, [0, 1, 2, 3], 4), {}, "labels: got list, expected whole numbers"),
        ((IMAGES, torch.arange(4)), {}, "labels: got some beside a network made without .*; make it with classes=4"),
        ((IMAGES, torch.arange(4.0)), {}, "labels: got torch.float32, expected a tensor"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        Batches(*arguments, **options)


def test_bytes_are_refused_with_what_to_make_of_them():
    images = IMAGES.to(torch.uint8)
    with pytest.raises(ValueError, match=r"got torch.uint8 .*, images as images.float\(\) / 127.5 - 1"):
        Batches(images)
    Batches(images.float() / 127.5 - 1)
    with pytest.raises(ValueError, match=r"got torch.int64 .*, expected a floating tensor \(N, \*event\)$"):
        Batches(images.long())


def test_pixels_of_floating_numbers_up_to_255_are_warned_of_once():
    """The trainer's user is told, at the line of the call; data of a few units' scale are not warned of."""
    pixels = IMAGES * 11  # from 0 to 253
    with pytest.warns(
        UserWarning, match=r"data: got entries from 0 to 253 of standard deviation 76.1, .* / 127.5 - 1$"
    ) as told:
        distill.train_flow(pixels, ResidualMLP((1, 2, 3), 8, 1), steps=3, batch=4, progress=False)
    assert [warning.filename for warning in told] == [__file__]
    with pytest.warns(UserWarning, match="data: got entries from 0 to 55 of"):
        Batches(TensorDataset(pixels))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale, moved", [(1.0, 0.0), (2 / 255, -1.0), (0.0, 1e30), (-0.8, 0.0)])
def test_data_near_the_scale_of_noise_raise_no_warning(scale, moved):
    """Neither do those all alike, nor exact models, of any scale."""
    Batches(IMAGES * scale + moved)
    Batches(GaussianMixtureFlow(torch.ones(1), torch.full((1, 2), 300.0), torch.full((1,), 1e4)))
    Batches(TensorDataset(torch.full((4, 1), 300.0)))


def test_a_mixture_has_no_labels():
    mixture = GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1))
    with pytest.raises(ValueError, match="a mixture, which has no labels"):
        Batches(mixture, classes=3)
    with pytest.raises(ValueError, match="labels: got some beside a GaussianMixtureFlow, expected None"):
        Batches(mixture, torch.arange(4), classes=4)


def test_labels_of_a_narrow_type_hold_the_label_of_none():
    labels = torch.arange(4, dtype=torch.uint8) + 252
    _, drawn = Batches(IMAGES, labels, classes=256, label_dropout=0.5).draw(64, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {252, 253, 254, 255, 256}
