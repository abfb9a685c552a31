"""Judges in processes of their own: they stay, and are replaced when they hang or die."""

import importlib

import pytest
import torch

from align.rewards import External
from align.scoring import RewardFailure

JUDGES = """
import os
import time


def fickle(samples, cond):
    \"\"\"The product and the process; above 5 it hangs, below -5 it dies, between them 3 is an error.\"\"\"
    first = float(samples[0, 0])
    if first > 5:
        time.sleep(60)
    if first < -5:
        os._exit(7)
    if first == 3:
        raise KeyError("three")
    return samples[:, 0] * samples[:, 1] + 0 * cond if first else [float(os.getpid())] * len(samples)
"""


@pytest.fixture
def judges(tmp_path, monkeypatch):
    """A module that other processes can import."""
    (tmp_path / "judges_of_these_tests.py").write_text(JUDGES)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("judges_of_these_tests")


def test_a_process_that_does_not_start_is_a_failure(tmp_path, judges, z):
    reward = External(judges.fickle, batch=4, process=True)
    (tmp_path / "judges_of_these_tests.py").write_text("raise OSError")  # as the child finds it
    with pytest.raises(
        RewardFailure, match="7 of 7 .* ask: its process did not start, expected an importable"
    ) as caught:
        reward(z, z)
    assert caught.value.rewards.isnan().all() and not reward._idle


def test_processes_answer_stay_and_are_replaced(judges, z, product):
    """One story, since a process takes seconds to start."""
    reward = External(judges.fickle, batch=2, workers=2, process=True, retries=0, timeout=20)
    cond = torch.zeros(7, dtype=torch.bfloat16)
    try:
        assert torch.equal(reward(z, cond), product(z))
        pids = set(reward(torch.zeros(4, 2), cond[:4]).tolist())
        processes = [worker.process for worker in reward._idle]
        assert len(pids) == 2 and pids == {float(process.pid) for process in processes}

        with pytest.raises(RewardFailure, match="2 of 4 .* failed with KeyError: 'three'") as caught:
            reward(torch.tensor([[3.0, 1.0], [0.0, 0.0], [1.0, 2.0], [2.0, 2.0]]), cond[:4])
        assert caught.value.rewards[2:].tolist() == [2.0, 4.0]

        reward.timeout = 0.5
        with pytest.raises(RewardFailure, match="1 of 1 .* TimeoutError: it took longer than 0.5 seconds"):
            reward(torch.full((1, 2), 9.0), cond[:1])
        assert [process.is_alive() for process in processes].count(False) == 1

        with pytest.raises(RewardFailure, match="1 of 1 .* ChildProcessError: its process ended with exit code 7"):
            reward(torch.full((1, 2), -9.0), cond[:1])
        assert not any(process.is_alive() for process in processes)

        reward.timeout = 20
        assert torch.equal(reward(z[:2], cond[:2]), product(z[:2]))
        last = [worker.process for worker in reward._idle]
    finally:
        reward.close()
    assert len(last) == 1 and not last[0].is_alive()
