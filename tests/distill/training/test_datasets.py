"""Batches of Datasets and of streams: their order, whoever fetches them, and items that are refused."""

import pytest
import torch

from torch.utils.data import IterableDataset, Subset, TensorDataset

import distill

from diamond.nets import ResidualMLP
from distill.training.batches import Batches

IMAGES = torch.arange(24.0).reshape(4, 1, 2, 3)
LABELLED = TensorDataset(IMAGES, torch.arange(4))
ROWS = TensorDataset(torch.arange(5.0)[:, None].expand(5, 3), torch.arange(5) % 4)


class Broken(TensorDataset):
    def __getitem__(self, i):
        if i == 3:
            raise ValueError("data: 3.png cannot be decoded, expected an image")
        return super().__getitem__(i)


class Stream(IterableDataset):
    def __init__(self, count, bad=None):
        self.count, self.bad = count, bad

    def __iter__(self):
        for i in range(self.count):
            yield torch.full((3,), float("nan") if i == self.bad else float(i)), i % 2


def listed(items):
    return Subset(items, range(len(items)))


def taken(batches, n=6, rows=slice(0, 6), blocks=range(5)):
    return [*batches.sequence(n, rows, lambda block: 100 + block, blocks)]


def equal(one, other):
    return len(one) == len(other) and all(all(map(torch.equal, *pair)) for pair in zip(one, other, strict=True))


def test_the_order_depends_on_the_seeds_alone():
    """Not on workers, on which block comes first, or on how the rows are shared out; nor on a Dataset for a tensor."""
    options = {"classes": 4, "label_dropout": 0.4, "flip": True}
    held = taken(Batches(IMAGES, torch.arange(4), **options))
    assert not equal(held[:1], held[1:2])
    batches = Batches(LABELLED, **options, workers=1)
    assert equal(held, taken(batches)) and equal(held, taken(Batches(LABELLED, **options)))
    assert equal(held[2:], taken(batches, blocks=range(2, 5)))
    halves = [taken(Batches(LABELLED, **options), rows=rows) for rows in (slice(0, 3), slice(3, 6))]
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

    for name, data in (("stream", Stream(7)), ("items", ROWS)):
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


def test_labels_beside_a_dataset_are_not_ignored():
    with pytest.raises(
        ValueError, match="labels: got some beside a TensorDataset, expected None: .* items of a Dataset hold"
    ):
        Batches(LABELLED, torch.arange(4), classes=4)


@pytest.mark.filterwarnings("error")
def test_a_stream_of_any_scale_raises_no_warning():
    """Of which one item alone was seen."""
    Batches(Stream(400), classes=2)


@pytest.mark.parametrize(
    "data, options, message",
    [
        (Stream(0), {}, "data: got a stream without samples"),
        (Stream(9, bad=0), {}, "data: got NaN"),
        (LABELLED, {"classes": 3}, "labels: got labels from 0 to 3"),
    ],
)
def test_data_that_cannot_be_used_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        taken(Batches(data, **options))


def test_a_bad_item_of_a_stream_stops_training():
    with pytest.raises(ValueError, match="data: got NaN or infinite entries"):
        distill.train_flow(Stream(9, bad=7), ResidualMLP((3,), 8, 1), steps=9, batch=4, progress=False)


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
        taken(Batches(listed(items)), n=20, rows=slice(0, 20))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_an_item_says_is_told_as_it_is(workers):
    """Without the trace of the worker that met it."""
    with pytest.raises(ValueError, match="^data: 3.png cannot be decoded, expected an image$"):
        taken(Batches(Broken(*ROWS.tensors), classes=4, workers=workers), n=20, rows=slice(0, 20))


def test_an_event_of_another_shape_than_the_first_is_refused_where_it_comes_alone():
    batches = Batches(listed([torch.zeros(2), torch.zeros(3)]))
    with pytest.raises(ValueError, match=r"data: got events of shape \(3,\), expected the first one's, \(2,\)"):
        taken(batches, n=1, rows=slice(0, 1), blocks=range(20))


def test_a_stream_shorter_than_asked_for_is_mirrored_and_loses_labels():
    """As it is where the usual network takes its mean and covariance."""

    class Short(IterableDataset):
        def __iter__(self):
            return iter([(image, i) for i, image in enumerate(IMAGES)])

    batches = Batches(Short(), classes=4, flip=True, label_dropout=0.5)
    z, labels = batches.draw(4096, torch.Generator().manual_seed(0))
    assert all(any(torch.equal(a, c) for c in (b, b.flip(-1))) for a, b in zip(z, IMAGES, strict=True))
    assert all(label in (i, 4) for i, label in enumerate(labels.tolist()))


@pytest.mark.filterwarnings("error")
def test_data_that_hang_on_what_made_them_are_cut_off():
    """Codes of an encoder, taken without `torch.no_grad()`: the second step once went through it anew."""
    codes = torch.nn.Linear(3, 2)(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    for data in (codes, listed([*codes])):
        flow = distill.train_flow(data, steps=3, batch=4, progress=False)
        assert not flow.net.mean.requires_grad
