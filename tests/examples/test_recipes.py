"""The recipes of the models that ship: steps by the clock, an end when time is up, a start where it was, and cards."""

import json
import shutil
import signal
import sys
import time

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import diamond

from diamond.data import load_data

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # the examples are not installed
    sys.path.insert(0, str(ROOT))

from examples.recipes import budget, cifar10, command, digits, mnist  # noqa: E402
from examples.recipes.card import ship  # noqa: E402
from examples.recipes.features import features_of  # noqa: E402
from examples.recipes.stage import Run, Stage  # noqa: E402
from examples.recipes.stages import distil_map, refine_map, train_teacher  # noqa: E402

SMALL = replace(digits.RECIPE, width=8, shared={"batch": 8, "label_dropout": 0.1})


def run(folder, seconds=60.0, steps=(4, 8), seed=0):
    return Run(folder, seconds, steps, seed, progress=False)


@pytest.fixture(scope="module")
def data():
    return load_data("digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """A folder with a teacher and a map of a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    distil_map(SMALL, data, train_teacher(SMALL, data, run(folder)), run(folder))
    return folder


def test_steps_are_as_many_as_fit_and_are_remembered(tmp_path):
    """Two seconds before the first step of a trial come once more with the run, and leave half of the time planned for."""
    trials = []

    def trial(steps, timed):
        trials.append(steps)
        clock.seconds += 2.0 + 0.01 * steps
        return 0.01 * timed

    class clock:
        seconds = 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget.time, "perf_counter", lambda: clock.seconds)
        steps = budget.planned_steps(tmp_path / "new" / "plan.json", 10.0, trial)
        assert steps == 472  # whole blocks of eight in 0.9 * 10 - 2.24 - 2 seconds
        assert budget.planned_steps(tmp_path / "new" / "plan.json", 99.0, trial) == steps and len(trials) == 1
        assert budget.planned_steps(tmp_path / "late.json", 3.0, trial) == 8  # some, even if time is short


def test_a_trial_tells_the_seconds_of_its_last_steps(tmp_path):
    """And leaves nothing behind."""

    def train(steps, out, progress, log_every):
        assert (steps, log_every, progress) == (24, 8, False)
        rows = [{"seconds": 5.0 + step} for step in range(log_every, steps + 1, log_every)]  # five before the first
        Path(f"{out}.metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        seen.append(out)

    seen = []
    assert Stage("map", train, lambda: None, {})._tried(24, 16) == 16.0
    assert not seen[0].parent.exists()


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, which the workers of a parallel test run ignore."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


def test_a_deadline_interrupts_and_says_so(interruptible):
    with pytest.raises(KeyboardInterrupt), budget.Deadline(0.05) as deadline:
        time.sleep(5)
    assert deadline.passed
    with budget.Deadline(0.05) as deadline:
        pass
    time.sleep(0.1)
    assert not deadline.passed


def test_time_may_be_up_before_the_first_step(interruptible, tmp_path, monkeypatch):
    monkeypatch.setattr("examples.recipes.stage.planned_steps", lambda *_: 400)
    stage = Stage("map", lambda **_: time.sleep(5), lambda: None, {})
    with pytest.raises(SystemExit, match="^map: time is up before its first step; give more --minutes"):
        stage.model(Run(tmp_path, 1.0), 0.5, None)


def test_both_stages_leave_models_of_each_other(trained):
    teacher, model = (diamond.load(trained / f"{name}.ckpt") for name in ("teacher", "map"))
    assert isinstance(teacher, diamond.Flow) and isinstance(model, diamond.DiamondMap)
    assert teacher.metadata["steps"] == 4 and model.metadata["steps"] == 8
    assert model.metadata["teacher"] == "digits-teacher" and model.metadata["data"] == "digits"
    for cond in (None, torch.tensor([3, 10])):
        assert model.sample(2, cond=cond).shape == (2, 1, 8, 8)


def test_a_stage_that_is_done_is_not_done_again(trained, data):
    before = (trained / "teacher.ckpt").read_bytes(), (trained / "map.ckpt").read_bytes()
    again = run(trained, steps=(400_000, 400_000))
    distil_map(SMALL, data, train_teacher(SMALL, data, again), again)
    assert before == ((trained / "teacher.ckpt").read_bytes(), (trained / "map.ckpt").read_bytes())


def test_when_time_is_up_the_average_is_saved_and_training_goes_on_from_there(trained, tmp_path, data, monkeypatch):
    """What is slow at first is done before, by the fixture."""
    monkeypatch.setattr("examples.recipes.stage.planned_steps", lambda *_: 400)
    monkeypatch.setattr("examples.recipes.stage.Deadline", lambda seconds: budget.Deadline(seconds / 2))
    flow = train_teacher(SMALL, data, run(tmp_path, 1.0, (None, None)))  # half of a second
    done = flow.metadata["steps"]
    if done == 400:
        pytest.skip("this machine is too fast")
    assert flow.metadata["planned_steps"] == 400 and flow.metadata["data"] == "digits"
    whole = train_teacher(SMALL, data, run(tmp_path, 600.0, (None, None)))
    assert whole.metadata["steps"] == 400 and "planned_steps" not in whole.metadata
    assert not (tmp_path / "teacher.ckpt.state").exists()
    straight = train_teacher(SMALL, data, run(tmp_path / "straight", 600.0, (400, None)))
    assert all(torch.equal(value, straight.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_teacher_that_has_taught_stays_as_it_is(trained, data):
    state = trained / "teacher.ckpt.state"
    state.write_bytes(b"")
    try:
        assert train_teacher(SMALL, data, run(trained, steps=(400_000, 8))).metadata["steps"] == 4
    finally:
        state.unlink()


def test_cards_tell_what_is_shipped(trained, monkeypatch):
    arguments = ["--stage", "card", "--quick", "--out", str(trained)]
    command.main(SMALL, "a recipe", 1.0, arguments)
    figures = json.loads((trained / "figures.json").read_text())
    assert set(figures["posterior"]) == {"0.2", "0.4", "0.6", "0.8"} and "teacher, 64 steps" in figures["samples"]
    for name, steps in (("digits", 8), ("digits-teacher", 4)):
        card = (trained / "weights" / f"{name}.md").read_text()
        assert card.startswith(f"# {name}\n") and f"{steps} steps, seed 0" in card and "| map, 1 step |" in card
        model = diamond.load(trained / "weights" / f"{name}.safetensors")
        assert model.dtype == torch.float32 and model.metadata["data"] == "digits"
    assert (trained / "map.png").is_file() and (trained / "teacher.png").is_file()
    model = diamond.load(trained / "map.ckpt")
    monkeypatch.setattr("examples.recipes.card.LARGEST", 1000)
    with pytest.raises(ValueError, match="width: got 8, whose file is larger than 1000 bytes"):
        ship(model, "large", SMALL, figures, trained)
    assert not (trained / "large.safetensors").exists()


def test_a_refined_map_is_a_deeper_network_that_goes_on_from_the_first(trained, data, tmp_path, monkeypatch):
    monkeypatch.setattr("examples.recipes.features.STEPS", 2)
    first_round = {"perceptual": 0.3, "times": "early", "learning_rate": 1e-9}
    recipe = replace(SMALL, blocks=4, refine=(
        {**first_round, "points": 4}, {**first_round, "law": 30.0, "optimizer": "muon"},
    ))  # fmt: skip
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    teacher, first = (diamond.load(tmp_path / f"{name}.ckpt") for name in ("teacher", "map"))
    refined = refine_map(recipe, data, teacher, first, run(tmp_path, steps=(4, 8, 2, 3)))
    assert len(refined.net.net.blocks) == 4 and len(first.net.net.blocks) == 3
    rounds = [*refined.metadata["before"], refined.metadata]
    assert [(known["steps"], known["seed"]) for known in rounds] == [(8, 0), (2, 0), (3, 1)]
    assert diamond.load(tmp_path / "refined.ckpt").metadata["steps"] == 2
    noise = torch.randn(1, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x, labels = data.images[:2], data.labels[:2]
    assert torch.allclose(*(model.posterior(x, 0.5, noise=noise, cond=labels) for model in (first, refined)), atol=1e-4)
    before = (tmp_path / "features.safetensors").read_bytes()
    again = features_of(data, tmp_path / "features.safetensors", seed=1)  # read, not made
    assert (tmp_path / "features.safetensors").read_bytes() == before
    assert [tuple(found.shape[1:]) for found in again(x)] == [(24, 4, 4), (48, 2, 2), (64, 1, 1)]
    assert not any(weights.requires_grad for weights in again.parameters())
    deep = features_of(
        data, tmp_path / "deep.safetensors", widths=(8, 16), depth=2, pooled=True, steps=1, batch=4, flip=True
    )
    found = deep(x)
    assert [tuple(one.shape[1:]) for one in found] == [(8, 4, 4), (16, 2, 2), (16,)]
    torch.testing.assert_close(found[2], found[1].mean((2, 3)))
    torch.testing.assert_close(deep.scores(x), deep.classify(found[2]))
    monkeypatch.setattr(
        command, "measure", lambda *_, **__: {"posterior": {"0.5": 1.0}, "posterior, fitted": {"0.5": 1.0}}
    )
    command.main(recipe, "a recipe", 1.0, ["--stage", "card", "--quick", "--out", str(tmp_path)])
    card = (tmp_path / "weights" / "digits.md").read_text()
    assert (
        "8 steps, seed 0, batch 8" in card
        and "by a network of 4 blocks that goes on from there, 2 steps, seed 0, " in card
    )
    assert "then, 3 steps, seed 1, law 30.0, optimizer muon, no points; " in card
    assert "perceptual 0.3" in card and "another classifier" in card
    assert len(diamond.load(tmp_path / "weights" / "digits.safetensors").net.net.blocks) == 4


def test_a_map_may_be_that_of_the_guided_teacher(trained, data, tmp_path, monkeypatch):
    """Which its file says, so that its figures and its card are measured against that teacher, whenever they are."""
    shutil.copy(trained / "teacher.ckpt", tmp_path)
    recipe = replace(SMALL, guidance=2.0)
    plain, model = diamond.load(trained / "map.ckpt"), distil_map(recipe, data, diamond.load(tmp_path / "teacher.ckpt"),
                                                                  run(tmp_path))  # fmt: skip
    assert model.metadata["guidance"] == 2.0 and "guidance" not in plain.metadata
    with pytest.raises(
        SystemExit, match="^--guidance: got None, but the map in .* was made with 2.0, expected the same"
    ):
        distil_map(SMALL, data, diamond.load(tmp_path / "teacher.ckpt"), run(tmp_path))
    assert any(not torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    command.main(SMALL, "a recipe", 1.0, ["--stage", "card", "--quick", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "figures.json").read_text())["guidance"] == 2.0
    for name in ("digits", "digits-teacher"):
        assert (
            "The teacher is guided at scale 2, as the map knows it."
            in (tmp_path / "weights" / f"{name}.md").read_text()
        )
    seen = []
    monkeypatch.setattr(command, "train_teacher", lambda recipe, *_, **__: seen.append(recipe.guidance))
    command.main(recipe, "a recipe", 1.0, ["--stage", "teacher", "--out", str(tmp_path)])
    command.main(recipe, "a recipe", 1.0, ["--stage", "teacher", "--out", str(tmp_path), "--guidance", "3"])
    assert seen == [2.0, 3.0]


def test_shares_of_the_time_must_leave_some_for_each_stage(tmp_path):
    for share in ("0.7", "0", "-1"):
        with pytest.raises(SystemExit, match="^--teacher-share: got .*, expected above 0 and below 0.4"):
            command.main(mnist.RECIPE, "a recipe", 1.0, ["--teacher-share", share, "--out", str(tmp_path)])


def test_a_model_whose_last_note_a_kill_prevented_is_noted_later(trained, data, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    teacher = diamond.load(tmp_path / "teacher.ckpt")
    known = {teacher.metadata.pop(name) for name in ("minutes", "machine")}
    teacher.save(tmp_path / "teacher.ckpt")
    again = train_teacher(SMALL, data, run(tmp_path, steps=(4, 8)))
    assert {again.metadata[name] for name in ("minutes", "machine")} == known


def test_more_numbers_of_steps_than_rounds_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="^--refine-steps: got 3 numbers, expected at most one for each of 2 rounds"):
        command.main(mnist.RECIPE, "a recipe", 1.0, ["--refine-steps", "1", "2", "3", "--out", str(tmp_path)])


def test_a_recipe_without_a_refined_map_says_so(tmp_path):
    with pytest.raises(SystemExit, match="^--stage: got refine, but the recipe of digits has no refined map"):
        command.main(digits.RECIPE, "a recipe", 1.0, ["--stage", "refine", "--out", str(tmp_path)])


@pytest.mark.parametrize("module", [mnist, cifar10])
def test_the_larger_recipes_run_on_a_few_images(module, tmp_path, monkeypatch):
    shape = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[module.RECIPE.data]
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    labels = np.arange(20) % 10
    np.savez(tmp_path / "a.npz", train_images=images, test_images=images, train_labels=labels, test_labels=labels)
    monkeypatch.setattr(command, "load_data", lambda name, **given: load_data(tmp_path / "a.npz", split=given["split"]))
    monkeypatch.setattr(
        command, "measure", lambda *_, **__: {"posterior": {"0.5": 1.0}, "posterior, fitted": {"0.5": 1.0}}
    )
    recipe = replace(module.RECIPE, data=module.RECIPE.data)
    arguments = ["--quick", "--quiet", "--batch", "4", "--width", "4", "--teacher-steps", "1", "--map-steps", "1"]
    arguments += ["--refine-steps", *["1"] * len(recipe.refine)] if recipe.refine else []
    monkeypatch.setattr("examples.recipes.features.STEPS", 1)
    command.main(recipe, "a recipe", 1.0, [*arguments, "--out", str(tmp_path / "out")])
    model = diamond.load(tmp_path / "out" / "weights" / f"{module.RECIPE.data}.safetensors")
    assert isinstance(model, diamond.DiamondMap) and model.event_shape == shape
