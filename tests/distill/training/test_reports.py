"""What is to be seen of a run: pictures of samples, trackers, the time left; and networks in bfloat16."""

import json
import sys
import time
import types

from pathlib import Path

import pytest
import torch

from accelerate.tracking import GeneralTracker

import distill

from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Transformer, UNet, Whitened

IMAGES = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def mixture():
    return GaussianMixtureFlow(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.full((2,), 0.1))


def small(*arguments, kind=ResidualMLP, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*arguments, **options)


def same(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


def test_pictures_of_samples_do_not_change_the_run(tmp_path):
    from torchvision.io import read_image

    def run(out, **options):
        net = small((1, 4, 4), 2, 16, 1, kind=Transformer, classes=3)
        labels = torch.arange(12) % 3
        return distill.train_flow(IMAGES, net, labels=labels, steps=10, batch=4, out=out, progress=False, **options)

    plain, watched = run(tmp_path / "plain.ckpt"), run(tmp_path / "watched.ckpt", sample_every=4)
    assert same(plain, watched)
    folder = tmp_path / "watched.ckpt.samples"
    assert sorted(path.name for path in folder.iterdir()) == [f"step-{step:07d}.png" for step in (4, 8, 10)]
    first, last = (read_image(str(folder / f"step-{step:07d}.png")) for step in (4, 10))
    assert first.shape == (3, 8 * 5 + 1, 8 * 5 + 1) and not torch.equal(first, last)


def test_pictures_that_cannot_be_are_refused(tmp_path):
    net = small((2,), 8, 1)
    with pytest.raises(ValueError, match=r"sample_every: got events of shape \(2,\)"):
        distill.train_flow(mixture(), net, steps=2, out=tmp_path / "a", sample_every=1, progress=False)
    with pytest.raises(ValueError, match="sample_every: got 1 without out"):
        distill.train_flow(mixture(), net, steps=2, sample_every=1, progress=False)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_bar_fills_no_log_file(terminal, written):
    """Where lines stay, there are those of the start and the end, and one each ten seconds; a terminal shows every mean."""
    stderr = written(terminal)
    began = time.monotonic()
    distill.train_flow(mixture(), small((2,), 8, 1), steps=40, batch=4, log_every=2)
    shown = [line for line in stderr.getvalue().split("\r") if line.strip()]
    assert "40/40" in shown[-1] and "loss=" in shown[-1]
    assert len(shown) >= 20 if terminal else len(shown) <= 2 + (time.monotonic() - began) / 10


class Listener(GeneralTracker):
    name, requires_logging_directory, tracker = "listener", False, None

    def __init__(self):
        super().__init__()
        self.told, self.settings, self.ended = [], None, False

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step=None, **more):
        self.told.append((step, values))

    def finish(self):
        self.ended = True


def test_trackers_are_told_what_the_file_is(tmp_path):
    listener, out = Listener(), tmp_path / "flow.ckpt"
    distill.train_flow(
        mixture(), small((2,), 8, 1), steps=6, batch=4, log_every=2, log_with=listener, out=out, progress=False
    )
    rows = [json.loads(line) for line in Path(f"{out}.metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in listener.told] == [2, 4, 6] and listener.ended
    assert [values | {"step": step} for step, values in listener.told] == rows
    assert listener.settings["batch"] == 4 and all(
        value is None or isinstance(value, (bool, int, float, str)) for value in listener.settings.values()
    )


def test_tensorboard_by_name_writes_beside_the_file(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, **options):
            self.folder = folder

        def add_hparams(self, values, metric_dict):
            written.append(("settings", values))

        def add_scalar(self, name, value, global_step=None):
            written.append((name, global_step))

        def flush(self):
            pass

        close = flush

    fake = types.ModuleType("tensorboard")
    fake.SummaryWriter, fake.__spec__ = Writer, types.SimpleNamespace(name="tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard", fake)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr("torch.utils.tensorboard", fake, raising=False)
    out = tmp_path / "flow.ckpt"
    distill.train_flow(
        mixture(), small((2,), 8, 1), steps=4, batch=4, log_every=2, log_with="tensorboard", out=out, progress=False
    )
    assert written[0][0] == "settings" and ("loss", 2) in written and ("seconds_left", 4) in written
    assert Path(f"{out}.logs").is_dir()


def test_trackers_that_are_missing_are_named_with_what_adds_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, line in (("wandb", "pip install wandb"), ("tensorboard", "pip install tensorboard")):
        with pytest.raises(ValueError, match=f"log_with: got '{name}', which is not installed; `{line}`"):
            distill.train_flow(mixture(), small((2,), 8, 1), steps=2, log_with=name, progress=False)
    with pytest.raises(ValueError, match="log_with: got 'paper', expected one of tensorboard, wandb"):
        distill.train_flow(mixture(), small((2,), 8, 1), steps=2, log_with="paper", progress=False)


@pytest.mark.parametrize("loss", ["lsd", "trajectory"])
def test_networks_work_in_bfloat16_and_everything_else_in_single_precision(loss, monkeypatch):
    """Weights stay float32, the innermost network's products are bfloat16, those of whitening float32; and what is
    learned is near what single precision learns."""
    seen = {}
    linear, whitened = torch.nn.Linear.forward, Whitened.forward

    def look(self, x):
        out = linear(self, x)
        seen.setdefault("inside", set()).add(out.dtype)
        return out

    def see(self, *arguments, **options):
        out = whitened(self, *arguments, **options)
        seen.setdefault("outside", set()).add(out.dtype)
        return out

    def run(precision):
        inner = small((16,), 16, 1, states=1, times=3)
        net = Whitened(inner, (1, 4, 4), None, IMAGES)
        teacher = distill.train_flow(
            IMAGES, Whitened(small((16,), 16, 1), (1, 4, 4), None, IMAGES), steps=2, progress=False
        )
        seen.clear()
        return distill.distill(
            teacher, IMAGES, net, loss, steps=12, batch=16, warmup=0, ema=0.0, precision=precision, progress=False
        )

    monkeypatch.setattr(torch.nn.Linear, "forward", look)
    monkeypatch.setattr(Whitened, "forward", see)
    start = torch.cat([p.detach().flatten() for p in small((16,), 16, 1, states=1, times=3).parameters()])
    half = run("bf16")
    assert seen == {"inside": {torch.bfloat16}, "outside": {torch.float32}}
    full = run("fp32")
    assert seen == {"inside": {torch.float32}, "outside": {torch.float32}}
    assert {p.dtype for p in half.parameters()} == {torch.float32} and not same(half, full)
    one, other = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (half, full))
    assert float((one - other).norm()) < 0.5 * float((other - start).norm())
    half.denoise(IMAGES, 0.5)
    assert seen["inside"] == {torch.float32}  # as before


@pytest.mark.parametrize("loss", ["trajectory", "lsd", "esd"])
def test_convolutions_train_in_bfloat16_as_in_single_precision(loss, tmp_path):
    """The first step's loss is that of float32 but for the rounding of 8 bits, forward derivatives included."""
    net = small((1, 4, 4), 8, (1, 2), kind=UNet)
    options = {"steps": 1, "batch": 64, "progress": False, "log_every": 1}
    teacher = distill.train_flow(IMAGES, net, **{**options, "steps": 4})
    rows = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / f"{precision}.ckpt"
        distill.distill(teacher, IMAGES, loss=loss, precision=precision, out=out, **options)
        rows[precision] = json.loads(Path(f"{out}.metrics.jsonl").read_text().splitlines()[-1])
    for name in ("loss", "gradient_norm"):
        assert rows["bf16"][name] == pytest.approx(rows["fp32"][name], rel=0.05)
        assert rows["bf16"][name] != rows["fp32"][name]


def test_networks_are_compiled_for_as_long_as_they_are_trained(monkeypatch):
    compile_, called = torch.nn.Module.compile, []

    def by_the_eager_backend(self, *, dynamic, options):
        assert dynamic is False and options is None  # no GPU here
        called.append(self)
        compile_(self, backend="eager", dynamic=dynamic)

    monkeypatch.setattr(torch.nn.Module, "compile", by_the_eager_backend)
    options = {"steps": 3, "batch": 4, "precision": "bf16", "progress": False}
    data = IMAGES.flatten(1)
    plain = distill.train_flow(data, small((16,), 8, 1), **options)
    flow = distill.train_flow(data, small((16,), 8, 1), compiled=True, **options)
    assert called == [flow.net] and same(plain, flow)
    assert flow.net._compiled_call_impl is None


def test_runs_one_after_the_other_are_all_compiled(monkeypatch):
    """Torch gives up on a function of which it keeps so many compiled forms, eight by itself, and says so in a log alone."""
    compile_, graphs = torch.nn.Module.compile, []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compile_(self, backend=counted))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    for _ in range(3):
        distill.train_flow(IMAGES.flatten(1), small((16,), 8, 1), compiled=True, steps=1, batch=4, progress=False)
    assert len(graphs) == 3


def test_precision_is_refused_where_it_cannot_be(monkeypatch):
    from accelerate import Accelerator

    with pytest.raises(ValueError, match="precision: got 'fp16', expected one of fp32, bf16"):
        distill.Schedule(steps=2, precision="fp16")
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
    with pytest.raises(ValueError, match="precision: got 'fp16' from accelerate"):
        distill.train_flow(mixture(), small((2,), 8, 1), steps=2, progress=False)
    monkeypatch.setattr(Accelerator, "mixed_precision", "bf16")
    with pytest.raises(ValueError, match="precision: got 'fp32', but accelerate was launched with 'bf16'"):
        distill.train_flow(mixture(), small((2,), 8, 1), steps=2, precision="fp32", progress=False)
