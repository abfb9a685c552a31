"""Ctrl-C during training, and the same command again."""

import pytest
import torch

import diamond as package

from distill.training.batches import Batches

LINES = {
    "train": "train --width 8 --depth 1 --steps 12 --batch 8 -q --out {out}",
    "distill": "distill --teacher {glass} --loss lsd --steps 6 --batch 8 -q --out {out}",
}


@pytest.fixture
def interrupt_at(monkeypatch):
    """Makes the batch of one step, counted from 1, a Ctrl-C."""

    def arm(step):
        draw, count = Batches.draw, []

        def counted(self, *args):
            count.append(None)
            if len(count) == step:
                raise KeyboardInterrupt
            return draw(self, *args)

        monkeypatch.setattr(Batches, "draw", counted)

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("command", LINES)
def test_the_same_command_goes_on(command, diamond, chain, tmp_path, interrupt_at, monkeypatch):
    whole, broken = (LINES[command].format(glass=chain[0], out=tmp_path / name) for name in ("whole", "broken"))
    diamond(whole)
    interrupt_at(4)
    said = diamond(broken, code=130).stderr
    state = tmp_path / "broken.state"
    assert f"a resumable state was saved in {state}" in said and "Traceback" not in said
    assert state.is_file() and not (tmp_path / "broken").exists()
    told = diamond(f"info {state}").stdout
    assert "training state" in told and "3 of" in told
    monkeypatch.undo()
    assert "left at step 3" in diamond(broken).stdout
    assert not state.exists()
    expected, found = (package.load(tmp_path / name).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_state_of_other_settings_or_another_network_is_refused(diamond, chain, tmp_path, interrupt_at, monkeypatch):
    line = LINES["train"].format(out=tmp_path / "flow")
    interrupt_at(4)
    diamond(line, code=130)
    monkeypatch.undo()
    assert "remove it, or give --no-resume" in diamond(f"{line} --batch 16", code=2).stderr
    assert "width=8, expected model.net" in diamond(f"{line} --width 16", code=2).stderr
    diamond(f"{line} --width 16 --no-resume")
    (tmp_path / "flow.state").write_bytes(b"half")
    assert "truncated or foreign, expected a checkpoint written by this package; remove it, or give --no-resume" in (
        diamond(line, code=2).stderr
    )


def test_a_real_signal(here, interrupted):
    metrics = here / "glass.ckpt.metrics.jsonl"
    code, said = interrupted(
        "train --width 8 --depth 1 --steps 1000000 --quiet", lambda: metrics.is_file() and metrics.read_text()
    )
    assert code == 130, said
    assert "a resumable state was saved in glass.ckpt.state" in said and "Traceback" not in said
    assert (here / "glass.ckpt.state").is_file() and not (here / "glass.ckpt").exists()
