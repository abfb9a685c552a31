"""Two processes that talk over gloo, each with one thread, which stand ready for all tests of this folder.

They run `member.py`, are asked by the name of a case, and find each other by a file, so that no port is fixed; each
answer is waited for no longer than a limit.
"""

import dataclasses
import json
import os
import runpy
import subprocess
import sys

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import align

MEMBER = Path(__file__).with_name("member.py")
COUNT, LIMIT = 2, 60  # processes, and seconds for an answer


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
            member.stdin.write(json.dumps([case, options, str(self.folder / f"{self.asked}")]) + "\n")
            member.stdin.flush()
        with ThreadPoolExecutor(COUNT) as pool:
            lines = [pool.submit(member.stdout.readline) for member in self.members]
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
        self.members = [
            subprocess.Popen(
                [sys.executable, str(MEMBER), str(index), str(COUNT), str(meeting)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for index in range(COUNT)
        ]  # fmt: skip

    def stop(self):
        for member in self.members:
            member.kill()
            member.communicate()
        self.members = []


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    """What both processes answer to a case: `both("plain", algorithm="smc")`."""
    pair = Pair(tmp_path_factory.mktemp("processes"))
    yield pair
    pair.stop()


@pytest.fixture(scope="session")
def member():
    """What the processes run, for comparison in this one."""
    return SimpleNamespace(**runpy.run_path(str(MEMBER)))


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
