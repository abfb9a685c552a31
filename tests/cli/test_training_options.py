"""Options of training, from the command line."""

import numpy as np
import pytest


def test_training_takes_its_options(diamond, tmp_path):
    out = tmp_path / "flow.ckpt"
    said = diamond(
        f"train --net unet --width 8 --steps 4 --batch 8 -q --out {out} --conditional --label-dropout 0.2 --flip "
        "--accumulate 2 --ema 0.9 --ema 0.5 --precision bf16 --optimizer muon --save-every 2 --sample-every 4"
    ).stdout
    for name in ("flow.ckpt", "flow.ema-0.5.ckpt", "flow.ckpt.metrics.jsonl", "flow.ckpt.samples/step-0000004.png"):
        assert (tmp_path / name).is_file()
    assert "trained 4 steps" in said and "flow.ema-0.5.ckpt" in said and "flow.ckpt.samples" in said
    assert "unet" in diamond(f"info {out}").stdout.lower()


@pytest.mark.parametrize(
    "line, message",
    [
        ("--label-dropout 0.1", "label_dropout: got 0.1, but the network was made without classes"),
        ("--batch 9 --accumulate 2", "batch: got 9, expected a multiple of 2"),
        ("--precision fp8", "precision: got 'fp8', expected one of fp32, bf16"),
        ("--optimizer sgd", "optimizer: got 'sgd', expected one of adamw, muon"),
        ("--ema 1.5", "ema: got 1.5"),
        ("--log-with paper", "log_with: got 'paper', expected one of tensorboard, wandb"),
        ("--save-every 0", "save_every: got 0"),
    ],
)
def test_options_that_do_not_fit_are_sentences(line, message, diamond, tmp_path):
    said = diamond(f"train --width 8 --depth 1 --steps 4 -q --out {tmp_path / 'flow'} {line}", code=2).stderr
    assert message in " ".join(said.split()) and "Traceback" not in said


def test_data_are_not_written_over(diamond, here):
    """Whether they are named, or the teacher's file names them; by whatever path."""
    small = "--width 8 --depth 1 --steps 1 --batch 4 -q"
    np.savez("mine.npz", images=np.zeros((9, 3, 3)))
    before = (here / "mine.npz").read_bytes()
    diamond(f"train --data mine.npz --out flow.ckpt {small}")
    for line in (f"train --data mine.npz {small}", "distill --teacher flow.ckpt --steps 1 --batch 4 -q"):
        said = diamond(f"{line} --out ./mine.npz", code=2).stderr
        assert "out: got 'mine.npz', which is an input of this command, expected another file" in " ".join(said.split())
    assert (here / "mine.npz").read_bytes() == before
    assert sorted(path.name for path in here.iterdir()) == ["flow.ckpt", "flow.ckpt.metrics.jsonl", "mine.npz"]
