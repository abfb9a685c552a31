"""Files that are not ours, or not whole, are refused in one sentence, and a pickle is never run."""

import json
import pathlib
import pickle

import pytest
import safetensors.torch
import torch

from diamond.checkpoint import load, read_header, read_tensors, write_tensors


class Trap:
    """What a pickle could do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def strangers(folder):
    """Files that are not ours, by name."""
    trap = {"weights": torch.ones(3), "trap": Trap(folder / "sprung")}
    torch.save(trap, folder / "zip")
    torch.save(trap, folder / "legacy", _use_new_zipfile_serialization=False)
    for protocol in (0, 2, 5):
        (folder / f"protocol {protocol}").write_bytes(pickle.dumps(trap["trap"], protocol=protocol))
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "bare")
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "foreign", {"format": "pt"})
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "no json", {"diamond": "hello"})
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "no object", {"diamond": "[1, 2]"})
    later = json.dumps({"format": "diamond-maps/99", "kind": "Flow", "config": {}})
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "later", {"diamond": later})
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("weights: none\n" * 100)
    (folder / "json").write_text(json.dumps({"kind": "Flow"}))
    (folder / "zeros").write_bytes(bytes(1000))
    (folder / "ones").write_bytes(b"\xff" * 1000)


STRANGERS = ["zip", "legacy", "protocol 0", "protocol 2", "protocol 5", "bare", "foreign", "no json", "no object"]


STRANGERS += ["later", "empty", "text", "json", "zeros", "ones"]


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("read", [load, read_header, read_tensors])
def test_a_strange_file_is_refused_in_one_sentence_and_never_run(name, read, tmp_path):
    strangers(tmp_path)
    with pytest.raises(ValueError, match="expected") as caught:
        read(tmp_path / name)
    sentence = str(caught.value)
    assert sentence.startswith(str(tmp_path / name))
    assert "\n" not in sentence
    says_pickle = "it is a pickle, which is never loaded" in sentence
    assert says_pickle == (name in ("zip", "legacy", "protocol 2", "protocol 5"))
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing: there is no such file"):
        load(tmp_path / "missing")


@pytest.mark.parametrize("read", [load, read_header, read_tensors])
def test_a_folder_is_told_from_a_file_that_is_missing(read, tmp_path):
    with pytest.raises(ValueError, match=f"^{tmp_path}: it is a folder, expected a checkpoint file$"):
        read(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(flow, share, tmp_path):
    flow.save(tmp_path / "flow")
    whole = (tmp_path / "flow").read_bytes()
    (tmp_path / "part").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="part: it is empty, truncated or foreign, expected"):
        load(tmp_path / "part")


def spoil_missing(tensors, header):
    tensors.pop(sorted(tensors)[0])


def spoil_extra(tensors, header):
    tensors["extra"] = torch.ones(1)


def spoil_shape(tensors, header):
    name = sorted(tensors)[0]
    tensors[name] = torch.ones(7, 7, 7)


def spoil_all(tensors, header):
    tensors.clear()
    tensors["a"] = torch.ones(1)


def spoil_kind(tensors, header):
    header["kind"] = "Unknown"


def spoil_no_kind(tensors, header):
    header.pop("kind")


def spoil_config(tensors, header):
    header["config"] = {}


def spoil_metadata(tensors, header):
    header["metadata"] = None


SPOILERS = [spoil_missing, spoil_extra, spoil_shape, spoil_all, spoil_kind, spoil_no_kind, spoil_config, spoil_metadata]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_tensors_that_do_not_fit_their_header_are_refused(model, spoil, tmp_path):
    model.save(tmp_path / "model")
    tensors, header = read_tensors(tmp_path / "model")
    spoil(tensors, header)
    write_tensors(tmp_path / "spoilt", tensors, header)
    with pytest.raises(ValueError, match="spoilt: (its tensors do not fit the|covariances: got)") as caught:
        load(tmp_path / "spoilt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"name": "UNet"}, {"config": {"depths": 3}}])
def test_a_network_that_is_not_known_is_refused(flow, change, tmp_path):
    flow.save(tmp_path / "flow")
    tensors, header = read_tensors(tmp_path / "flow")
    header["config"]["net"] |= change
    write_tensors(tmp_path / "spoilt", tensors, header)
    with pytest.raises(ValueError, match="(its tensors do not fit|net: got 'UNet')"):
        load(tmp_path / "spoilt")


OTHERS = {"alignment": "align.Alignment.load", "Judge": "diamond.judges.load", "training state": "resume=True"}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_ours_that_is_no_model_is_told_by_its_kind(kind, tmp_path):
    write_tensors(tmp_path / "other", {"a": torch.ones(2)}, {"kind": kind, "config": {}})
    with pytest.raises(ValueError, match=f"other: it holds an? {kind}, expected a model.*{OTHERS[kind]}"):
        load(tmp_path / "other")
