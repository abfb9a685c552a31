"""One file a model: what comes back is what went in, and nothing else is ever read."""

import json
import pathlib
import pickle

import pytest
import safetensors.torch
import torch

from diamond.checkpoint import load, read_header, read_tensors, write_tensors
from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine, Interpolant, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Transformer, Whitened, grow

EVENT = (1, 4, 4)
METADATA = {"data": "digits", "seed": 3, "losses": [0.5, 0.25], "nested": {"ema": 0.999, "notes": None, "name": "ä"}}


def perceptron(**config):
    return ResidualMLP(EVENT, width=8, depth=1, embedding=8, **config)


def transformer(**config):
    return Transformer(EVENT, width=8, depth=1, heads=2, **config)


def whitened(**config):
    inner = ResidualMLP((16,), width=8, depth=1, embedding=8, **config)
    return Whitened(inner, EVENT, "cosine", data=torch.randn(50, *EVENT) @ torch.randn(4, 4))


def mixture(shape=()):
    covariances = torch.eye(16).expand(2, 16, 16) * torch.tensor([0.3, 0.5])[:, None, None]
    covariances = covariances + 0.1 if shape else torch.tensor([0.3, 0.5])
    return GaussianMixtureFlow(torch.tensor([0.3, 0.7]), torch.randn(2, 16), covariances, Cosine())


MODELS = {
    "flow": lambda: Flow(perceptron(), Cosine()),
    "flow with classes": lambda: Flow(transformer(classes=3), prediction="denoiser"),
    "whitened flow": lambda: Flow(whitened(), Cosine()),
    "noise flow": lambda: Flow(perceptron(), prediction="noise"),
    "glass flow": lambda: GlassFlow(Flow(transformer(), Cosine()), steps=5, solver="heun"),
    "glass flow of a mixture": lambda: GlassFlow(mixture(), steps=3),
    "glass flow of a glass flow": lambda: GlassFlow(GlassFlow(Flow(perceptron()), steps=5), steps=2),
    "flow map": lambda: FlowMap(perceptron(times=1), Cosine()),
    "diamond map": lambda: DiamondMap(transformer(states=1, times=3), Cosine()),
    "whitened diamond map": lambda: DiamondMap(whitened(states=1, times=3), Cosine()),
    "grown diamond map": lambda: DiamondMap(grow(transformer(classes=3), 1, 3), Cosine()),
    "grown and whitened flow map": lambda: FlowMap(grow(whitened(), 0, 1), Cosine()),
    "isotropic mixture": mixture,
    "full mixture": lambda: mixture((16, 16)),
}


@pytest.fixture(params=MODELS)
def make(request):
    """Makes each kind of model in turn, in a given precision, with noise on every weight."""

    def make(dtype=torch.float32):
        torch.set_default_dtype(dtype)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)
                model = MODELS[request.param]().to(dtype)
                for weights in model.parameters():
                    weights += 0.1 * torch.randn_like(weights)
        finally:
            torch.set_default_dtype(torch.float32)
        model.metadata = METADATA
        return model

    return make


@pytest.fixture
def model(make):
    return make()


@pytest.fixture
def flow():
    return Flow(perceptron())


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


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_loaded_computes_the_same_bits(make, dtype, tmp_path):
    model = make(dtype)
    model.save(tmp_path / "model.ckpt")
    loaded = load(tmp_path / "model.ckpt")
    assert type(loaded) is type(model)
    assert loaded.dtype == dtype
    assert all(torch.equal(one, other) for one, other in zip(outputs(model), outputs(loaded), strict=True))


def test_what_is_loaded_is_described_the_same(model, tmp_path):
    model.save(tmp_path / "model.ckpt")
    loaded = load(tmp_path / "model.ckpt")
    assert loaded.metadata == METADATA
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


def test_a_header_is_read_without_its_tensors(flow, tmp_path):
    flow.metadata = METADATA
    flow.save(tmp_path / "flow")
    header = read_header(tmp_path / "flow")
    assert header["kind"] == "Flow"
    assert header["metadata"] == METADATA
    assert header == read_tensors(tmp_path / "flow")[1]


# ---------------------------------------------------------------- what is not ours


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


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load(tmp_path / name)


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


@pytest.mark.parametrize(
    "spoil", [spoil_missing, spoil_extra, spoil_shape, spoil_all, spoil_kind, spoil_no_kind, spoil_config]
)
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


# ---------------------------------------------------------------- saves that fail


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
    with pytest.raises(OSError, match="folder"):
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
    "callable": lambda: Flow(lambda x, t: x, event_shape=(2,)),
    "module": lambda: Flow(torch.nn.Linear(2, 2), event_shape=(2,)),
    "foreign configuration": lambda: Flow(Foreign(2, 2), event_shape=(2,)),
    "derived network": lambda: DiamondMap(Heir(EVENT, states=1, times=3)),
    "wrapped foreign network": lambda: Flow(Whitened(Foreign(2, 2), (2,))),
    "derived path": lambda: FlowMap(perceptron(times=1), Straight()),
    "custom path": lambda: Flow(perceptron(), Crooked()),
    "mixture on a custom path": lambda: GaussianMixtureFlow([1.0], [[0.0]], [1.0], Crooked()),
    "glass flow": lambda: GlassFlow(Flow(lambda x, t: x, event_shape=(2,))),
    "derived model": lambda: type("Kin", (Flow,), {})(perceptron()),
    "derived glass flow": lambda: type("Kin", (GlassFlow,), {})(Flow(perceptron())),
    "derived mixture": lambda: type("Kin", (GaussianMixtureFlow,), {})([1.0], [[0.0]], [1.0]),
}


@pytest.mark.parametrize("name", UNSAVEABLE)
def test_what_no_file_can_describe_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(ValueError, match="^(model|net|interpolant): .*expected"):
        UNSAVEABLE[name]().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_view_tells_what_its_flow_was_made_of(flow, tmp_path):
    flow.metadata = {"data": "digits"}
    GlassFlow(flow, 4).save(tmp_path / "glass")
    assert load(tmp_path / "glass").flow.metadata == {"data": "digits"}
