"""The notebooks: each one runs from its folder, holds what its cells print and draw, and speaks of no machine."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
CELL_SECONDS = 300
LARGEST = 1_000_000  # bytes
DRAWS = {"rows", "axes_of", "subplots", "plot"}
MACHINE = re.compile(r"(?<![\w.])/(home|work|tmp|root|usr|opt|Users|var)/|[A-Z]:\\|ipykernel_\d")


@pytest.fixture
def folder(tmp_path):
    """The notebooks' folder in a copy of all examples: what a notebook writes, it writes there."""
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    shutil.copytree(FOLDER.parent, tmp_path / "examples", ignore=ignore)
    return tmp_path / "examples" / "notebooks"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """Starts a fresh kernel that works in a folder, and gives its client; of a process that has imported torch before."""
    from jupyter_client.blocking import BlockingKernelClient  # not for the processes that run other files
    from jupyter_client.connect import write_connection_file

    place = tmp_path_factory.mktemp("kernels")
    parent = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("kernels.py")], stdin=subprocess.PIPE, text=True,
        env={**os.environ, "IPYTHONDIR": str(place / "ipython")},
    )  # fmt: skip

    @contextmanager
    def start(folder):
        file, _ = write_connection_file(str(place / f"{len([*place.iterdir()])}.json"))
        parent.stdin.write(json.dumps([str(folder), file]) + "\n")
        parent.stdin.flush()
        client = BlockingKernelClient(connection_file=file)
        client.load_connection_file()
        client.start_channels(hb=False)  # whose silence would be taken for death before the first beat
        try:
            client.wait_for_ready(CELL_SECONDS)
            yield client
        finally:
            client.shutdown()
            client.stop_channels()

    yield start
    parent.kill()
    parent.communicate()


def read(name):
    import nbformat

    return nbformat.read(FOLDER / name, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def calls(cell):
    """The names of what a cell calls itself, not in the functions that it defines."""
    source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
    waiting: list[ast.AST] = [*ast.parse(source).body]
    found = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            found.add(getattr(node.func, "attr", getattr(node.func, "id", None)))
        waiting += ast.iter_child_nodes(node)
    return found


def pictures(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def test_there_are_notebooks():
    assert NOTEBOOKS and all(re.fullmatch(r"\d\d_\w+\.ipynb", name) for name in NOTEBOOKS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, folder, kernel):
    """Every cell, with the assertions among them, in a fresh kernel; and every figure is drawn anew."""
    with kernel(folder) as client:
        for cell in code(read(name)):
            found = []
            reply = client.execute_interactive(
                cell.source, allow_stdin=False, timeout=CELL_SECONDS, output_hook=found.append
            )["content"]
            assert reply["status"] == "ok", "\n".join(reply["traceback"])
            contents = [message["content"] for message in found]
            drawn = [content for content in contents if "image/png" in content.get("data", {})]
            assert len(drawn) == len(pictures(cell)), cell.source
            assert not [content["text"] for content in contents if content.get("name") == "stderr"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_saved_with_its_outputs(name):
    import nbformat

    notebook = read(name)
    nbformat.validate(notebook)
    assert (FOLDER / name).stat().st_size < LARGEST
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    for cell in code(notebook):
        assert pictures(cell) or not calls(cell) & DRAWS, cell.source
        assert cell.outputs or "print" not in calls(cell), cell.source
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", output


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_speaks_of_no_machine(name):
    notebook = read(name)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in notebook.cells)
    for cell in code(notebook):
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)
    found = MACHINE.search(json.dumps(notebook))
    assert found is None, found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_links_to_what_there_is(name):
    for cell in read(name).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
                assert (FOLDER / target).exists(), target
