"""States: whole at every moment, exact to go on from after any kill, pruned, and refused with the difference named."""

import errno
import json

from pathlib import Path

import pytest
import torch

import distill

from diamond.checkpoint import read_header, read_tensors, write_tensors
from diamond.flow import Flow
from diamond.interpolant import Cosine
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP
from distill.objectives import FlowObjective, MapObjective


def mixture():
    return GaussianMixtureFlow(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.full((2,), 0.1))


def train(out, width=8, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResidualMLP((2,), width=width, depth=1)
    return distill.train_flow(mixture(), net, out=out, progress=False, **{"steps": 20, "batch": 8, **options})


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def lines(out):
    return [json.loads(line) for line in Path(f"{out}.metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def fails_at(monkeypatch):
    """Makes the loss raise at its n-th call."""

    def arm(n, error):
        call, count = FlowObjective.__call__, []

        def counted(self, *arguments):
            count.append(None)
            if len(count) == n:
                raise error
            return call(self, *arguments)

        monkeypatch.setattr(FlowObjective, "__call__", counted)

    yield arm
    monkeypatch.undo()


def test_a_full_disk_leaves_the_state_before_it(tmp_path, monkeypatch):
    out, write, count = tmp_path / "flow.ckpt", Path.write_bytes, []

    def fills_up(self, content):
        if "state" not in self.name:
            return write(self, content)
        count.append(None)
        if len(count) == 3:
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fills_up)
        with pytest.raises(OSError, match="No space left on device; the state of step 10 is kept") as caught:
            train(out, save_every=5)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == f"{out}.state"
    assert read_header(f"{out}.state")["step"] == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.ckpt.metrics.jsonl", "flow.ckpt.state"]
    assert same(train(out), train(tmp_path / "whole.ckpt"))


def test_the_latest_states_are_kept_and_older_ones_pruned(tmp_path, fails_at):
    out = tmp_path / "flow.ckpt"
    (tmp_path / "flow.ckpt.17.state").touch()  # of a run that was given up
    fails_at(15, ArithmeticError)
    with pytest.raises(ArithmeticError):
        train(out, save_every=3, keep=3, resume=False)
    found = {path.name: read_header(path)["step"] for path in tmp_path.glob("*.state")}
    assert found == {"flow.ckpt.6.state": 6, "flow.ckpt.9.state": 9, "flow.ckpt.state": 12}
    train(out, keep=3)
    assert not [*tmp_path.glob("*.state")]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch": 16}, "holds a run with batch=8, expected batch=16; remove it, or give --no-resume"),
        ({"seed": 3, "ema": 0.5}, "with ema=0.999, seed=0, expected ema=0.5, seed=3; remove it"),
        ({"accumulate": 2}, r"processes \* accumulate=1, expected processes \* accumulate=2"),
        ({"times": "early"}, "objective.times='uniform', expected objective.times='early'"),
        ({"precision": "bf16"}, "precision='fp32', expected precision='bf16'"),
        (
            {"width": 16},
            r"model.net.config.width=8, expected model.net.config.width=16; remove it, or give --no-resume",
        ),
        ({"interpolant": Cosine()}, "model.interpolant='linear', expected model.interpolant='cosine'"),
        ({"prediction": "noise"}, "model.prediction='velocity', expected model.prediction='noise'"),
    ],
)
def test_other_settings_are_refused_with_the_difference_named(change, message, tmp_path, fails_at):
    out = tmp_path / "flow.ckpt"
    fails_at(4, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(out)
    with pytest.raises(ValueError, match=message):
        train(out, **change)
    train(out, **change, resume=False)


def test_a_file_that_is_no_state_is_refused_with_what_to_do(tmp_path):
    out, state = tmp_path / "flow.ckpt", tmp_path / "flow.ckpt.state"
    train(state, steps=1)
    with pytest.raises(ValueError, match="it is a Flow, expected a training state; remove it, or give --no-resume"):
        train(out)
    state.write_bytes(b"half")
    with pytest.raises(ValueError, match="it is empty, truncated or foreign, .*; remove it, or give --no-resume"):
        train(out)
    train(out, resume=False)


def test_other_data_are_refused(tmp_path, fails_at):
    out, data = tmp_path / "flow.ckpt", torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    fails_at(4, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        distill.train_flow(data, ResidualMLP((2,), 8, 1), steps=9, out=out, progress=False)
    with pytest.raises(ValueError, match="data.samples=10, expected .*data.samples=9"):
        distill.train_flow(data[1:], ResidualMLP((2,), 8, 1), steps=9, out=out, progress=False)
    with pytest.raises(
        ValueError, match="with data.fingerprint='[0-9a-f]{8}', expected data.fingerprint='[0-9a-f]{8}'"
    ):
        distill.train_flow(data.flip(0), ResidualMLP((2,), 8, 1), steps=9, out=out, progress=False)


def test_another_teacher_is_refused(tmp_path, monkeypatch):
    out, data = tmp_path / "map.ckpt", torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    one, other = (distill.train_flow(data, ResidualMLP((2,), 8, 1), steps=1, seed=n, progress=False) for n in (0, 1))
    monkeypatch.setattr(MapObjective, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distill.distill(one, data, steps=2, out=out, progress=False)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="objective.teacher='Flow, [0-9a-f]{8}', expected objective.teacher='Flow"):
        distill.distill(other, data, steps=2, out=out, progress=False)
    distill.distill(one, data, steps=2, out=out, progress=False)


def test_the_same_weights_of_a_teacher_that_are_read_in_another_way_are_refused(tmp_path, monkeypatch):
    """But for a state of an earlier version, which does not tell how they were read."""
    out, data = tmp_path / "map.ckpt", torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    net, student = ResidualMLP((2,), 8, 1), ResidualMLP((2,), 8, 1, states=1, times=3)
    run = lambda kind: distill.distill(  # noqa: E731
        Flow(net, prediction=kind), data, student, steps=2, batch=8, out=out, progress=False
    )
    with monkeypatch.context() as patch:
        patch.setattr(MapObjective, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("velocity")
    with pytest.raises(
        ValueError, match="holds a run with teacher.prediction='velocity', expected .*='denoiser'; remove"
    ):
        run("denoiser")
    tensors, header = read_tensors(f"{out}.state")
    write_tensors(f"{out}.state", tensors, {name: header[name] for name in ("kind", "step", "settings")})
    run("denoiser")


def interrupted(self, *arguments):
    raise KeyboardInterrupt


def test_what_a_kill_left_beside_a_state_is_removed(tmp_path, fails_at):
    out = tmp_path / "flow.ckpt"
    fails_at(4, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(out)
    (tmp_path / "flow.ckpt.state.next").write_bytes(b"half")
    train(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.ckpt", "flow.ckpt.metrics.jsonl"]


def test_metrics_are_cut_back_to_the_state(tmp_path, fails_at):
    """Without a chance to save, the lines since the last state are of steps that come again."""
    out = tmp_path / "flow.ckpt"
    fails_at(15, ArithmeticError)
    with pytest.raises(ArithmeticError):
        train(out, save_every=6, log_every=2)
    assert [row["step"] for row in lines(out)] == [2, 4, 6, 8, 10, 12, 14]
    with Path(f"{out}.metrics.jsonl").open("ab") as file:
        file.write(b'{"loss": 0.1, "st')  # as a kill may leave it
    told = Path(f"{out}.metrics.jsonl").read_bytes().splitlines(keepends=True)
    others = [b"\0\0\n", b'"\xff"\n', b"7\n", b"{}\n"]  # and as a disk may, or an editor
    Path(f"{out}.metrics.jsonl").write_bytes(b"".join([told[0], *others, *told[1:]]))
    train(out, save_every=6, log_every=2)
    assert [row["step"] for row in lines(out)] == [*range(2, 21, 2)]
    train(out, log_every=10)  # a new run begins a new file
    rows = lines(out)
    assert [row["step"] for row in rows] == [10, 20]
    assert rows[0]["seconds_left"] == pytest.approx(rows[0]["seconds"], rel=1e-6) and rows[1]["seconds_left"] == 0


def test_a_loss_that_turns_bad_is_told_by_its_step_and_leaves_the_last_good_state(tmp_path, monkeypatch):
    out, call = tmp_path / "flow.ckpt", FlowObjective.__call__

    def turns_bad(kind):
        count = []

        def bad(self, model, prepared, generator):
            count.append(None)
            terms = call(self, model, prepared, generator)
            if len(count) != 13:
                return terms
            weight = next(model.parameters()).sum()
            return {"flow_matching": terms["flow_matching"] * kind if kind != "gradient" else (weight * 0).sqrt()}

        return bad

    for kind, said in (
        (float("nan"), "got nan"), (float("inf"), "got inf"), ("gradient", "got a gradient of norm nan"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(FlowObjective, "__call__", turns_bad(kind))
            message = f"loss: {said} at step 13, expected a finite number; the state of step 10 is kept in {out}.state"
            with pytest.raises(FloatingPointError, match=message):
                train(out, save_every=5, resume=False)
        assert read_header(f"{out}.state")["step"] == 10
    assert same(train(out), train(tmp_path / "whole.ckpt"))  # what it was is over: the same steps again, and good
