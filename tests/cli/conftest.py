"""The command line in this process, and a tiny chain of models that it made."""

import os
import shlex
import signal
import sys
import time

from pathlib import Path

import pytest

from typer.testing import CliRunner

TINY = "--steps 20 --batch 32 --quiet"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def diamond():
    """Runs a command line, and tests its exit code; errors that are no sentences are raised."""
    from diamond.cli import app

    def run(line, code=0):
        result = CliRunner().invoke(app, shlex.split(line))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"{line}: {result.exit_code}, {result.stderr}"
        return result

    return run


@pytest.fixture
def interrupted(here):
    """Runs a command line in a process of its own, sends it Ctrl-C once it has `begun`, a function that tells, and gives
    its exit code and what it said on stderr. The process is forked from this one: a new one takes seconds to import all.
    """

    def run(line, begun, seconds=300):
        process, deadline = os.fork(), time.monotonic() + seconds
        if not process:
            _run_and_exit(line)
        while not begun() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process, signal.SIGINT)
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(ended[1]), Path("stderr").read_text(encoding="utf-8")

    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    return run


def _run_and_exit(line):
    code = 1
    try:
        import torch

        from diamond.cli import main

        signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as it is behind a shell's `&`
        torch.set_num_threads(1)
        sys.argv, sys.stderr = ["diamond", *shlex.split(line)], Path("stderr").open("w", encoding="utf-8")
        main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="session")
def chain(tmp_path_factory, diamond):
    """A folder with a teacher and its map, trained for some steps on digits: `(glass, diamond)`."""
    folder = tmp_path_factory.mktemp("chain")
    glass, model = folder / "glass.ckpt", folder / "diamond.ckpt"
    diamond(f"train --out {glass} --width 32 --depth 1 {TINY}")
    diamond(f"distill --teacher {glass} --out {model} {TINY}")
    return glass, model
