"""Batches: their law, labels left out and images mirrored at the stated rates, and data that are refused."""

import pytest
import torch

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
        Batches(Shown(pixels))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale, moved", [(1.0, 0.0), (2 / 255, -1.0), (0.0, 1e30), (-0.8, 0.0)])
def test_data_near_the_scale_of_noise_raise_no_warning(scale, moved):
    """Neither do those all alike, nor exact models and streams, of any scale."""
    Batches(IMAGES * scale + moved)
    Batches(GaussianMixtureFlow(torch.ones(1), torch.full((1, 2), 300.0), torch.full((1,), 1e4)))
    Batches(Stream(400), classes=2)
    Batches(Shown(torch.full((4, 1), 300.0)))


def test_a_mixture_has_no_labels():
    mixture = GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1))
    with pytest.raises(ValueError, match="a mixture, which has no labels"):
        Batches(mixture, classes=3)
    with pytest.raises(ValueError, match="labels: got some beside a GaussianMixtureFlow, expected None"):
        Batches(mixture, torch.arange(4), classes=4)


def test_labels_beside_a_dataset_are_not_ignored():
    with pytest.raises(ValueError, match="labels: got some beside a Items, expected None: .* items of a Dataset hold"):
        Batches(Items(), torch.arange(4), classes=4)


class Items(torch.utils.data.Dataset):
    """Item i is an image of entries from 6 i on, with label i."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        return IMAGES[i], i


class Shown(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return torch.full((3,), float(i)), i % 4


class Broken(Pairs):
    def __getitem__(self, i):
        if i == 3:
            raise ValueError("data: 3.png cannot be decoded, expected an image")
        return super().__getitem__(i)


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, count, bad=None):
        self.count, self.bad = count, bad

    def __iter__(self):
        for i in range(self.count):
            yield torch.full((3,), float("nan") if i == self.bad else float(i)), i % 2


def taken(batches, n=6, rows=slice(0, 6), blocks=range(5)):
    return [*batches.sequence(n, rows, lambda block: 100 + block, blocks)]


def equal(one, other):
    return len(one) == len(other) and all(all(map(torch.equal, *pair)) for pair in zip(one, other, strict=True))


def test_the_order_depends_on_the_seeds_alone():
    """Not on workers, on which block comes first, or on how the rows are shared out; nor on a Dataset for a tensor."""
    options = {"classes": 4, "label_dropout": 0.4, "flip": True}
    held = taken(Batches(IMAGES, torch.arange(4), **options))
    assert not equal(held[:1], held[1:2])
    batches = Batches(Items(), **options, workers=1)
    assert equal(held, taken(batches)) and equal(held, taken(Batches(Items(), **options)))
    assert equal(held[2:], taken(batches, blocks=range(2, 5)))
    halves = [taken(Batches(Items(), **options), rows=rows) for rows in (slice(0, 3), slice(3, 6))]
    joined = [tuple(map(torch.cat, zip(*both, strict=True))) for both in zip(*halves, strict=True)]
    assert equal(held, joined)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_is_read_in_its_order_and_begins_again(workers):
    """Batches of 6 from a stream of 8: nothing is left out at its end."""
    batches = Batches(Stream(8), classes=2, workers=workers)
    z, labels = map(torch.cat, zip(*taken(batches), strict=True))
    assert torch.equal(z[:, 0], torch.arange(30.0) % 8) and torch.equal(labels, torch.arange(30) % 8 % 2)
    resumed = torch.cat([z for z, _ in taken(batches, blocks=range(3, 5), rows=slice(2, 6))])
    assert torch.equal(resumed[:, 0], torch.cat([torch.arange(20.0, 24), torch.arange(26.0, 30)]) % 8)


def test_training_from_a_stream_or_with_workers_resumes_exactly(tmp_path, monkeypatch):
    from distill.objectives import FlowObjective

    def run(data, out, workers=1):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = ResidualMLP((3,), 8, 1, classes=4)
        return distill.train_flow(data, net, steps=6, batch=4, out=out, progress=False, workers=workers)

    call, count = FlowObjective.__call__, []

    def stops(self, *arguments):
        count.append(None)
        if len(count) == 4:
            raise KeyboardInterrupt
        return call(self, *arguments)

    for name, data in (("stream", Stream(7)), ("items", Pairs())):
        before = torch.get_rng_state()
        whole = run(data, tmp_path / f"{name}.whole", workers=0)  # on which nothing depends
        count.clear()
        with monkeypatch.context() as patch:
            patch.setattr(FlowObjective, "__call__", stops)
            with pytest.raises(KeyboardInterrupt):
                run(data, tmp_path / name)
        resumed = run(data, tmp_path / name)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


@pytest.mark.parametrize(
    "data, options, message",
    [
        (IMAGES[:1], {}, "data: got one sample, expected at least two"),
        (IMAGES, {"workers": 2}, "workers: got 2 for data that are in memory"),
        (IMAGES, {"workers": -1}, "workers: got -1"),
        (Stream(0), {}, "data: got a stream without samples"),
        (Stream(9, bad=0), {}, "data: got NaN"),
        (Items(), {"classes": 3}, "labels: got labels from 0 to 3"),
    ],
)
def test_data_that_cannot_be_used_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        taken(Batches(data, **options))


def test_a_bad_item_of_a_stream_stops_training():
    with pytest.raises(ValueError, match="data: got NaN or infinite entries"):
        distill.train_flow(Stream(9, bad=7), ResidualMLP((3,), 8, 1), steps=9, batch=4, progress=False)


class Listed(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize(
    "items, message",
    [
        (
            [torch.zeros(2), torch.zeros(3)],
            r"data: its items make no batch \(stack expects .*\), expected events of one shape",
        ),
        ([None, None], r"data: its items make no batch \(.*NoneType.*\), expected events"),
        (["one", "two"], "data: got items that make a str, expected tensors, or pairs"),
        ([{"z": torch.zeros(2)}] * 2, "data: got items that make a dict, expected tensors, or pairs"),
    ],
)
def test_items_that_make_no_batch_are_named(items, message):
    with pytest.raises(ValueError, match=message):
        taken(Batches(Listed(items)), n=20, rows=slice(0, 20))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_an_item_says_is_told_as_it_is(workers):
    """Without the trace of the worker that met it."""
    with pytest.raises(ValueError, match="^data: 3.png cannot be decoded, expected an image$"):
        taken(Batches(Broken(), classes=4, workers=workers), n=20, rows=slice(0, 20))


def test_an_event_of_another_shape_than_the_first_is_refused_where_it_comes_alone():
    batches = Batches(Listed([torch.zeros(2), torch.zeros(3)]))
    with pytest.raises(ValueError, match=r"data: got events of shape \(3,\), expected the first one's, \(2,\)"):
        taken(batches, n=1, rows=slice(0, 1), blocks=range(20))


def test_a_stream_shorter_than_asked_for_is_mirrored_and_loses_labels():
    """As it is where the usual network takes its mean and covariance."""

    class Short(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(image, i) for i, image in enumerate(IMAGES)])

    batches = Batches(Short(), classes=4, flip=True, label_dropout=0.5)
    z, labels = batches.draw(4096, torch.Generator().manual_seed(0))
    assert all(any(torch.equal(a, c) for c in (b, b.flip(-1))) for a, b in zip(z, IMAGES, strict=True))
    assert all(label in (i, 4) for i, label in enumerate(labels.tolist()))


def test_data_that_hang_on_what_made_them_are_cut_off():
    """Codes of an encoder, taken without `torch.no_grad()`: the second step once went through it anew."""
    codes = torch.nn.Linear(3, 2)(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    for data in (codes, Listed([*codes])):
        flow = distill.train_flow(data, steps=3, batch=4, progress=False)
        assert not flow.net.mean.requires_grad


def test_labels_of_a_narrow_type_hold_the_label_of_none():
    labels = torch.arange(4, dtype=torch.uint8) + 252
    _, drawn = Batches(IMAGES, labels, classes=256, label_dropout=0.5).draw(64, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {252, 253, 254, 255, 256}
