"""Files of arrays: what is in them comes out, in their own split or ours, and what is wrong with them is said."""

import zipfile

import numpy as np
import pytest
import torch

from diamond.data import SPLITS, load_data


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.dtype(">f4"), np.longdouble])
@pytest.mark.parametrize("shape", [(40, 5, 6), (40, 1, 5, 6), (40, 3, 5, 6)])
def test_a_file_of_arrays(dtype, shape, tmp_path):
    bytes_ = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = bytes_ if dtype == np.uint8 else (bytes_ / 127.5 - 1).astype(dtype)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40, dtype=np.int32) % 7)
    train, held_out = load_data(tmp_path / "a.npz"), load_data(str(tmp_path / "a.npz"), split="held-out")
    channels = shape[1] if len(shape) == 4 else 1
    assert train.images.shape == (36, channels, 5, 6) and held_out.images.shape == (4, channels, 5, 6)
    assert train.images.dtype == torch.float32 and train.labels.dtype == torch.int64 and train.classes == 7
    expected = torch.from_numpy(bytes_ / 127.5 - 1).float().reshape(40, channels, 5, 6)
    both = torch.cat([train.images, held_out.images])
    for part in (train, held_out):  # rows and labels stay together, and in order
        places = [int((expected - image).flatten(1).abs().amax(1).argmin()) for image in part.images]
        assert torch.allclose(part.images, expected[places], atol=1e-6)
        assert places == sorted(places) and part.labels.tolist() == [place % 7 for place in places]
    assert len(torch.unique(both, dim=0)) == 40


def test_a_file_without_labels(tmp_path):
    np.savez_compressed(tmp_path / "a.NPZ.npz", images=np.zeros((2, 3, 3)))
    data = load_data(tmp_path / "a.NPZ.npz")
    assert data.labels is None and data.classes == 0 and len(data.images) == 1


WRONG = {
    "other": ({"pictures": np.zeros(3)}, "holds pictures, expected an array 'images'"),
    "nothing": ({}, "holds nothing, expected an array 'images'"),
    "shape": ({"images": np.zeros((4, 3))}, "shape (4, 3), expected (N, C, H, W) or (N, H, W)"),
    "one": ({"images": np.zeros((1, 3, 3))}, "N at least 2"),
    "hollow": ({"images": np.zeros((4, 0, 3))}, "shape (4, 0, 3)"),
    "whole": ({"images": np.zeros((4, 3, 3), dtype=np.int64)}, "dtype int64, expected uint8"),
    "range": ({"images": np.full((4, 3, 3), 7.0)}, "entries from 7 to 7"),
    "nan": ({"images": np.full((4, 3, 3), np.nan)}, "NaN or infinite entries in 4 of 4 images, the first"),
    "one nan": ({"images": np.eye(3)[[[0, 1]] * 2] / [[[1, 1, 1]], [[1, 1, np.nan]]]}, "in 1 of 2 images"),
    "inf": ({"images": np.full((4, 3, 3), np.inf)}, "NaN or infinite entries"),
    "channels last": ({"images": np.zeros((4, 9, 9, 3))}, "expected the channels first, (N, C, H, W)"),
    "identities": ({"images": np.zeros((4, 3, 3)), "labels": np.arange(4) * 9999}, "labels from 0 to 29997, expected"),
    "beyond": (
        {"images": np.zeros((4, 3, 3)), "labels": np.arange(4), "class_names": np.array(["a", "b", "c"])},
        "labels from 0 to 3, expected whole numbers from 0 to 2",
    ),
    "names": ({"images": np.zeros((4, 3, 3)), "class_names": np.arange(3)}, "expected (K,) strings"),
    "half": ({"train_images": np.zeros((4, 3, 3))}, "expected an array 'test_images'"),
    "unlike": (
        {"train_images": np.zeros((4, 3, 3)), "test_images": np.zeros((4, 3, 4))},
        "expected two parts of one kind",
    ),
    "unlabelled": (
        {"train_images": np.zeros((4, 3, 3)), "test_images": np.zeros((4, 3, 3)), "train_labels": np.arange(4)},
        "expected those of both or of none",
    ),
    "pickled": ({"images": np.array([None, {}], dtype=object)}, "no readable .npz file of plain arrays"),
    "count": ({"images": np.zeros((4, 3, 3)), "labels": np.zeros(3, dtype=int)}, "expected (4,) whole numbers"),
    "fraction": ({"images": np.zeros((4, 3, 3)), "labels": np.zeros(4)}, "expected (4,) whole numbers"),
    "negative": ({"images": np.zeros((4, 3, 3)), "labels": -np.ones(4, dtype=int)}, "whole numbers from 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused(case, tmp_path):
    arrays, sentence = WRONG[case]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError) as caught:
        load_data(tmp_path / "a.npz")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04junk", b"\x80\x04N."])
def test_a_foreign_file_is_refused(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="no readable .npz file"):
        load_data(tmp_path / "a.npz")


def test_an_array_whose_header_is_damaged_is_refused(tmp_path):
    """Python's tokenizer reads what numpy wrote with Python 2, as it takes a header for that nothing else can read."""
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3,".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(ValueError, match="header.npz is no readable .npz file of plain arrays"):
        load_data(tmp_path / "header.npz")


def test_a_truncated_file_and_a_bare_array_are_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", images=np.zeros((40, 8, 8)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    with (tmp_path / "bare.npz").open("wb") as file:
        np.save(file, np.zeros((4, 3, 3)))
    for name in ("cut.npz", "bare.npz"):
        with pytest.raises(ValueError, match="no readable .npz file"):
            load_data(tmp_path / name)


@pytest.mark.parametrize("damage", ["codes", "method", "password"])
def test_a_damaged_file_is_refused(damage, tmp_path):
    """In what it holds, and in both of its headers: an unknown way of compression, and a password."""
    np.savez_compressed(tmp_path / "a.npz", images=np.random.default_rng(0).random((40, 8, 8)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    if damage == "codes":
        content[30 + content[26] + content[28]] = 7  # the first block, behind a name and more: of a kind that is none
    for header in (0, content.rindex(b"PK\x01\x02") + 2):
        if damage != "codes":
            place, byte = {"method": (8, 99), "password": (6, 1)}[damage]
            content[header + place] = byte
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="no readable .npz file of plain arrays, expected one with 'images'"):
        load_data(tmp_path / "a.npz")


def test_numbers_that_start_at_0_are_taken_as_they_are_with_a_warning(tmp_path):
    images = np.linspace(0, 1, 40 * 9).reshape(40, 3, 3)
    np.savez(tmp_path / "a.npz", images=images)
    with pytest.warns(UserWarning, match="entries from 0 to 1, taken as they are") as caught:
        part = load_data(tmp_path / "a.npz")
    assert caught[0].filename == __file__  # it points at the user's line
    assert float(part.images.min()) >= 0 and part.images.shape == (36, 1, 3, 3)


def test_classes_are_those_of_the_whole_whatever_a_part_holds(tmp_path):
    labels = np.zeros(40, dtype=int)
    labels[-1] = 5  # in one part only
    np.savez(tmp_path / "a.npz", images=np.zeros((40, 3, 3)), labels=labels)
    train, held_out = (load_data(tmp_path / "a.npz", split=split) for split in SPLITS)
    assert (train.labels.max() == 5) != (held_out.labels.max() == 5)
    assert train.classes == held_out.classes == 6 and train.class_names == held_out.class_names == tuple("012345")
    np.savez(tmp_path / "b.npz", images=np.zeros((40, 3, 3)), labels=labels, class_names=np.array(list("abcdefg")))
    assert load_data(tmp_path / "b.npz", split="held-out").class_names == tuple("abcdefg")
    assert load_data(tmp_path / "b.npz").classes == 7


def test_a_file_with_a_split_of_its_own(tmp_path):
    arrays = {"train_images": np.zeros((6, 3, 4, 4)), "test_images": np.zeros((4, 3, 4, 4)) - 1}
    np.savez(tmp_path / "a.npz", **arrays, train_labels=np.arange(6), test_labels=np.arange(4))
    train, held_out = (load_data(tmp_path / "a.npz", split=split) for split in SPLITS)
    assert train.images.shape == (6, 3, 4, 4) and held_out.images.shape == (4, 3, 4, 4)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5] and held_out.labels.tolist() == [0, 1, 2, 3]
    assert bool((held_out.images == -1).all()) and train.classes == held_out.classes == 6


@pytest.mark.parametrize("labels", [np.arange(4) + 0.0, np.arange(3), np.arange(4) - 1, np.arange(4) + 10**7])
def test_labels_of_the_other_part_are_checked_before_they_tell_the_classes(labels, tmp_path):
    arrays = {"train_images": np.zeros((6, 3, 4, 4)), "test_images": np.zeros((4, 3, 4, 4))}
    np.savez(tmp_path / "a.npz", **arrays, train_labels=np.arange(6), test_labels=labels)
    for split in SPLITS:
        with pytest.raises(ValueError, match=r"^data: 'test_labels' of .*, expected .*whole numbers from 0"):
            load_data(tmp_path / "a.npz", split=split)
