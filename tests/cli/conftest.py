"""The command line in this process, and a tiny chain of models that it made."""

import shlex

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


@pytest.fixture(scope="session")
def chain(tmp_path_factory, diamond):
    """A folder with a teacher and its map, trained for some steps on digits: `(glass, diamond)`."""
    folder = tmp_path_factory.mktemp("chain")
    glass, model = folder / "glass.ckpt", folder / "diamond.ckpt"
    diamond(f"train --out {glass} --width 32 --depth 1 {TINY}")
    diamond(f"distill --teacher {glass} --out {model} {TINY}")
    return glass, model
