"""Models that ship: found by name, offline, whole; and files whose parameters are stored in half precision."""

import os
import subprocess
import sys

import pytest
import torch

import diamond

from diamond import weights
from diamond.checkpoint import load, read_header, save
from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.nets import ResidualMLP, Transformer, Whitened

LARGEST = 16e6  # bytes


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of models that ship, with one called `mine`."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(weights, "_room", lambda: folder)
    flow = Flow(ResidualMLP((3,), width=8, depth=1), event_shape=(3,))
    flow.metadata = {"from": "the shelf"}
    flow.save(folder / "mine.safetensors")
    (folder / "mine.md").write_text("# mine\n")
    monkeypatch.chdir(tmp_path)
    return folder


def make(origin):
    flow = Flow(ResidualMLP((3,), width=8, depth=1), event_shape=(3,))
    flow.metadata = {"from": origin}
    return flow


def test_a_bare_name_means_the_model_that_ships(shelf):
    assert weights.names() == ("mine",) and weights.card("mine") == "# mine\n"
    assert load("mine").metadata == {"from": "the shelf"}
    with pytest.warns(
        UserWarning, match="got 'mine', by which load knows a model that ships: load this file as ./mine"
    ):
        save(make("a file"), "mine")
    make("an ending").save("mine.ckpt")
    assert load("mine").metadata == read_header("mine")["metadata"] == {"from": "the shelf"}
    for path in ("./mine", os.path.abspath("mine")):
        assert load(path).metadata == {"from": "a file"}
    assert load("mine.ckpt").metadata == {"from": "an ending"}
    make("another name").save("yours")
    assert load("yours").metadata == {"from": "another name"}


def test_an_unknown_name_lists_those_that_ship(shelf):
    with pytest.raises(
        FileNotFoundError, match="theirs: there is no such file, .*or the name of one that ships: mine$"
    ):
        load("theirs")
    with pytest.raises(FileNotFoundError) as caught:
        load("folder/theirs")
    assert "ships" not in str(caught.value)
    with pytest.raises(ValueError, match="name: got 'theirs', expected one of mine"):
        weights.card("theirs")


def test_the_command_line_knows_names_from_files(shelf):
    from typer.testing import CliRunner

    from diamond.cli import app
    from diamond.cli.options import model_file

    with pytest.warns(UserWarning):
        save(make("a file"), "mine")
    said = CliRunner().invoke(app, ["info", "mine"]).stdout
    assert "the shelf" in said and " card " in said
    said = CliRunner().invoke(app, ["info", "./mine"]).stdout
    assert "a file" in said and " card " not in said
    assert load(model_file("./mine")).metadata == {"from": "a file"}
    assert str(model_file("mine")) == "mine" and str(model_file("./yours")) == "yours"


OFFLINE = """
import socket, sys, torch
class Closed(socket.socket):
    def connect(self, *_): raise AssertionError("a connection")
socket.socket = Closed
import diamond
from diamond import weights
for name in weights.names():
    model = diamond.load(name)
    assert model.dtype == torch.float32 and not model.training
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
print(*weights.names())
"""


def test_all_that_ship_load_anywhere_without_a_network(tmp_path):
    done = subprocess.run([sys.executable, "-c", OFFLINE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(weights.names())


@pytest.mark.parametrize("name", weights.names())
def test_what_ships_is_small_and_has_a_card(name):
    assert weights.locate(name).stat().st_size <= LARGEST
    metadata, card = read_header(name)["metadata"], weights.card(name)
    assert card.startswith(f"# {name}\n")
    for heading in ("## Data", "## Recipe", "## Figures"):
        assert heading in card
    assert f"seed {metadata['seed']}" in card and metadata["data"] in card
    assert metadata.get("teacher", name) in weights.names()


def perturbed(model):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_a_way_to_store(dtype, tmp_path):
    data = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 1e-5  # too small for half precision
    inner = ResidualMLP((16,), width=64, depth=2, states=1, times=3)
    model = perturbed(DiamondMap(Whitened(inner, (1, 4, 4), data=data)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save(model, tmp_path / "half", dtype)
    model.save(tmp_path / "whole")
    small, large = ((tmp_path / name).stat().st_size for name in ("half", "whole"))
    assert small < 0.6 * large
    loaded = load(tmp_path / "half")
    parameters = dict(model.named_parameters())
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        exact = before[name] if name not in parameters else before[name].to(dtype).float()
        assert torch.equal(value, exact), name
        assert torch.equal(before[name], model.state_dict()[name])  # the model itself is as it was
    save(loaded, tmp_path / "again", dtype)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "half").read_bytes()
    generator = torch.Generator().manual_seed(1)
    one, other = (m.sample(4, generator=generator.manual_seed(1)) for m in (model, loaded))
    assert float((one - other).abs().max() / one.abs().max()) < 2e-2 and not torch.equal(one, other)


def test_types_that_cannot_hold_the_weights_are_refused(tmp_path):
    model = perturbed(Flow(Transformer((1, 4, 4), width=8, depth=1, heads=2)))
    with pytest.raises(ValueError, match="dtype: got torch.int8, expected a floating type"):
        save(model, tmp_path / "model", torch.int8)
    with torch.no_grad():
        model.net.enter.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="dtype: got torch.float16, in which net.enter.weight is not finite"):
        save(model, tmp_path / "model", torch.float16)
    assert not list(tmp_path.iterdir())


def test_a_model_in_half_precision_comes_back_in_single(tmp_path):
    model = Flow(ResidualMLP((3,), width=8, depth=1), event_shape=(3,)).to(torch.bfloat16)
    model.save(tmp_path / "model")
    assert diamond.load(tmp_path / "model").dtype == torch.float32
