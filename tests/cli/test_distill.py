"""`diamond distill`: every loss by its name, with and without a teacher."""

import pytest
import torch

import diamond as package

from diamond.cli.models import classes_of

SMALL = "--steps 2 --batch 8 --quiet"


@pytest.fixture(scope="module")
def glass(tmp_path_factory, diamond):
    """The file of a small teacher."""
    path = tmp_path_factory.mktemp("teacher") / "glass.ckpt"
    diamond(f"train --out {path} --net transformer --width 16 --depth 1 {SMALL}")
    return path


@pytest.mark.parametrize("loss", ["lsd", "esd", "psd", "meanflow", "trajectory"])
def test_each_loss_trains_a_map(loss, diamond, glass, here):
    diamond(f"distill --teacher {glass} --loss {loss} --times early --weighting learned {SMALL}")
    model = package.load("diamond.ckpt")
    assert model.metadata["loss"] == loss and model.metadata["supervision"] == "teacher"
    assert not any("weighting" in name or "weigh." in name for name in model.state_dict())


def test_data_alone_train_a_map(diamond, here):
    diamond(f"distill --supervision data --data digits --loss psd --weighting adaptive --times logit-normal {SMALL}")
    model = package.load("diamond.ckpt")
    assert isinstance(model, package.DiamondMap) and model.event_shape == (1, 8, 8)
    assert model.metadata["data"] == "digits" and "teacher" not in model.metadata


def test_a_teacher_may_be_no_more_than_a_start(diamond, glass, here):
    diamond(f"distill --teacher {glass} --supervision data --loss meanflow --to-one 0.3 {SMALL}")
    model = package.load("diamond.ckpt")
    assert model.net.config["width"] == 16 and model.metadata["supervision"] == "data"


CASES = {
    "--teacher {glass} --loss esdd": "loss: got 'esdd', expected one of lsd, esd, psd, meanflow, trajectory",
    "--teacher {glass} --supervision none": "supervision: got 'none', expected one of teacher, data",
    "--teacher {glass} --weighting none": "weighting: got 'none', expected one of adaptive, learned",
    "--teacher {glass} --times none": "times: got 'none', expected one of uniform, logit-normal, early",
    "--teacher {glass} --supervision data --loss trajectory": "supervision: got 'data' with loss='trajectory'",
    "--teacher {glass} --loss lsd --to-one 0.5": "to_one: got 0.5",
    "--supervision data": "data: got None and no teacher",
    "--data digits": "--teacher",
}


@pytest.mark.parametrize("line", CASES)
def test_what_cannot_be_is_refused_in_a_sentence(line, diamond, glass, here):
    assert CASES[line] in diamond(f"distill {line.format(glass=glass)} {SMALL}", code=2).stderr
    assert not list(here.iterdir())


@pytest.fixture(scope="module")
def conditional(tmp_path_factory, diamond):
    """The file of a small teacher with classes, trained with labels left out now and then."""
    path = tmp_path_factory.mktemp("teacher") / "glass.ckpt"
    diamond(f"train --out {path} --conditional --label-dropout 0.2 --net transformer --width 16 --depth 1 {SMALL}")
    return path


def test_a_guided_teacher_is_what_the_map_learns_from(diamond, conditional, here, monkeypatch):
    """The trainer meets a teacher whose velocity is guided, and the file notes the scale."""
    import distill as recipes

    met = []
    usual = recipes.distill
    monkeypatch.setattr(
        recipes, "distill", lambda teacher, *args, **kw: met.append(teacher) or usual(teacher, *args, **kw)
    )
    diamond(f"distill --teacher {conditional} --guidance 2.5 --label-dropout 0.2 {SMALL}")
    assert isinstance(met[0], package.ClassifierFree) and met[0].scale == 2.5
    assert package.load("diamond.ckpt").metadata["guidance"] == 2.5


def test_guidance_is_a_number(diamond, conditional, here):
    before = {*here.iterdir()}
    said = diamond(f"distill --teacher {conditional} --guidance nan {SMALL}", code=2).stderr
    assert "guidance: got nan, expected a finite number" in said and {*here.iterdir()} == before


@pytest.mark.parametrize("extra", ["", "--supervision data"])
def test_guidance_that_cannot_be_is_refused(extra, diamond, glass, here):
    said = diamond(f"distill --teacher {glass} --guidance 2 {extra} {SMALL}", code=2).stderr
    assert "guidance: got 2" in said and not list(here.iterdir())


def test_a_folder_of_images_is_read_again_at_the_size_of_its_teacher(diamond, here):
    from torchvision.utils import save_image

    source = torch.Generator().manual_seed(0)
    for index in range(12):
        (here / "photos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 12, 16, generator=source), here / "photos" / "ab"[index % 2] / f"{index}.png")
    diamond(f"train --data photos --size 8 --conditional --net unet --width 8 {SMALL}")
    diamond(f"distill --teacher glass.ckpt --loss psd {SMALL}")
    model = package.load("diamond.ckpt")
    assert model.event_shape == (3, 8, 8) and model.metadata["size"] == 8 and classes_of(model) == 2


def test_what_ships_needs_no_file(diamond, here):
    diamond("align --model digits --reward symmetry --method best-of-n --particles 4 --out out --quiet")
    diamond(f"distill --teacher digits-teacher --loss psd {SMALL}")
    assert package.load("diamond.ckpt").metadata["teacher"] == "digits-teacher"


def test_a_map_is_trained_with_the_options_of_the_trainer(diamond, glass, here):
    diamond(f"distill --teacher {glass} --loss psd --ema 0.9 --ema 0.5 --accumulate 2 --sample-every 1 {SMALL}")
    further = package.load("diamond.ema-0.5.ckpt")
    assert isinstance(further, package.DiamondMap) and list((here / "diamond.ckpt.samples").iterdir())
