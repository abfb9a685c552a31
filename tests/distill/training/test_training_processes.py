"""Two processes take the steps of one: the same batches, the gradient of the whole batch, one end for both.

Torch's launcher forks two processes of one thread each off this one, which train every case and leave their models in a
folder; each test holds one against a run of its own, in this process.
"""

import json
import os
import signal

from pathlib import Path

import pytest
import torch

from accelerate.state import AcceleratorState
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import diamond
import distill

from diamond.diamond_map import DiamondMap
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Transformer
from distill.objectives import FlowObjective, MapObjective
from distill.training.batches import Batches
from distill.training.trainer import Schedule, train


def mixture():
    return GaussianMixtureFlow(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), torch.full((2,), 0.2))


def student():
    torch.manual_seed(0)
    return ResidualMLP((2,), width=16, depth=1, states=1, times=3)


class Rows(FlowObjective):
    """Flow matching whose times and noises come from the data themselves: nothing depends on who draws. In double
    precision, because the first steps of Adam are near the signs of the gradient's entries, some of which are tiny."""

    def __call__(self, model, prepared, generator):
        z = prepared[0].double()
        t, noise = torch.sigmoid(3 * z.sum(1)), torch.sin(37 * z)
        x = model.interpolant.interpolate(z, noise, t)
        return {"rows": (model.velocity(x, t) - (z - noise)).square().flatten(1).mean(1).mean()}


def by_rows(out, **options):
    torch.manual_seed(0)
    flow = diamond.Flow(ResidualMLP((2,), width=16, depth=1)).double()
    plan = Schedule(steps=12, batch=16, warmup=0, **options)
    train(flow, Rows(), Batches(mixture()), plan, out=out, progress=False, log_every=4)


def by_loss(loss, **more):
    def run(out, **options):
        distill.distill(
            mixture(),
            net=student(),
            loss=loss,
            steps=12,
            batch=16,
            warmup=0,
            out=out,
            progress=False,
            **more,
            **options,
        )

    return run


def by_images(out, **options):
    torch.manual_seed(0)
    images = torch.randn(20, 1, 4, 4)
    distill.train_flow(
        images, Transformer((1, 4, 4), 2, 16, 1, classes=3), labels=torch.arange(20) % 3, label_dropout=0.3, flip=True,
        steps=12, batch=16, warmup=0, out=out, progress=False, sample_every=6, **options,
    )  # fmt: skip


class Upset(MapObjective):
    """Goes wrong, or is told to stop, at step 5, in the second process or part alone."""

    def __call__(self, model, prepared, generator):
        terms = super().__call__(model, prepared, generator)
        process = int(os.environ.get("RANK", 0))
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        if self.calls == 5 and process == 1:
            if self.points == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                terms = {name: value * float("nan") for name, value in terms.items()}
        return terms


def upset(points):
    def run(out, **options):
        model = DiamondMap(student())
        plan = Schedule(steps=12, batch=16, **options)
        train(model, Upset(mixture(), points=points), Batches(mixture()), plan, out=out, progress=False, save_every=4)

    return run


CASES = {
    "rows": by_rows,
    "lsd": by_loss("lsd"),
    "trajectory": by_loss("trajectory", ema=(0.9, 0.5)),
    "learned": by_loss("lsd", weighting="learned"),
    "images": by_images,
    "stopped": upset(7),
    "bad": upset(8),
}


def main(folder):
    """What each process does."""
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)  # which may be that of one process
    said = {}
    for name, run in CASES.items():
        try:
            run(folder / f"{name}.ckpt")
        except (KeyboardInterrupt, FloatingPointError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    (folder / f"said-{os.environ['RANK']}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder in which two processes have left the models of all cases."""
    folder = tmp_path_factory.mktemp("two")
    launcher = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", run_id="two", max_restarts=0,
    )  # fmt: skip
    CASES["lsd"](folder / "first.ckpt")  # what is slow at first is done before the forks
    kept = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    elastic_launch(launcher, main)(folder)
    for name, handler in kept.items():  # the launcher's own stay behind
        signal.signal(name, handler)
    return folder


def gap(one, other):
    states = [diamond.load(path).state_dict() for path in (one, other)]
    return max(float((states[0][name] - states[1][name]).abs().max()) for name in states[0])


def rows_of(path):
    return [json.loads(line) for line in Path(f"{path}.metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", ["lsd", "trajectory", "learned", "images"])
def test_two_processes_take_the_steps_of_one_that_accumulates_two_parts(case, two, tmp_path):
    CASES[case](tmp_path / "one.ckpt", accumulate=2)
    assert gap(two / f"{case}.ckpt", tmp_path / "one.ckpt") < 1e-5
    theirs, ours = rows_of(two / f"{case}.ckpt")[-1], rows_of(tmp_path / "one.ckpt")[-1]
    for name in ("loss", "gradient_norm", "step", "learning_rate"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-4)
    CASES[case](tmp_path / "whole.ckpt")  # other numbers are drawn for one part alone
    assert gap(two / f"{case}.ckpt", tmp_path / "whole.ckpt") > 2e-3


def test_two_processes_and_two_parts_have_the_gradient_of_the_whole_batch(two, tmp_path):
    """Where nothing but the data is drawn, steps do not depend on how a batch is shared out."""
    by_rows(tmp_path / "one.ckpt")
    assert gap(two / "rows.ckpt", tmp_path / "one.ckpt") < 1e-10
    for parts in (2, 4):
        by_rows(tmp_path / "parts.ckpt", accumulate=parts)
        assert gap(tmp_path / "parts.ckpt", tmp_path / "one.ckpt") < 1e-10
    losses = [[row["loss"] for row in rows_of(path)] for path in (two / "rows.ckpt", tmp_path / "one.ckpt")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_a_signal_to_one_process_stops_both_and_one_process_can_go_on(two, tmp_path):
    said = [json.loads((two / f"said-{rank}.json").read_text()) for rank in (0, 1)]
    assert [sides["stopped"] for sides in said] == ["KeyboardInterrupt: "] * 2
    assert diamond.checkpoint.read_header(two / "stopped.ckpt.state")["step"] == 8  # where they next agree
    upset(7)(two / "stopped.ckpt", accumulate=2)
    upset(7)(tmp_path / "whole.ckpt", accumulate=2)
    assert gap(two / "stopped.ckpt", tmp_path / "whole.ckpt") < 2e-5


def test_a_loss_that_turns_bad_in_one_process_stops_both(two):
    for rank in (0, 1):
        said = json.loads((two / f"said-{rank}.json").read_text())["bad"]
        assert "FloatingPointError: loss: got nan at step 5" in said
    assert diamond.checkpoint.read_header(two / "bad.ckpt.state")["step"] == 4


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match="batch: got 10, expected a multiple of 4: accumulate=4, and 1 processes"):
        distill.distill(mixture(), net=student(), steps=2, batch=10, accumulate=4, progress=False)
