"""Bars: every state in a terminal or a notebook, one in ten seconds where they stay."""

import sys

import pytest

from diamond.progress import progress_bar, redrawn


@pytest.mark.parametrize(
    ("terminal", "notebook", "replaces"),
    [(True, False, True), (False, False, False), (False, True, True), (None, False, False)],
)
def test_states_replace_each_other_in_terminals_and_notebooks(terminal, notebook, replaces, monkeypatch, written):
    if terminal is None:
        monkeypatch.setattr(sys, "stderr", None)
    else:
        written(terminal)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert redrawn() == replaces


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.1), (False, 10.0)])
def test_a_bar_where_states_stay_is_written_seldom(terminal, seconds, written):
    stderr = written(terminal)
    with progress_bar(range(3), desc="three") as bar:
        assert list(bar) == [0, 1, 2] and bar.mininterval == seconds
    assert "three" in stderr.getvalue()
