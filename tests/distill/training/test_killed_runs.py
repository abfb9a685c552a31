"""Runs that are killed at any moment, and end with the same bits."""

import json
import os
import subprocess
import sys
import textwrap

from pathlib import Path

import pytest
import torch

import diamond


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def lines(out):
    return [json.loads(line) for line in Path(f"{out}.metrics.jsonl").read_text().splitlines()]


KILLED = """
    import os, random, signal, sys, time
    import torch
    import distill
    from diamond.nets import ResidualMLP, Transformer

    draw = random.Random(1)
    torch.set_num_threads(1)
    data = torch.linspace(-1, 1, 128).reshape(32, 1, 2, 2)

    def train(loss, out, steps=20):
        torch.manual_seed(0)
        plan = {"steps": steps, "batch": 8, "ema": (0.9, 0.5), "save_every": 1, "keep": 2, "log_every": 1}
        labels, student = torch.arange(32) % 2, {"classes": 2, "states": 1, "times": 3}
        teacher = distill.train_flow(
            data, Transformer((1, 2, 2), 2, 32, 1, classes=2), labels=labels, steps=2, batch=8, progress=False
        )
        distill.distill(
            teacher, data, Transformer((1, 2, 2), 2, 32, 1, **student), loss, labels=labels, label_dropout=0.2, flip=True,
            accumulate=2, out=out, progress=False, **plan,
        )

    def alive(pid):
        return os.waitpid(pid, os.WNOHANG)[0] == 0

    def at(path):
        return os.stat(path).st_mtime_ns if os.path.exists(path) else 0

    def run(loss, out, kill):
        pid, state = os.fork(), f"{out}.state"
        if pid == 0:
            train(loss, out)
            os._exit(0)
        if not kill:
            assert os.waitpid(pid, 0)[1] == 0
            return False
        before = at(state)
        while at(state) == before:  # until it has got on
            if not alive(pid):
                return False
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        if not alive(pid):
            return False
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return True

    for loss in ("lsd", "trajectory"):
        folder, kills = f"{sys.argv[1]}/{loss}", 0
        os.mkdir(folder)
        train(loss, f"{folder}/first.ckpt", steps=1)  # what is slow at first is done before the forks
        run(loss, f"{folder}/whole.ckpt", kill=False)
        while kills < 5 and run(loss, f"{folder}/killed.ckpt", kill=True):
            kills += 1
        if not os.path.exists(f"{folder}/killed.ckpt"):
            run(loss, f"{folder}/killed.ckpt", kill=False)
        print(loss, kills)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder for each loss, and how often its run was killed; by one process, since its start takes seconds."""
    folder = tmp_path_factory.mktemp("killed")
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return {loss: (folder / loss, int(kills)) for loss, kills in map(str.split, process.stdout.splitlines())}


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
