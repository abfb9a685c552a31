"""Files that a command writes are whole or not there."""

import pytest

from diamond.cli.generation import _save, _write_texts
from diamond.cli.outputs import drafted, write_json


def test_a_draft_takes_the_place_of_a_file_at_its_end(here):
    path = here / "below" / "file.txt"
    for content in ("first", "second"):
        with drafted(path) as draft:
            draft.write_text(content)
            assert draft.parent == path.parent and (not path.exists() or path.read_text() == "first")
        assert path.read_text() == content and [path] == list(path.parent.iterdir())


class Broken:
    """Neither text, picture nor JSON."""

    def save(self, path, *_, **__):
        path.write_bytes(b"half of a pic")
        raise OSError("no space")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {"a": Broken()}),
        lambda path: _save(Broken(), path),
        lambda path: _write_texts({path: "\ud800"}),
    ],
    ids=["json", "picture", "text"],
)
def test_a_failure_leaves_what_stood_and_no_draft(write, here):
    path = here / "file.png"
    path.write_text("first")
    with pytest.raises((OSError, TypeError, UnicodeError)):
        write(path)
    assert path.read_text() == "first" and list(here.iterdir()) == [path]
