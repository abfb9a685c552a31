"""What comes back from a file is what went in: the same bits, the same description, under any name."""

import pathlib

import pytest
import torch

from diamond.checkpoint import load, read_header, read_tensors, write_tensors
from diamond.flow import Flow
from diamond.glass import GlassFlow


def outputs(model):
    """Everything that a model draws from fixed numbers."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, *model.event_shape, generator=generator).to(model.dtype)
    results = [model.velocity(x, 0.4), model.denoise(x, 0.4), model.score(x, 0.4), model.prior(2, generator=generator)]
    if not isinstance(model, Flow):
        results.append(model.posterior(x, 0.4, 2, generator=generator))
        results.append(model.transition(x, 0.4, 0.7, generator=generator))
        results.append(model.transition(x, 0.4, 0.7, rho=0.2, generator=generator))
    if not isinstance(model, GlassFlow):
        results.append(model.sample(2, generator=generator))
    return results


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_loaded_computes_the_same_bits(make, dtype, tmp_path):
    model = make(dtype)
    model.save(tmp_path / "model.ckpt")
    loaded = load(tmp_path / "model.ckpt")
    assert type(loaded) is type(model)
    assert loaded.dtype == dtype
    assert all(torch.equal(one, other) for one, other in zip(outputs(model), outputs(loaded), strict=True))


def test_what_is_loaded_is_described_the_same(model, tmp_path, metadata):
    model.save(tmp_path / "model.ckpt")
    loaded = load(tmp_path / "model.ckpt")
    assert loaded.metadata == metadata
    assert loaded.event_shape == model.event_shape
    assert type(loaded.interpolant) is type(model.interpolant)
    for name in ("prediction", "steps", "solver"):
        assert getattr(loaded, name, None) == getattr(model, name, None)
    assert not loaded.training
    assert [name for name, _ in loaded.named_modules()] == [name for name, _ in model.named_modules()]


def test_a_file_may_be_saved_and_loaded_again_and_again(model, tmp_path):
    model.save(tmp_path / "one")
    load(tmp_path / "one").save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_saving_leaves_the_model_as_it_is(flow, tmp_path):
    flow.train()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    flow.save(tmp_path / "flow")
    assert flow.training
    assert all(value.requires_grad for value in flow.parameters())
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())


def test_a_loaded_model_does_not_depend_on_its_file(flow, tmp_path):
    path = tmp_path / "flow"
    flow.save(path)
    loaded = load(path)
    expected = outputs(flow)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert all(torch.equal(one, other) for one, other in zip(outputs(loaded), expected, strict=True))


@pytest.mark.parametrize("name", ["model", "glass.ckpt", "model.safetensors", "a.b.pt", "new/folder/model.bin", "ü 1"])
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_any_name_will_do(flow, name, kind, tmp_path):
    path = kind(tmp_path / name)
    flow.save(path)
    assert type(load(path)) is Flow
    assert [file.name for file in pathlib.Path(path).parent.iterdir()] == [pathlib.Path(path).name]


def test_a_later_save_replaces_the_file(flow, tmp_path):
    flow.save(tmp_path / "model")
    flow.metadata = {"second": True}
    flow.save(tmp_path / "model")
    assert load(tmp_path / "model").metadata == {"second": True}
    assert len(list(tmp_path.iterdir())) == 1


def test_headers_of_every_length_are_read(tmp_path):
    """A safetensors file opens with the length of its header: some lengths look like the first bytes of a pickle."""
    path = tmp_path / "model"
    tensors = {"a": torch.arange(3.0)}

    def length(filler):
        write_tensors(path, tensors, {"filler": filler * "x"})
        return int.from_bytes(path.read_bytes()[:8], "little")

    lengths = {length(filler) for filler in range(0, 264, 8)}
    assert len({value % 256 for value in lengths}) == 32
    as_zip = int.from_bytes(b"PK", "little")
    lengths = {length(as_zip - length(0) + shift) for shift in range(-8, 16, 8)}
    assert as_zip in lengths
    for filler in (*range(0, 264, 8), *(as_zip - length(0) + shift for shift in range(-8, 16, 8))):
        length(filler)
        found, header = read_tensors(path)
        assert torch.equal(found["a"], tensors["a"])
        assert len(header["filler"]) == filler


def test_a_header_is_read_without_its_tensors(flow, tmp_path, metadata):
    flow.metadata = metadata
    flow.save(tmp_path / "flow")
    header = read_header(tmp_path / "flow")
    assert header["kind"] == "Flow"
    assert header["metadata"] == metadata
    assert header == read_tensors(tmp_path / "flow")[1]


def test_a_view_tells_what_its_flow_was_made_of(flow, tmp_path):
    flow.metadata = {"data": "digits"}
    GlassFlow(flow, 4).save(tmp_path / "glass")
    assert load(tmp_path / "glass").flow.metadata == {"data": "digits"}


def test_a_glass_flow_saved_before_grids_had_names_keeps_the_grid_it_had(flow, tmp_path):
    GlassFlow(flow, 4, grid="uniform").save(tmp_path / "glass")
    tensors, header = read_tensors(tmp_path / "glass")
    assert header["config"].pop("grid") == "uniform"
    write_tensors(tmp_path / "old", tensors, header)
    assert load(tmp_path / "old").grid == "uniform" and GlassFlow(flow).grid == "posterior"
