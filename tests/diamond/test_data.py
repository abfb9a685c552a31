"""Data sets by name: their shapes, ranges and splits, and what is refused."""

import struct
import subprocess
import sys

from pathlib import Path

import numpy as np
import pytest
import torch

from diamond.data import Data, load_data


def test_digits_are_all_of_them_split_once_for_all():
    train, held_out = load_data("digits"), load_data("digits", split="held-out")
    assert train.images.shape == (1500, 1, 8, 8) and held_out.images.shape == (297, 1, 8, 8)
    assert train.labels.shape == (1500,) and held_out.labels.shape == (297,)
    assert train.images.dtype == torch.float32 and train.labels.dtype == torch.int64
    images = torch.cat([train.images, held_out.images])
    assert float(images.min()) == -1 and float(images.max()) == 1
    assert bool((images * 8 == (images * 8).round()).all())  # sixteen greys and white
    assert train.name == "digits" and train.classes == 10 and held_out.classes == 10
    again = load_data("digits")
    assert torch.equal(train.images, again.images) and torch.equal(train.labels, again.labels)
    from sklearn.datasets import load_digits

    whole = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    assert len(torch.unique(whole, dim=0)) == len(torch.unique(images, dim=0))
    assert torch.equal(whole.sum(0), images.sum(0))


def test_loading_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    load_data("digits")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_name_that_is_none_is_refused(name):
    """The empty one was the current folder's."""
    with pytest.raises(
        ValueError, match=f"data: got {name!r}, expected one of digits, .*, or the path of a file or folder"
    ):
        load_data(name)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of digits, mnist, fashion-mnist, cifar10, a path that ends in"):
        load_data("cifar")
    with pytest.raises(ValueError, match="split: got 'test', expected one of train, held-out"):
        load_data("digits", split="test")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_data(tmp_path / "nowhere.npz")


def test_a_part_refuses_labels_that_do_not_fit():
    images = torch.zeros(3, 1, 2, 2)
    with pytest.raises(ValueError, match=r"labels: mine has \(2,\) of them, expected \(3,\)"):
        Data(images, torch.zeros(2, dtype=torch.long), "mine")
    for labels in ([0, 1, 2], [-1, 0, 0]):
        with pytest.raises(
            ValueError, match=f"labels from {min(labels)} to {max(labels)}, expected classes from 0 to 1"
        ):
            Data(images, torch.tensor(labels), "mine", ("a", "b"))
    assert Data(images, torch.tensor([0, 1, 4]), "mine").classes == 5


def test_images_of_another_size(tmp_path):
    assert load_data("digits", size=4).images.shape == (1500, 1, 4, 4)
    np.savez(tmp_path / "ramp.npz", images=np.linspace(-1, 1, 8).repeat(16).reshape(8, 2, 8).transpose(1, 2, 0))
    part = load_data(tmp_path / "ramp.npz", size=4)
    means = torch.linspace(-1, 1, 8).reshape(4, 2).mean(1)[1:3]  # of pairs of pixels, away from the border
    assert torch.allclose(part.images[0, 0, :, 1:3], means.expand(4, 2), atol=1e-6)
    images = np.full((10, 3, 8), -1.0)
    images[:, :, 2:5] = np.linspace(-1, 1, 9).reshape(3, 3)  # the centre, rounded as torchvision does
    np.savez(tmp_path / "a.npz", images=images)
    square = load_data(tmp_path / "a.npz", size=3).images
    assert torch.allclose(square, torch.linspace(-1, 1, 9).reshape(3, 3).expand(9, 1, 3, 3))
    with pytest.raises(ValueError, match="size: got 0, expected a whole number of at least 1"):
        load_data("digits", size=0)


def write_idx(path, array):
    """The format of MNIST's files: a big-endian header, then bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_torchvision_data_sets_that_are_there(name, folder, tmp_path):
    for part, count in (("train", 6), ("t10k", 4)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 256
        write_idx(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", np.arange(count))
    train, held_out = load_data(name, root=tmp_path), load_data(name, split="held-out", root=tmp_path)
    assert train.images.shape == (6, 1, 28, 28) and held_out.images.shape == (4, 1, 28, 28)
    assert train.images.dtype == torch.float32 and train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert float(train.images.min()) == -1 and float(train.images.max()) == 1


def test_a_download_that_fails_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", [(tmp_path / "no_mirror").as_uri() + "/"])
    with pytest.raises(FileNotFoundError) as caught:
        load_data("mnist", root=tmp_path / "root")
    assert "'mnist' is not in the folder" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_missing_files_are_fetched(tmp_path, monkeypatch):
    from torchvision.datasets import mnist

    def fetch(url, download_root, filename, md5):
        part = 4 if "t10k" in filename else 6
        array = np.zeros((part, 28, 28)) if "images" in filename else np.arange(part)
        write_idx(Path(download_root) / filename.removesuffix(".gz"), array)

    monkeypatch.setattr(mnist, "download_and_extract_archive", fetch)
    assert load_data("mnist", root=tmp_path / "root").images.shape == (6, 1, 28, 28)
    monkeypatch.setattr(mnist, "download_and_extract_archive", None)  # what is there is not fetched again
    assert load_data("mnist", split="held-out", root=tmp_path / "root").images.shape == (4, 1, 28, 28)


def colours(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def test_cifar10_from_a_staged_file(tmp_path):
    train, test = colours(12), colours(5, seed=1)
    names = np.array(["airplane", "automobile", "bird", *"defghij"])
    labels = {"train_labels": np.arange(12, dtype=np.uint8) % 10, "test_labels": np.arange(5, dtype=np.uint8)}
    np.savez(tmp_path / "cifar10.npz", train_images=train, test_images=test, class_names=names, **labels)
    for split, images in (("train", train), ("held-out", test)):
        part = load_data("cifar10", split=split, root=tmp_path)
        assert torch.equal(part.images, torch.from_numpy(images).float() / 127.5 - 1)
        assert part.name == "cifar10" and part.classes == 10 and part.class_names[:3] == tuple(names[:3])
        assert part.labels.tolist() == [i % 10 for i in range(len(images))]


def test_cifar10_as_torchvision_gives_it(tmp_path, monkeypatch):
    from torchvision import datasets

    class Downloaded:
        classes = [*"abcdefghij"]

        def __init__(self, root, train, download):
            self.data = np.ascontiguousarray(colours(4, seed=int(train)).transpose(0, 2, 3, 1))
            self.targets = [3, 1, 4, 1]

    monkeypatch.setattr(datasets, "CIFAR10", Downloaded)
    part = load_data("cifar10", root=tmp_path)
    assert torch.equal(part.images, torch.from_numpy(colours(4, seed=1)).float() / 127.5 - 1)
    assert part.labels.tolist() == [3, 1, 4, 1] and part.class_names == tuple("abcdefghij")


def test_data_show_in_one_line():
    assert repr(load_data("digits")) == "Data(digits, 1500 images of shape (1, 8, 8), 10 classes)"
    assert repr(Data(torch.zeros(3, 1, 2, 2), None, "none")) == "Data(none, 3 images of shape (1, 2, 2), no labels)"


PUBLIC = """
import sys
import diamond
assert "load_data" in diamond.__all__ and "load_data" in dir(diamond)
assert not {"torch", "numpy", "torchvision"} & set(sys.modules)
from diamond.data import load_data
assert diamond.load_data is load_data
assert "torchvision" not in sys.modules
"""


def test_loading_is_public_and_costs_nothing_until_it_is_asked_for():
    subprocess.run([sys.executable, "-c", PUBLIC], check=True)
