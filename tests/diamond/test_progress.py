"""Bars: every state in a terminal or a notebook, one in ten seconds where they stay."""

import io
import sys

import pytest

from diamond.progress import progress_bar, redrawn


class Written(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize(
    ("stderr", "notebook", "replaces"),
    [
        (Written(True), False, True),
        (Written(False), False, False),
        (Written(False), True, True),
        (None, False, False),
    ],
)
def test_states_replace_each_other_in_terminals_and_notebooks(stderr, notebook, replaces, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", io)
    monkeypatch.setattr(sys, "stderr", stderr)
    assert redrawn() == replaces


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.1), (False, 10.0)])
def test_a_bar_where_states_stay_is_written_seldom(terminal, seconds, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", Written(terminal))
    with progress_bar(range(3), desc="three") as bar:
        assert list(bar) == [0, 1, 2] and bar.mininterval == seconds
    assert "three" in sys.stderr.getvalue()
