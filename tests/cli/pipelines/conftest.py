"""A tiny pipeline on disk, the command line on it, and what it leaves."""

import json
import os
import sys

from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:  # the examples are not installed
    sys.path.insert(0, str(ROOT))

from examples.tiny_pipelines import tiny_pipeline  # noqa: E402

BASE = "--reward brightness --method base --steps 1 --height 32 --width 32 -q"


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A folder that a tiny Stable Diffusion was saved to."""
    folder = tmp_path_factory.mktemp("pipelines") / "stable-diffusion"
    tiny_pipeline("stable-diffusion").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def read_once():
    """Pipelines by folder and type, read from disk once for all tests, which leave them as they are."""
    return {}


@pytest.fixture(autouse=True)
def _reading(read_once, monkeypatch):
    from diamond.cli import studio

    load = studio.load_pipeline

    def kept(source, **options):
        key = str(source), str(options)
        if key not in read_once:
            read_once[key] = load(source, **options)
        return read_once[key]

    monkeypatch.setattr(studio, "load_pipeline", kept)


@pytest.fixture
def pictures(diamond, saved, here):
    """Runs `diamond align` on the tiny pipeline, by default its own sampler for the folder `out`."""

    def run(line, code=0, usual=BASE):
        return diamond(f"align --pipeline {saved} {line} {usual}", code)

    return run


@pytest.fixture
def bench(diamond, saved, here):
    """Runs `diamond bench` likewise."""

    def run(line, code=0, usual=BASE):
        return diamond(f"bench {line} --pipeline {saved} {usual}", code)

    return run


@pytest.fixture(scope="session")
def files():
    """All files below a folder, by their place in it."""
    return lambda folder: sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def record():
    """The figures in a JSON file."""
    return lambda path: json.loads(Path(path).read_text())
