"""Saves that fail leave the old file and nothing else, and what no file can describe is refused."""

import pathlib

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import Interpolant, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Whitened


@pytest.mark.parametrize("value", [object(), torch.ones(2), {1, 2}])
def test_metadata_that_no_file_can_hold_is_refused_and_the_old_file_stays(flow, value, tmp_path):
    flow.save(tmp_path / "flow")
    before = (tmp_path / "flow").read_bytes()
    flow.metadata = {"value": value}
    for name in ("flow", "new", "folder/new"):
        with pytest.raises(ValueError, match="^metadata: "):
            flow.save(tmp_path / name)
    assert (tmp_path / "flow").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["flow"]


def test_a_save_that_breaks_off_leaves_the_old_file_and_nothing_else(flow, monkeypatch, tmp_path):
    flow.save(tmp_path / "flow")
    before = (tmp_path / "flow").read_bytes()

    def broken(path, content):
        with path.open("wb") as file:
            file.write(content[:4])
        raise OSError("no space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", broken)
    for name in ("flow", "new"):
        with pytest.raises(OSError, match="no space left"):
            flow.save(tmp_path / name)
    assert (tmp_path / "flow").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["flow"]


def test_a_folder_is_not_overwritten(flow, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="^path: got .*folder., which is a folder, expected the name of a file"):
        flow.save(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


class Foreign(torch.nn.Linear):
    """A network of another library, with a configuration of its own."""

    config = {"in_features": 2}


class Heir(ResidualMLP):
    """A network derived from one of ours."""


class Straight(Linear):
    """A path derived from one of ours, under its name."""


class Crooked(Interpolant):
    def alpha(self, t):
        return t

    def sigma(self, t):
        return 1 - t


UNSAVEABLE = {
    "callable": lambda net: Flow(lambda x, t: x, event_shape=(2,)),
    "module": lambda net: Flow(torch.nn.Linear(2, 2), event_shape=(2,)),
    "foreign configuration": lambda net: Flow(Foreign(2, 2), event_shape=(2,)),
    "derived network": lambda net: DiamondMap(Heir((1, 4, 4), states=1, times=3)),
    "wrapped foreign network": lambda net: Flow(Whitened(Foreign(2, 2), (2,))),
    "derived path": lambda net: FlowMap(net(times=1), Straight()),
    "custom path": lambda net: Flow(net(), Crooked()),
    "mixture on a custom path": lambda net: GaussianMixtureFlow([1.0], [[0.0]], [1.0], Crooked()),
    "glass flow": lambda net: GlassFlow(Flow(lambda x, t: x, event_shape=(2,))),
    "derived model": lambda net: type("Kin", (Flow,), {})(net()),
    "derived glass flow": lambda net: type("Kin", (GlassFlow,), {})(Flow(net())),
    "derived mixture": lambda net: type("Kin", (GaussianMixtureFlow,), {})([1.0], [[0.0]], [1.0]),
}


@pytest.mark.parametrize("name", UNSAVEABLE)
def test_what_no_file_can_describe_is_refused_before_anything_is_written(name, tmp_path, small_net):
    with pytest.raises(ValueError, match="^(model|net|interpolant): .*expected"):
        UNSAVEABLE[name](small_net).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
