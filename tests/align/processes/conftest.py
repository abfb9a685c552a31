"""Two processes that talk over gloo, each with one thread, which stand ready for all tests of this folder.

They are forked from this one, as new ones take seconds to import all; they run `member.py`, are asked by the name of a
case, and find each other by a file, so that no port is fixed; each answer is waited for no longer than a limit.
"""

import dataclasses
import json
import os
import runpy
import signal
import traceback

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from accelerate.state import AcceleratorState

import align

MEMBER = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("member.py"))))
COUNT, LIMIT = 2, 60  # processes, and seconds for an answer


class Member:
    """One of the processes, and the ends of two pipes: what it is asked, and what it answers."""

    def __init__(self, index, meeting):
        (asked, ask), (answered, answer) = os.pipe(), os.pipe()
        self.process = os.fork()
        if not self.process:
            serve_and_exit(index, meeting, asked, answer)
        os.close(asked)
        os.close(answer)
        self.questions, self.answers = os.fdopen(ask, "w"), os.fdopen(answered)

    def ask(self, line):
        print(line, file=self.questions, flush=True)

    def end(self):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        self.questions.close()
        self.answers.close()


def serve_and_exit(index, meeting, asked, answer):
    try:
        torch.set_num_threads(1)
        AcceleratorState._reset_state(reset_partial_state=True)  # which may be that of one process
        MEMBER.serve(index, COUNT, meeting, os.fdopen(asked), os.fdopen(answer, "w"))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)  # on no account the rest of the tests


class Pair:
    """The processes, started when they are needed."""

    def __init__(self, folder):
        self.folder, self.asked, self.members = folder, 0, []

    def __call__(self, case, **options):
        """Each one's answer to a case: an Alignment, or JSON; None of one that ended."""
        if not self.members:
            self.start()
        self.asked += 1
        for member in self.members:
            member.ask(json.dumps([case, options, str(self.folder / f"{self.asked}")]))
        with ThreadPoolExecutor(COUNT) as pool:
            lines = [pool.submit(member.answers.readline) for member in self.members]
            try:
                answers = [line.result(LIMIT) for line in lines]
            except Late:
                self.stop()
                pytest.fail(f"no answer within {LIMIT} seconds")
        if not all(answers):
            self.stop()
        return [self.read(answer) for answer in answers]

    def read(self, answer):
        answer = json.loads(answer) if answer else None
        if isinstance(answer, dict):
            assert "broken" not in answer, answer["broken"]
            return align.Alignment.load(answer["saved"])
        return answer

    def start(self):
        meeting = self.folder / f"meeting{self.asked}"
        self.members = [Member(index, meeting) for index in range(COUNT)]

    def stop(self):
        for member in self.members:
            member.end()
        self.members = []


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    """What both processes answer to a case: `both("plain", algorithm="smc")`."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    pair = Pair(tmp_path_factory.mktemp("processes"))
    yield pair
    pair.stop()


@pytest.fixture(scope="session")
def member():
    """What the processes run, for comparison in this one."""
    return MEMBER


def fields(out):
    """What a result holds, by name."""
    found = {**dataclasses.asdict(out), **{f"part {name}": part for name, part in out.components.items()}}
    del found["components"]
    return found


def check(one, other, but=()):
    for name, value in fields(one).items():
        twin = fields(other)[name]
        equal = torch.equal(value, twin) if isinstance(value, torch.Tensor) else value == twin
        assert equal or name in but, name


@pytest.fixture
def same():
    """Tests that two results are equal in all fields, but for some."""
    return check


@pytest.fixture
def agreed():
    """The one result of all processes."""

    def one_of(answers):
        check(*answers)
        return answers[0]

    return one_of
