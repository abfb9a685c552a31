"""The loop: exact resume, no touch of global state, refusals, and the average that it returns."""

import json

import pytest
import torch

import distill

from diamond.checkpoint import read_header
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP
from distill.objectives import FlowObjective, MapObjective
from distill.training.trainer import Schedule, train


def mixture():
    return GaussianMixtureFlow(
        torch.tensor([0.35, 0.65]), torch.tensor([[-1.5, 0.5], [1.0, -0.5]]), torch.tensor([0.16, 0.36])
    )


def small_net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ResidualMLP((2,), width=16, depth=1, states=1, times=3, embedding=8)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Killed(Exception):
    pass


@pytest.mark.parametrize("loss", ["lsd", "trajectory"])
def test_a_killed_run_resumes_to_bitwise_the_same_weights(loss, tmp_path, monkeypatch):
    def run(out, **options):
        return distill.distill(
            mixture(), net=small_net(), loss=loss, steps=23, batch=16, out=out, progress=False, **options
        )

    whole = run(tmp_path / "whole.ckpt")
    call, count = MapObjective.__call__, 0

    def dies(self, *arguments):
        nonlocal count
        count += 1
        if count == 14:  # inside a block of steps that share a preparation
            raise KeyboardInterrupt
        return call(self, *arguments)

    monkeypatch.setattr(MapObjective, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed.ckpt")
    assert not (tmp_path / "killed.ckpt").exists()
    assert read_header(tmp_path / "killed.ckpt.state")["step"] == 13
    resumed = run(tmp_path / "killed.ckpt")
    assert torch.equal(weights(resumed), weights(whole))
    assert not (tmp_path / "killed.ckpt.state").exists()
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed.ckpt.metrics.jsonl").read_text().splitlines()]
    assert steps == [23]


def test_periodic_states_survive_a_kill_without_warning(tmp_path, monkeypatch):
    """A kill that nothing can catch: what is on disk is the last periodic state, and going on from it is exact."""
    flow = lambda: __import__("diamond").Flow(ResidualMLP((2,), width=16, depth=1))  # noqa: E731
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = flow(), flow()
    second.load_state_dict(first.state_dict())
    from distill.training.batches import Batches

    plan, data = Schedule(steps=20, batch=8), Batches(mixture())
    train(first, FlowObjective(), data, plan, progress=False)
    call, count = FlowObjective.__call__, 0

    def dies(self, *arguments):
        nonlocal count
        count += 1
        if count == 18:
            raise Killed
        return call(self, *arguments)

    monkeypatch.setattr(FlowObjective, "__call__", dies)
    out = tmp_path / "flow.ckpt"
    with pytest.raises(Killed):
        train(second, FlowObjective(), data, plan, out=out, save_every=7, progress=False)
    assert read_header(f"{out}.state")["step"] == 14
    train(second, FlowObjective(), data, plan, out=out, progress=False)
    assert torch.equal(weights(first), weights(second))


def test_other_settings_do_not_resume(tmp_path, monkeypatch):
    def stops(self, *arguments):
        raise KeyboardInterrupt

    out = tmp_path / "map.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(MapObjective, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            distill.distill(mixture(), net=small_net(), steps=5, batch=8, out=out, progress=False)
    with pytest.raises(ValueError, match="holds a run with batch=8, expected batch=9; remove"):
        distill.distill(mixture(), net=small_net(), steps=5, batch=9, out=out, progress=False)


def test_training_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    one = distill.distill(mixture(), steps=3, batch=8, progress=False, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # nor does it depend on it
    two = distill.distill(mixture(), steps=3, batch=8, progress=False, seed=4)
    other = distill.distill(mixture(), steps=3, batch=8, progress=False, seed=5)
    assert torch.equal(weights(one), weights(two)) and not torch.equal(weights(one), weights(other))


def test_the_teacher_is_left_as_it_was():
    flow = distill.train_flow(mixture(), ResidualMLP((2,), width=16, depth=1), steps=2, batch=8, progress=False)
    before = weights(flow).clone()
    flow.net.train()
    distill.distill(flow, mixture(), steps=3, batch=8, progress=False)
    assert torch.equal(weights(flow), before)
    assert all(p.requires_grad for p in flow.parameters())
    assert not flow.training and all(part.training for part in flow.net.modules())


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_data_of_any_floating_type_train_the_network_in_its_own(kind):
    """Whole numbers are the same in all of them, and so are the weights that they lead to."""
    data = torch.randint(-3, 4, (20, 2), generator=torch.Generator().manual_seed(0)).float()
    options = {"steps": 3, "batch": 8, "progress": False}
    for recipe in (distill.train_flow, lambda data, **more: distill.distill(mixture(), data, **more)):
        one, other = (recipe(z, **options) for z in (data, data.to(kind)))
        assert other.dtype == torch.float32 and torch.equal(weights(one), weights(other))
    wide = distill.train_flow(data.to(kind), ResidualMLP((2,), 8, 1).double(), **options)
    assert wide.dtype == torch.float64 and distill.distill(wide, data, **options).dtype == torch.float64


def test_a_loss_that_is_not_finite_stops_the_run():
    data = torch.full((4, 2), 1e30)
    with pytest.raises(FloatingPointError, match="step"):
        distill.train_flow(data, ResidualMLP((2,), width=8, depth=1), steps=3, batch=4, progress=False)


@pytest.mark.parametrize(
    "change, name",
    [
        ({"steps": 0}, "steps"), ({"batch": 0}, "batch"), ({"learning_rate": 0.0}, "learning_rate"),
        ({"ema": 1.0}, "ema"), ({"warmup": -1}, "warmup"), ({"clip": 0.0}, "clip"),
        ({"learning_rate": "fast"}, "learning_rate"), ({"learning_rate": float("inf")}, "learning_rate"),
        ({"clip": None}, "clip"), ({"ema": None}, "ema"), ({"ema": (0.9, "slow")}, "ema"), ({"ema": ()}, "ema"),
        ({"seed": 1.5}, "seed"), ({"seed": 2**63}, "seed"),
    ],
)  # fmt: skip
def test_bad_schedules_are_refused(change, name):
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected a"):
        Schedule(**{"steps": 10, **change})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"out": "."}, "out: got '.', which is a folder, expected the name of a file"),
        ({"out": ""}, "out: got '', which is a folder, expected the name of a file"),
        ({"metadata": {"made": object()}}, "metadata: .* not JSON serializable, expected JSON values"),
        ({"out": 5}, "out: got 5, expected the name of a file"),
        ({"metadata": "mine"}, "metadata: got str, expected a dict"),
        ({"interpolant": "cosine"}, "interpolant: got 'cosine', expected diamond.Linear"),
        ({"log_with": 5}, "log_with: got 5, expected one of tensorboard, wandb"),
        ({"label_dropout": "some"}, "label_dropout: got 'some', expected a probability"),
    ],
)
def test_what_could_not_be_done_at_the_end_is_refused_at_the_start(change, message, tmp_path, monkeypatch):
    """The first three once failed when all steps had been taken."""
    monkeypatch.chdir(tmp_path)
    options = {"steps": 2, "batch": 4, "progress": False, "out": "flow.ckpt", **change}
    with pytest.raises(ValueError, match=message):
        distill.train_flow(mixture(), ResidualMLP((2,), 8, 1), **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "data, message",
    [
        (torch.full((3, 2), torch.nan), "finite"),
        (torch.zeros(0, 2), "no samples"),
        (torch.zeros(3, 2, dtype=torch.long), "floating"),
        ([1.0, 2.0], "list"),
        (torch.zeros(3, 5), "expected the model's"),
    ],
)
def test_bad_data_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        distill.distill(mixture(), data, steps=2, batch=4, progress=False)


def test_a_map_is_no_teacher():
    student = distill.distill(mixture(), steps=2, batch=4, progress=False)
    with pytest.raises(ValueError, match="teacher: got a DiamondMap"):
        distill.distill(student, mixture(), steps=2, batch=4, progress=False)
