"""Runs that are killed at any moment, and end with the same bits."""

import json
import os
import random
import signal
import time
import traceback

from pathlib import Path

import pytest
import torch

import diamond
import distill

from diamond.nets import Transformer

DATA, LABELS = torch.linspace(-1, 1, 128).reshape(32, 1, 2, 2), torch.arange(32) % 2


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def lines(out):
    return [json.loads(line) for line in Path(f"{out}.metrics.jsonl").read_text().splitlines()]


def train(loss, out, steps=20):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, student = (
            Transformer((1, 2, 2), 2, 32, 1, classes=2, **more) for more in ({}, {"states": 1, "times": 3})
        )
    teacher = distill.train_flow(DATA, first, labels=LABELS, steps=2, batch=8, progress=False)
    distill.distill(
        teacher, DATA, student, loss, labels=LABELS, label_dropout=0.2, flip=True, accumulate=2, out=out, steps=steps,
        batch=8, ema=(0.9, 0.5), save_every=1, keep=2, log_every=1, progress=False,
    )  # fmt: skip


def forked(loss, out):
    """A process that trains and ends: a fork of this one, since the start of a new one takes seconds."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        torch.set_num_threads(1)
        train(loss, out)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # on no account the rest of the tests


def run_whole(loss, out):
    assert os.waitpid(forked(loss, out), 0)[1] == 0


def run_and_kill(loss, out, seconds):
    """Whether it was killed before its end, that long after it has got on."""
    process, state = forked(loss, out), Path(f"{out}.state")

    def alive():
        ended, status = os.waitpid(process, os.WNOHANG)
        assert status == 0
        return not ended

    def saved():
        return state.stat().st_mtime_ns if state.exists() else 0

    before = saved()
    while saved() == before:
        if not alive():
            return False
        time.sleep(0.001)
    time.sleep(seconds)
    if not alive():
        return False
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder for each loss, and how often its run was killed."""
    draw, found = random.Random(1), {}
    for loss in ("lsd", "trajectory"):
        folder, kills = tmp_path_factory.mktemp(loss), 0
        train(loss, folder / "first.ckpt", steps=1)  # what is slow at first is done before the forks
        run_whole(loss, folder / "whole.ckpt")
        while kills < 5 and run_and_kill(loss, folder / "killed.ckpt", draw.uniform(0, 0.03)):
            kills += 1
        if not (folder / "killed.ckpt").exists():
            run_whole(loss, folder / "killed.ckpt")
        found[loss] = folder, kills
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("loss", ["lsd", "trajectory"])
def test_a_run_killed_at_any_moment_ends_with_bitwise_the_same_weights(loss, killed):
    """Killed by SIGKILL up to five times, at random moments while it writes a state at every step."""
    folder, kills = killed[loss]
    assert kills >= 2
    for end in (".ckpt", ".ema-0.5.ckpt"):
        assert same(*(diamond.load(folder / (name + end)) for name in ("whole", "killed")))
    assert [row["step"] for row in lines(folder / "killed.ckpt")] == [*range(1, 21)]
    seconds = [row["seconds"] for row in lines(folder / "killed.ckpt")]
    assert seconds == sorted(seconds)
    expected = {
        f"{name}{end}"
        for name in ("first", "whole", "killed")
        for end in (".ckpt", ".ema-0.5.ckpt", ".ckpt.metrics.jsonl")
    }
    assert {path.name for path in folder.iterdir()} == expected  # no state and no draft is left
