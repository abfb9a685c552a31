"""Judges that fail, answer nonsense or hang: tries, pauses, limits, and what is kept."""

import threading
import time

import numpy
import pytest
import torch

from align.rewards import External
from align.scoring import RewardFailure


def test_a_call_that_fails_is_made_again_after_growing_pauses(product, z):
    times = []

    def ask(samples):
        times.append(time.monotonic())
        if len(times) < 4:
            raise OSError("busy")
        return product(samples)

    assert torch.equal(External(ask, retries=3, pause=0.05)(z), product(z))
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
def test_an_answer_that_is_none_is_a_failure_with_its_cause(case, z):
    ask, message = WRONG[case]
    expected = f"^reward: 2 of 2 samples have no answer, the last try of 2 failed with {message}"
    with pytest.raises(RewardFailure, match=expected) as caught:
        External(ask, retries=1, pause=0)(z[:2])
    assert caught.value.rewards.isnan().tolist() == [True, True]


def test_minus_infinity_is_an_answer(z):
    assert External(lambda s: [-torch.inf] * len(s))(z).isinf().all()


def test_what_was_finished_is_kept_and_nothing_more_is_asked(product, z):
    asked = []

    def ask(samples):
        asked.append(float(samples[0, 0]))
        if len(asked) > 2:
            raise ConnectionError("gone")
        return product(samples)

    with pytest.raises(RewardFailure, match="3 of 7 .*last try of 2 failed with ConnectionError: gone") as caught:
        External(ask, batch=2, retries=1, pause=0)(z)
    assert torch.equal(caught.value.rewards[:4], product(z[:4]))
    assert caught.value.rewards[4:].isnan().all() and caught.value.rewards.dtype == torch.float64
    # the third micro-batch again and again, or it and the last in turn
    assert len(asked) <= 6


def test_what_is_out_already_is_waited_for(product, z):
    failed = threading.Event()

    def ask(samples):
        if samples[0, 0] < -0.9:
            failed.set()
            raise OSError("gone")
        failed.wait(10)
        time.sleep(0.1)
        return product(samples)

    with pytest.raises(RewardFailure) as caught:
        External(ask, batch=4, workers=2, retries=0)(z)
    assert torch.equal(caught.value.rewards[4:], product(z[4:])) and caught.value.rewards[:4].isnan().all()


def test_a_call_that_hangs_is_left_alone(product, z):
    release, calls = threading.Event(), []

    def ask(samples):
        calls.append(len(samples))
        if len(calls) == 1:
            release.wait(30)
        return product(samples)

    begun = time.monotonic()
    try:
        assert torch.equal(External(ask, batch=4, timeout=0.3, pause=0)(z), product(z))
        with pytest.raises(RewardFailure, match="TimeoutError: it took longer than 0.2 seconds"):
            External(lambda s: release.wait(30), timeout=0.2, retries=0)(z)
        assert time.monotonic() - begun < 10
    finally:
        release.set()
