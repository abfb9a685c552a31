"""Rewards that someone else gives: order, micro-batches, threads, processes, and what goes wrong."""

import importlib
import threading
import time

import numpy
import pytest
import torch

import align

from align.rewards import Brightness, External
from align.scoring import RewardFailure, Scorer

Z = torch.linspace(-1, 1, 14, dtype=torch.float64).reshape(7, 2)


def product(samples):
    return samples[:, 0] * samples[:, 1]


ANSWERS = {
    "tensor": product,
    "list": lambda samples: product(samples).tolist(),
    "array": lambda samples: product(samples).numpy(),
    "list of numpy numbers": lambda samples: list(product(samples).numpy()),
    "in place": lambda samples: product(samples.add_(1).sub_(1)),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("batch", [None, 1, 3, 7, 100])
def test_rewards_stand_in_the_order_of_the_samples(answer, batch):
    found = External(ANSWERS[answer], batch=batch, workers=3)(Z)
    assert found.dtype == torch.float64 and torch.allclose(found, product(Z), rtol=1e-15)


def test_whatever_the_order_of_the_answers():
    def slow(samples):
        time.sleep(0.05 * float(samples[0, 0] < 0))
        return product(samples)

    assert torch.equal(External(slow, batch=1, workers=7)(Z), product(Z))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_judges_see_single_precision(kind):
    seen = []

    def ask(samples):
        seen.append((samples.dtype, samples.device.type, samples.requires_grad, tuple(samples.shape)))
        return [1] * len(samples)

    found = External(ask, batch=4)(Z.to(kind).requires_grad_())
    assert seen == [(torch.float32, "cpu", False, (n, 2)) for n in (4, 3)]
    assert found.dtype == torch.float32 and not found.requires_grad


def test_no_samples_are_no_call():
    assert External(lambda samples: 1 / 0)(Z[:0]).shape == (0,)


def test_conditioning_goes_to_judges_that_take_it():
    cond = {"label": torch.arange(7), "tint": [Z]}

    def ask(samples, cond):
        return product(samples) + cond["label"] + cond["tint"][0][:, 0]

    expected = product(Z) + torch.arange(7) + Z[:, 0]
    assert torch.allclose(Scorer(External(ask, batch=2))(Z, cond), expected)
    assert torch.equal(Scorer(External(product, batch=2))(Z, cond), product(Z))


def test_a_module_that_is_asked_stays_where_it_is():
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
    reward = External(net).double()
    assert not list(reward.parameters()) and reward(Z.float()).shape == (7,)


def test_as_many_calls_are_out_as_there_are_workers():
    together = threading.Barrier(3, timeout=10)

    def ask(samples):
        together.wait()  # breaks unless three are here at once
        return product(samples)

    assert torch.equal(External(ask, batch=1, workers=3, retries=0)(Z[:6]), product(Z[:6]))


def test_and_no_more():
    lock, out, most = threading.Lock(), [], []

    def ask(samples):
        with lock:
            out.append(1)
            most.append(len(out))
        time.sleep(0.01 + 0.04 * float(samples[0, 0] > 0))  # so that they end one by one
        with lock:
            out.pop()
        return product(samples)

    External(ask, batch=1, workers=2)(torch.stack([Z[0], Z[6]] * 3))
    assert max(most) == 2


def test_a_call_that_fails_is_made_again_after_growing_pauses():
    times = []

    def ask(samples):
        times.append(time.monotonic())
        if len(times) < 4:
            raise OSError("busy")
        return product(samples)

    assert torch.equal(External(ask, retries=3, pause=0.05)(Z), product(Z))
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert all(found >= wanted for found, wanted in zip(pauses, (0.05, 0.1, 0.2), strict=True))
    assert sum(pauses) < 3


def test_others_are_asked_during_a_pause():
    order = []

    def ask(samples):
        order.append(int(samples[0, 0]))
        if order == [0]:
            raise OSError("busy")
        return [0.0]

    External(ask, batch=1, pause=0.1)(torch.arange(3.0)[:, None])
    assert order == [0, 1, 2, 0]


WRONG = {
    "nothing": (lambda s: None, "ValueError: ask: it returned NoneType, expected 2 numbers"),
    "words": (lambda s: ["good", "bad"], "ValueError: ask: it returned list, expected 2 numbers"),
    "too few": (lambda s: [1.0], r"ValueError: ask: it returned shape \(1,\), expected a tensor of shape \(2,\)"),
    "a column": (lambda s: numpy.zeros((2, 1)), r"ValueError: ask: it returned shape \(2, 1\)"),
    "nan": (lambda s: [1.0, float("nan")], "ValueError: ask: it returned nan for 1 of 2 samples"),
    "infinity": (lambda s: torch.full((2,), torch.inf), "ValueError: ask: it returned inf for 2 of 2"),
    "complex": (lambda s: torch.zeros(2) + 0j, "ValueError: ask: it returned torch.complex64"),
    "error": (lambda s: {}["key"], "KeyError: 'key'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_answer_that_is_none_is_a_failure_with_its_cause(case):
    ask, message = WRONG[case]
    expected = f"^reward: 2 of 2 samples have no answer, the last try of 2 failed with {message}"
    with pytest.raises(RewardFailure, match=expected) as caught:
        External(ask, retries=1, pause=0)(Z[:2])
    assert caught.value.rewards.isnan().tolist() == [True, True]


def test_minus_infinity_is_an_answer():
    assert External(lambda s: [-torch.inf] * len(s))(Z).isinf().all()


def test_what_was_finished_is_kept_and_nothing_more_is_asked():
    asked = []

    def ask(samples):
        asked.append(float(samples[0, 0]))
        if len(asked) > 2:
            raise ConnectionError("gone")
        return product(samples)

    with pytest.raises(RewardFailure, match="3 of 7 .*last try of 2 failed with ConnectionError: gone") as caught:
        External(ask, batch=2, retries=1, pause=0)(Z)
    assert torch.equal(caught.value.rewards[:4], product(Z[:4]))
    assert caught.value.rewards[4:].isnan().all() and caught.value.rewards.dtype == torch.float64
    # the third micro-batch again and again, or it and the last in turn
    assert len(asked) <= 6


def test_what_is_out_already_is_waited_for():
    failed = threading.Event()

    def ask(samples):
        if samples[0, 0] < -0.9:
            failed.set()
            raise OSError("gone")
        failed.wait(10)
        time.sleep(0.1)
        return product(samples)

    with pytest.raises(RewardFailure) as caught:
        External(ask, batch=4, workers=2, retries=0)(Z)
    assert torch.equal(caught.value.rewards[4:], product(Z[4:])) and caught.value.rewards[:4].isnan().all()


def test_a_call_that_hangs_is_left_alone():
    release, calls = threading.Event(), []

    def ask(samples):
        calls.append(len(samples))
        if len(calls) == 1:
            release.wait(30)
        return product(samples)

    begun = time.monotonic()
    try:
        assert torch.equal(External(ask, batch=4, timeout=0.3, pause=0)(Z), product(Z))
        with pytest.raises(RewardFailure, match="TimeoutError: it took longer than 0.2 seconds"):
            External(lambda s: release.wait(30), timeout=0.2, retries=0)(Z)
        assert time.monotonic() - begun < 10
    finally:
        release.set()


def test_algorithms_give_the_same_as_with_the_function_itself(case_a, mild, seeded):
    for run in (align.best_of_n, align.smc, align.search):
        judged = run(case_a, External(mild, batch=5, workers=2), generator=seeded(3))
        assert torch.equal(judged.samples, run(case_a, mild, generator=seeded(3)).samples)


def test_it_is_a_black_box(case_a, mild):
    with pytest.raises(ValueError, match="^reward: .*estimator='score'"):
        align.guide(case_a, External(mild), 2, 2, 3)
    with pytest.raises(ValueError, match="^reward 'External': .*use estimator='score'"):
        (Brightness() + External(mild))(Z.clone().requires_grad_())
    assert align.guide(case_a, External(mild), 2, 2, 3, estimator="score").samples.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch: got 0, expected a whole number of at least 1"),
        ({"timeout": 0}, "timeout: got 0, expected seconds above 0"),
        ({"timeout": float("nan")}, "timeout: got nan"),
        ({"retries": -1}, "retries: got -1"),
        ({"workers": 0}, "workers: got 0"),
        ({"pause": -0.1}, "pause: got -0.1"),
        ({"process": True}, "ask: got .*lambda.*, which another process cannot import"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        External(lambda s: s, **settings)


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="^ask: got str, expected a callable"):
        External("judge")


def test_no_thread_outlives_its_answer():
    """One that did could meet the end of the program, and abort it."""
    before = set(threading.enumerate())
    reward = External(product, batch=1, workers=2)
    for _ in range(60):
        reward(Z)
        assert set(threading.enumerate()) <= before


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


def test_a_process_that_does_not_start_is_a_failure(tmp_path, judges):
    reward = External(judges.fickle, batch=4, process=True)
    (tmp_path / "judges_of_these_tests.py").write_text("raise OSError")  # as the child finds it
    with pytest.raises(
        RewardFailure, match="7 of 7 .* ask: its process did not start, expected an importable"
    ) as caught:
        reward(Z, Z)
    assert caught.value.rewards.isnan().all() and not reward._idle


def test_processes_answer_stay_and_are_replaced(judges):
    """One story, since a process takes seconds to start."""
    reward = External(judges.fickle, batch=2, workers=2, process=True, retries=0, timeout=20)
    cond = torch.zeros(7, dtype=torch.bfloat16)
    try:
        assert torch.equal(reward(Z, cond), product(Z))
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
        assert torch.equal(reward(Z[:2], cond[:2]), product(Z[:2]))
        last = [worker.process for worker in reward._idle]
    finally:
        reward.close()
    assert len(last) == 1 and not last[0].is_alive()
