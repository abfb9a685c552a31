"""The command line in this process, and a tiny chain of models that it made."""

import os
import shlex
import signal
import sys
import time
import traceback

from pathlib import Path

import pytest
import torch

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


@pytest.fixture(autouse=True)
def _plain_layout(monkeypatch):
    """Plots are drawn without the search for room among their labels, which is half of their time; the demo's and the
    notebooks' are not."""
    monkeypatch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda self, figure: None)


@pytest.fixture
def interrupted(here):
    """Runs a command line in a process of its own, sends it Ctrl-C once it has `begun`, a function that tells, and gives
    its exit code and what it said on stderr."""

    def run(line, begun, seconds=300):
        process, deadline, told = _started(line), time.monotonic() + seconds, False
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if not told and begun():
                os.kill(process, signal.SIGINT)
                told = True
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(ended[1]), Path("stderr").read_text(encoding="utf-8")

    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    return run


def _started(line):
    """A process forked from this one, as a new one takes seconds to import all; but a new one where there is an accelerator,
    of which a fork can make no use. Ctrl-C is not ignored in it, as it is behind a shell's `&`."""
    words = shlex.split(line)
    if torch.accelerator.is_available():
        said = (os.POSIX_SPAWN_OPEN, 2, "stderr", os.O_WRONLY | os.O_CREAT, 0o644)
        command = [sys.executable, "-m", "diamond", *words]
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=[said], setsigdef=[signal.SIGINT])
    process = os.fork()
    if not process:
        _run_and_exit(words)
    return process


def _run_and_exit(words):
    code = 1
    try:
        from diamond.cli import main

        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        sys.argv, sys.stderr = ["diamond", *words], Path("stderr").open("w", encoding="utf-8")
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)  # on no account the rest of the tests


@pytest.fixture(scope="session")
def chain(tmp_path_factory, diamond):
    """A folder with a teacher and its map, trained for some steps on digits: `(glass, diamond)`."""
    folder = tmp_path_factory.mktemp("chain")
    glass, model = folder / "glass.ckpt", folder / "diamond.ckpt"
    diamond(f"train --out {glass} --width 32 --depth 1 {TINY}")
    diamond(f"distill --teacher {glass} --out {model} {TINY}")
    return glass, model
