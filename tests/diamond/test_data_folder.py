"""Folders of images: classes, sizes, colours and splits, and files that cannot be read."""

import warnings

import numpy as np
import pytest
import torch

from PIL import Image

from diamond.data import SPLITS, ImageFolder, load_data


def grey(shape=(4, 4), value=0):
    return Image.fromarray(np.full(shape, value, dtype=np.uint8))


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def classes(tmp_path):
    """Twenty grey images, image i of level 10 i, in two classes by the parity of i; and things that do not count."""
    for i in range(20):
        folder = tmp_path / "all" / ("odd" if i % 2 else "even") / ("deep" if i % 3 else "")
        save(grey(value=10 * i), folder / f"{i:02d}.{'PNG' if i % 5 else 'bmp'}")
    (tmp_path / "all" / "notes.txt").write_text("no image")
    (tmp_path / "all" / "empty").mkdir()
    save(grey((9, 9)), tmp_path / "all" / ".thumbnails" / "small.png")
    return tmp_path / "all"


def levels(images):
    return ((images[:, 0, 0, 0] + 1) * 127.5 / 10).round().long()


def test_sub_folders_are_classes(classes):
    parts = [load_data(classes, split=split) for split in SPLITS]
    assert [part.images.shape for part in parts] == [(18, 1, 4, 4), (2, 1, 4, 4)]
    for part in parts:
        assert part.class_names == ("even", "odd") and part.classes == 2 and part.name == str(classes)
        assert torch.equal(part.labels, levels(part.images) % 2)
        assert part.images.dtype == torch.float32 and part.labels.dtype == torch.int64
    assert sorted(torch.cat([levels(part.images) for part in parts]).tolist()) == list(range(20))


def test_a_flat_folder_has_no_labels(tmp_path):
    for i in range(10):
        save(grey(value=i), tmp_path / f"{i}.png")
    part = load_data(str(tmp_path))
    assert part.labels is None and part.classes == 0 and part.class_names == () and len(part.images) == 9


def test_one_image_on_demand_is_that_in_memory(classes):
    whole, lazy = load_data(classes, size=3), ImageFolder(classes, size=3)
    assert len(lazy) == 18 and lazy.event_shape == (1, 3, 3)
    for i, (image, label) in enumerate(lazy):
        assert torch.equal(image, whole.images[i]) and label == int(whole.labels[i])
        if i == len(lazy) - 1:
            break
    assert ImageFolder(classes, split="held-out")[1][0].shape == (1, 4, 4)


def test_colour_is_taken_as_soon_as_one_image_has_any(tmp_path):
    for i in range(9):
        save(grey(value=100), tmp_path / f"{i}.png")
    save(Image.fromarray(np.array([[[255, 0, 51]] * 4] * 4, dtype=np.uint8)), tmp_path / "red.png")
    images = torch.cat([load_data(tmp_path, split=split).images for split in SPLITS])
    assert images.shape == (10, 3, 4, 4)
    red = torch.tensor([1.0, -1.0, 51 / 127.5 - 1])
    assert sum(bool(torch.allclose(image[:, 0, 0], red)) for image in images) == 1


def test_crops_are_of_the_centre_and_photographs_upright(tmp_path):
    stripes = np.zeros((4, 8), dtype=np.uint8)
    stripes[:, 2:6] = 255
    save(Image.fromarray(stripes), tmp_path / "wide.png")
    save(Image.fromarray(stripes.T.copy()), tmp_path / "high.png")
    save(grey((16, 16), value=255), tmp_path / "large.png")
    assert all(bool((load_data(tmp_path, split=split, size=4).images == 1).all()) for split in SPLITS)
    folder = tmp_path / "turned"
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: a quarter turn to the right is due
    half = np.zeros((8, 16), dtype=np.uint8)
    half[:, :8] = 255
    for name in ("a.png", "b.png"):
        folder.mkdir(exist_ok=True)
        Image.fromarray(half).save(folder / name, exif=exif)
    image = load_data(folder).images[0, 0]
    assert image.shape == (16, 8) and bool((image[:8] == 1).all()) and bool((image[8:] == -1).all())


def test_sixteen_bits_become_eight(tmp_path):
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    for name in ("a.png", "b.png"):
        Image.fromarray(values).save(tmp_path / name)
    expected = torch.tensor([[0.0, 100.0], [200.0, 255.0]]) / 127.5 - 1
    assert torch.allclose(load_data(tmp_path).images[0, 0], expected)


def spoil(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def test_unreadable_files_are_named_skipped_and_counted_once(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    for i in range(40):
        save(Image.fromarray(noise[i]), tmp_path / f"{i:02d}.png")
    whole = load_data(tmp_path)
    lost = [int((torch.from_numpy(noise).float() / 127.5 - 1 - image[0]).abs().amax((1, 2)).argmin()) for image in
            whole.images[[3, 30]]]  # fmt: skip
    (tmp_path / f"{lost[0]:02d}.png").write_bytes(b"no image")
    spoil(tmp_path / f"{lost[1]:02d}.png", 0.7)  # its header is whole
    with pytest.warns(UserWarning, match="skipped 2 of 40 files") as caught:
        part = load_data(tmp_path)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert all(f"{i:02d}.png" in str(caught[0].message) for i in lost)
    kept = [i for i in range(36) if i not in (3, 30)]
    assert torch.equal(part.images, whole.images[kept])  # the split stays as it was
    with pytest.warns(UserWarning, match="skipped 1 of 40 files") as caught:
        lazy = ImageFolder(tmp_path)
    assert caught[0].filename == __file__ and len(lazy) == 35
    with pytest.raises(ValueError, match=f"{lost[1]:02d}.png cannot be decoded"):
        list(lazy[i] for i in range(35))


def test_many_unreadable_files_are_one_short_warning(tmp_path):
    for i in range(30):
        save(grey(), tmp_path / f"{i:02d}.png")
    for i in range(20):
        (tmp_path / f"{i:02d}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped 20 of 30 files .*: 00.png, 01.png, .* and 15 more") as caught:
        load_data(tmp_path)
    assert len(str(caught[0].message)) < 400 + len(str(tmp_path))


def nothing(folder):
    (folder / "a.txt").write_text("hello")


def one(folder):
    save(grey(), folder / "a.png")


def broken(folder):
    for name in ("a.png", "b.jpg", "c.webp"):
        (folder / name).write_bytes(b"no image")


def mixed(folder):
    save(grey((4, 6)), folder / "a.png")
    save(grey((5, 3)), folder / "b.png")


def muddled(folder):
    save(grey(), folder / "a.png")
    save(grey(), folder / "b" / "b.png")


def undecodable(folder):
    for name in ("a.png", "b.png"):
        save(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)), folder / name)
        spoil(folder / name, 0.6)


WRONG = {
    nothing: "holds no images, expected files that end in .png, .jpg",
    one: "of 1 files of the folder .*, 1 can be read as images, expected 2 or more",
    broken: "of 3 files of the folder .*, 0 can be read as images, expected 2 or more",
    mixed: "size: got None, but the images of .* have 2 sizes, from 4x6 to 5x3 pixels; expected the size",
    muddled: "both beside its sub-folders and in them",
    undecodable: "none of the train images of the folder .* can be read, expected one at least",
}


@pytest.mark.parametrize("make", WRONG)
def test_a_wrong_folder_is_refused(make, tmp_path):
    make(tmp_path)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=WRONG[make]) as caught:
        warnings.simplefilter("ignore")
        load_data(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_data_set_wins_over_a_folder_of_its_name_unless_that_is_a_path(classes, monkeypatch):
    classes.rename(classes.parent / "digits")
    monkeypatch.chdir(classes.parent)
    assert load_data("digits").name == "digits" and len(load_data("digits").images) == 1500
    assert load_data("./digits").class_names == ("even", "odd")


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a folder of images"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="split: got 'test'"):
        ImageFolder(tmp_path, split="test")


def test_images_of_floating_numbers_are_skipped(tmp_path):
    """They may be of any scale; those in [0, 1] were all black once."""
    for i in range(12):
        ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
        save(Image.fromarray(ramp) if i % 2 else grey(value=i), tmp_path / f"{i:02d}.tif")
    with pytest.warns(UserWarning, match="skipped 6 of 12 files .* that cannot be read: 01.tif, 03.tif"):
        part = load_data(tmp_path)
    assert part.images.shape[1:] == (1, 4, 4)
