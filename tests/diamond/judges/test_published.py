"""Files of published weights: what is read, in which form, and what is refused."""

import pathlib
import zipfile

import numpy as np
import pytest
import torch

from safetensors.torch import save_file

from diamond import judges


def arrays_of(weights, dtype=np.float32):
    return {name: array.numpy().astype(dtype) for name, array in weights.items()}


class Trap:
    """What a pickle could do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ">f4"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_numpy_is_read(save, dtype, weights, images, tmp_path):
    arrays = arrays_of(weights(1), dtype)
    save(tmp_path / "a.npz", **arrays)
    judge = judges.load(tmp_path / "a.npz")
    assert np.array_equal(judge.head.weight.numpy(), arrays["linear.weight"].astype(np.float32))
    assert np.array_equal(judge.body.layer3[0].conv2.weight.numpy(), arrays["layer3.0.conv2.weight"].astype(np.float32))
    assert all(value.dtype == torch.float32 for value in judge.parameters()) and bool(judge(images).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("header", [None, {"format": "pt"}])
def test_plain_safetensors_are_read_by_content_whatever_they_are_called(header, dtype, weights, tmp_path):
    arrays = {name: array.to(dtype) for name, array in weights(1).items()}
    save_file(arrays, tmp_path / "mine.judge", header)
    judge = judges.load(str(tmp_path / "mine.judge"))
    assert judge.metadata["name"] == "mine" and torch.equal(judge.head.bias, arrays["linear.bias"].float())


def test_both_kinds_of_file_make_the_same_judge_with_or_without_counters(weights, images, tmp_path):
    arrays = {name: array.float() for name, array in weights(2).items()}
    norms = [name.removesuffix("running_var") for name in arrays if name.endswith("running_var")]
    counters = {f"{name}num_batches_tracked": torch.tensor(7) for name in norms}
    np.savez(tmp_path / "a.npz", **{name: array.numpy() for name, array in (arrays | counters).items()})
    save_file(arrays | counters, tmp_path / "b.safetensors")
    save_file(arrays, tmp_path / "c.safetensors")
    a, b, c = (judges.load(tmp_path / name) for name in ("a.npz", "b.safetensors", "c.safetensors"))
    assert torch.equal(a(images), b(images)) and torch.equal(b(images), c(images))


def test_files_of_trained_judges_are_told_from_published_ones(tmp_path):
    judges.Judge((3, 32, 32), 10, 4, 8).save(tmp_path / "published.safetensors")
    assert isinstance(judges.load(tmp_path / "published.safetensors"), judges.Judge)


def lack(arrays):
    del arrays["layer2.0.bn1.running_mean"], arrays["bn1.weight"]


def lack_head(arrays):
    del arrays["linear.weight"]


def lack_block(arrays):
    for name in [name for name in arrays if name.startswith("layer3.1.")]:
        del arrays[name]


def lack_all(arrays):
    arrays.clear()
    arrays["images"] = np.zeros((4, 3, 32, 32), np.float32)


def project(arrays):
    arrays["layer2.0.shortcut.0.weight"] = np.zeros((32, 16, 1, 1), np.float32)


def widen(arrays):
    arrays["conv1.weight"] = np.zeros((64, 3, 3, 3), np.float32)


def one_class(arrays):
    arrays["linear.weight"] = arrays["linear.weight"][:1]


def number_head(arrays):
    arrays["linear.weight"] = np.float32(1)


def count(arrays):
    arrays["bn1.bias"] = np.arange(16)


def overflow(arrays):
    arrays["layer1.1.bn2.bias"][3] = np.inf


REFUSED = {
    lack: "it lacks 'bn1.weight' and 1 more, expected the weights of a ResNet-14 of CIFAR: ",
    lack_head: "it lacks 'linear.weight', expected the weights of a ResNet-14 of CIFAR: ",
    lack_block: "it lacks 'layer3.1.bn1.bias' and 9 more, expected the weights of a ResNet-14 of CIFAR: ",
    lack_all: "it lacks 'bn1.bias' and 36 more, expected the weights of a ResNet-8 of CIFAR: ",
    project: "it holds 'layer2.0.shortcut.0.weight', expected the weights of a ResNet-14 of CIFAR: ",
    widen: r"'conv1.weight' is torch.float32 of shape \(64, 3, 3, 3\), expected finite floats of shape \(16, 3, 3, 3\)$",
    one_class: r"'linear.weight' is torch.float32 of shape \(1, 64\), expected finite floats of shape \(2, 64\)$",
    number_head: r"'linear.weight' is torch.float32 of shape \(\), expected finite floats of shape \(10, 64\)$",
    count: r"'bn1.bias' is torch.int64 of shape \(16,\), expected finite floats of shape \(16,\)$",
    overflow: r"'layer1.1.bn2.bias' is torch.float32 of shape \(16,\), not finite, expected finite floats ",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_weights_of_another_network_are_refused_in_one_sentence(spoil, weights, tmp_path):
    arrays = arrays_of(weights(2))
    spoil(arrays)
    np.savez(tmp_path / "a.npz", **arrays)
    save_file({name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}, tmp_path / "a.safetensors")
    for file in ("a.npz", "a.safetensors"):
        with pytest.raises(ValueError, match=f"^{tmp_path}/{file}: {REFUSED[spoil]}") as caught:
            judges.load(tmp_path / file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(share, weights, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays_of(weights(1)))
    save_file(dict(weights(1)), tmp_path / "b.safetensors")
    for file, expected in (("a.npz", "a .npz file of plain arrays"), ("b.safetensors", "")):
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=f"^{tmp_path}/{file}: it is .*truncated.*, expected {expected}"):
            judges.load(tmp_path / file)


def test_an_archive_with_a_changed_byte_is_refused(weights, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays_of(weights(1)))
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match="a.npz: it is truncated, damaged or foreign, expected a .npz file of plain"):
        judges.load(tmp_path / "a.npz")


def test_pickled_objects_are_never_loaded(weights, tmp_path):
    arrays, trap = arrays_of(weights(1)), Trap(tmp_path / "sprung")
    np.savez(tmp_path / "objects.npz", **arrays, trap=np.array([trap], dtype=object))
    torch.save({**weights(1), "trap": trap}, tmp_path / "torch.npz")
    torch.save({**weights(1), "trap": trap}, tmp_path / "torch.pth")
    for file in ("objects.npz", "torch.npz", "torch.pth"):
        with pytest.raises(
            ValueError, match=f"^{tmp_path}/{file}: it holds pickled objects, which are never loaded, exp"
        ):
            judges.load(tmp_path / file)
    assert not (tmp_path / "sprung").exists()


def test_other_archives_are_refused(weights, tmp_path):
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("weights.txt", "none")
    np.savez(tmp_path / "words.npz", **arrays_of(weights(1)), words=np.array(["a"]))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for file in ("text.zip", "words.npz", "array.npz"):
        with pytest.raises(
            ValueError, match=f"^{tmp_path}/{file}: it is truncated, damaged or foreign, expected a .npz"
        ):
            judges.load(tmp_path / file)
    with pytest.raises(FileNotFoundError, match="^judge: got '.*nothing.npz', expected one of .*, or a judge's file$"):
        judges.load(tmp_path / "nothing.npz")
