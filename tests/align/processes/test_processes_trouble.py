"""What becomes of an error in one of the processes, of calls that differ, and of a process that is gone."""

import pytest

import align

RUNS = {
    "smc": {"algorithm": "smc", "particles": 4, "steps": 3},
    "search": {"algorithm": "search", "particles": 4, "steps": 3},
    "best_of_n": {"algorithm": "best_of_n", "n": 4, "chunk": 1},
}


@pytest.mark.parametrize("kind", ["nan", "judge"])
@pytest.mark.parametrize("settings", RUNS)
def test_a_reward_that_fails_in_one_process_fails_in_all(settings, kind, both, agreed):
    first, second = both("failing", kind=kind, **RUNS[settings])
    error, sentence = {
        "nan": ["ValueError", "reward: it returned nan for "],
        "judge": ["RewardFailure", "reward: the judge of process 1 has gone home"],
    }[kind]
    assert second[0] == error and second[1].startswith(sentence)
    assert (second[2] is not None) == (kind == "judge")  # the samples are kept where they are
    assert first[:2] == ["ProcessFailure", f"accelerator: process 1 of 2 failed with {error}: {second[1]}"]
    agreed(both("plain", **RUNS[settings]))  # and the next call finds them in step


@pytest.mark.parametrize("algorithm", [align.smc, align.search, align.best_of_n])
def test_what_is_no_accelerator_is_refused(algorithm, case_a, gentle):
    with pytest.raises(ValueError, match=r"^accelerator: got str, expected an accelerate.Accelerator, or None$"):
        algorithm(case_a, gentle, accelerator="cpu")


@pytest.mark.parametrize("settings", RUNS)
def test_members_that_cannot_be_shared_equally_are_refused(settings, both):
    options = {**RUNS[settings], ("n" if settings == "best_of_n" else "particles"): 5}
    del options["algorithm"]
    sentence = "accelerator: got 2 processes for 5 particles, expected a number of processes that divides these"
    assert both("differing", algorithm=settings, options=options, others=options) == [["ValueError", sentence]] * 2


@pytest.mark.parametrize(
    "options, others",
    [({"particles": 4}, {"particles": 8}), ({"steps": 2}, {"steps": 3}), ({"batch": 2}, {"batch": 1})],
)
@pytest.mark.parametrize("algorithm", ["smc", "search"])
def test_calls_that_differ_between_processes_are_refused(algorithm, options, others, both, agreed):
    base = {"particles": 4, "steps": 3}
    answers = both("differing", algorithm=algorithm, options=base | options, others=base | others)
    for index, (error, sentence) in enumerate(answers):
        assert error == "ProcessFailure"
        assert sentence.startswith(f"accelerator: process {index} of 2 brought torch.")
    agreed(both("plain", algorithm=algorithm, **base))


def test_a_process_that_is_gone_is_not_waited_for(both):
    first, second = both("failing", kind="gone", **RUNS["smc"])
    assert second is None
    assert first[:2] == ["ProcessFailure", "accelerator: process 0 of 2 lost another one"]
