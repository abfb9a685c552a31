"""Bad input: exit code 2, one sentence on stderr that says what is wrong, no traceback, and nothing written."""

import warnings

import numpy as np
import pytest
import torch

from diamond.mixture import GaussianMixtureFlow

REWARDS = """
import torch
number = 3
def nan(z): return torch.full((len(z),), float("nan"))
def none(z): return None
class Needs:
    def __init__(self, argument): pass
"""


@pytest.fixture
def place(here, chain):
    """A folder of files that are wrong, each in its own way, and names for the right ones."""
    (here / "foreign").write_text("hello")
    (here / "empty").write_bytes(b"")
    (here / "truncated").write_bytes(chain[0].read_bytes()[:3000])
    torch.save({"weights": torch.zeros(3)}, here / "pickle")
    (here / "folder").mkdir()
    (here / "wrong_rewards.py").write_text(REWARDS)
    (here / "broken_rewards.py").write_text("import not_there_at_all")
    images = np.linspace(-1, 1, 30 * 36).reshape(30, 6, 6)
    np.savez(here / "small.npz", images=images, labels=np.arange(30) % 3)
    np.savez(here / "unlabelled.npz", images=np.zeros((30, 8, 8)))
    np.savez(here / "other.npz", pictures=images)
    (here / "junk.npz").write_text("hello")
    return {"glass": chain[0], "model": chain[1]}


CASES = {
    "train --steps 0": "steps: got 0",
    "train --batch -1": "batch: got -1",
    "train --learning-rate nan": "learning_rate",
    "train --data cifar": "expected one of digits, mnist, fashion-mnist, cifar10, a path that ends in .npz",
    "train --data nowhere.npz": "there is no file nowhere.npz",
    "train --data junk.npz": "junk.npz",
    "train --data other.npz": "holds pictures, expected an array 'images'",
    "train --data unlabelled.npz --conditional": "holds no labels",
    "train --net resnet": "net: got 'resnet', expected one of mlp, transformer",
    "train --width 0": "width: got 0",
    "train --net transformer --width 30": "expected a divisor of width=30",
    "train --interpolant bent": "interpolant: got 'bent'",
    "train --out folder": "out: got 'folder', which is a folder",
    "train --out foreign/glass.ckpt": "out: got 'foreign/glass.ckpt'",
    "distill --teacher nowhere": "teacher: nowhere: there is no such file",
    "distill --teacher folder": "teacher: folder: it is a folder, expected a checkpoint file",
    "distill --teacher foreign": "teacher: foreign",
    "distill --teacher empty": "teacher: empty",
    "distill --teacher truncated": "teacher: truncated",
    "distill --teacher pickle": "never loaded",
    "distill --teacher {model}": "is of kind 'DiamondMap', expected Flow, ClassifierFree, GlassFlow, GaussianMixtureFlow",
    "distill --teacher {glass} --out {glass}": "which is an input of this command",
    "distill --teacher {glass} --steps 0": "steps: got 0",
    "distill --teacher {glass} --loss mse": "loss: got 'mse'",
    "distill --teacher {glass} --data small.npz": "events of shape (1, 6, 6)",
    "distill --teacher {glass} --off-diagonal 2": "off_diagonal: got 2",
    "align --model foreign --reward brightness": "model: foreign",
    "align --model {model} --reward beauty": "reward: got 'beauty', expected one of brightness",
    "align --model {model} --reward brightness+": "reward: got 'brightness+'",
    "align --model {model} --reward 2.0": "reward: got '2.0'",
    "align --model {model} --reward brightness --method luck": "method: got 'luck'",
    "align --model {model} --reward brightness --particles 0": "particles: got 0",
    "align --model {model} --reward brightness --steps 0": "steps: got 0",
    "align --model {model} --reward brightness --batch 0": "batch: got 0",
    "align --model {model} --reward brightness --chunk 0": "chunk: got 0",
    "align --model {model} --reward brightness --mc 3 --method base": "mc: base has no such setting",
    "align --model {model} --reward brightness --proposal score --method guide": "proposal: guide has no such setting",
    "align --model {model} --reward brightness --proposal best": "proposal: got 'best', expected one of lookahead",
    "align --model {model} --reward brightness --correct --method guide": "correct: got True with eta=0",
    "align --model {model} --reward brightness --tempering 1.5": "tempering: got 1.5, expected",
    "align --model {model} --reward brightness --glass-steps 3": "glass_steps: got 3 for a DiamondMap",
    "align --model {glass} --reward brightness --glass-steps 0": "glass_steps: got 0",
    "align --model {model} --reward brightness --label 3": "this model takes no labels",
    "align --model {model} --reward brightness --device abacus": "device: got 'abacus'",
    "align --model {model} --reward brightness --out foreign": "foreign' is a file, expected a folder",
    "align --model {model} --reward class:x": "reward: got 'class:x'",
    "align --model {model} --reward class:10": "from 0 to 9",
    "align --model {model} --reward class:1 --data unlabelled.npz": "unlabelled.npz holds no labels",
    "align --model {model} --reward class:1 --data small.npz": "images of shape (1, 6, 6)",
    "align --model {model} --reward not_there_at_all:r": "not_there_at_all cannot be imported",
    "align --model {model} --reward broken_rewards:r": "broken_rewards cannot be imported",
    "align --model {model} --reward wrong_rewards:r": "has no attribute 'r'",
    "align --model {model} --reward wrong_rewards:number": "expected a callable",
    "align --model {model} --reward wrong_rewards:Needs": "argument",
    "align --model {model} --reward wrong_rewards:nan": "it returned nan",
    "align --model {model} --reward wrong_rewards:none": "it returned NoneType",
    "align --model {model} --reward jpeg-size --method guide": "estimator='score'",
    "eval --model {glass}": "is of kind 'Flow', expected DiamondMap",
    "eval --model {model} --teacher {model}": "teacher:",
    "eval --model {model} --draws 1": "draws: got 1",
    "eval --model {model} --states 0": "states: got 0",
    "eval --model {model} --data small.npz": "images of shape (1, 6, 6)",
    "info nowhere": "nowhere: there is no such file",
    "info folder": "folder: it is a folder, expected a checkpoint file",
    "info foreign": "foreign",
}


@pytest.mark.parametrize("line", CASES)
def test_bad_input_gets_one_sentence(line, diamond, place, here):
    before = sorted(here.rglob("*"))
    said = diamond(line.format(**place) + (" --quiet" if not line.startswith("info") else ""), code=2)
    assert CASES[line] in said.stderr
    assert said.stderr.startswith("Error: ") and said.stderr.count("\n") == 1 and "Traceback" not in said.stderr
    assert "wrote" not in said.stdout
    assert [path for path in sorted(here.rglob("*")) if "__pycache__" not in str(path)] == before


@pytest.mark.parametrize("line", ["distill", "train --steps many", "train --seed -1", "polish", "align --model x"])
def test_wrong_usage_ends_with_code_2(line, diamond, here):
    said = diamond(line, code=2)
    assert "Usage" in said.stderr and not list(here.iterdir())


def test_a_map_without_its_teacher_asks_for_it(diamond, chain, here):
    import diamond as package

    model = package.load(chain[1])
    model.metadata["teacher"] = "gone.ckpt"
    model.save("lost.ckpt")
    assert "teacher: got None and the map's file names 'gone.ckpt'" in diamond("eval --model lost.ckpt", code=2).stderr
    diamond(f"eval --model lost.ckpt --teacher {chain[0]} --draws 2 --states 1 --samples 32 --quick -q")


def test_the_data_must_be_known(diamond, chain, here):
    import diamond as package

    flow = package.load(chain[0])
    flow.metadata = {}
    flow.save("plain.ckpt")
    assert "data: got None and the model's file names none" in diamond("distill --teacher plain.ckpt", code=2).stderr
    diamond("distill --teacher plain.ckpt --data digits --steps 1 --batch 4 -q")


def test_the_traceback_is_there_for_who_asks(diamond, here):
    with pytest.raises(ValueError, match="steps: got 0"):
        diamond("--traceback train --steps 0")


def test_a_warning_is_a_sentence_too_and_can_still_be_recorded(diamond, here, monkeypatch):
    (here / "warn_me.py").write_text(
        "import warnings\n\ndef of(z):\n    warnings.warn('two\\nlines')\n    return z[:, 0]\n"
    )
    GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1)).save(here / "m.ckpt")
    line, usual = "align --model m.ckpt --reward warn_me:of --particles 2 --steps 1 -q", warnings.formatwarning
    with pytest.warns(UserWarning, match="two\nlines"):
        diamond(line)
    printed = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda *told: printed.append(warnings.formatwarning(*told[:4])))
        diamond(line)
        assert printed[-1] == "Warning: two lines\n"
        diamond(f"--traceback {line}")
    assert "warn_me.py" in printed[-1] and warnings.formatwarning is usual


def test_a_loss_that_ran_away_ends_with_code_1(diamond, here):
    said = diamond("train --width 8 --depth 1 --steps 20 --batch 8 --learning-rate 1e30 -q", code=1)
    assert said.stderr.startswith("Error: loss: got inf at step 2") and not (here / "glass.ckpt").exists()
