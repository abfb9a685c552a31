"""Judges: those that ship, their training, and their files."""

import json

import pytest
import torch

from safetensors.torch import save_file

from diamond import judges
from diamond.checkpoint import read_tensors, write_tensors
from diamond.data import Data, load_data
from diamond.judges.training import _disturbed

LEAST = {"digits": 0.98, "mnist": 0.99, "fashion-mnist": 0.9, "cifar10": 0.85}  # right on held-out data


@pytest.fixture(scope="module")
def bars():
    """Images 2x6x9 with a bright upper, middle or lower third, and noise: `(train, held_out)`."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    images = 0.3 * torch.randn(600, 2, 6, 9, generator=generator) - 0.5
    for i in range(3):
        images[labels == i, :, 2 * i : 2 * i + 2] += 0.6
    return Data(images[:500], labels[:500], "bars"), Data(images[500:], labels[500:], "bars")


@pytest.fixture(scope="module")
def judge(bars):
    return judges.train_judge(*bars, name="thirds", epochs=6, width=4, features=8, batch=50)


@pytest.mark.parametrize("name", ["digits"])
def test_a_shipped_judge_knows_images_it_has_not_seen(name):
    judge, held_out = judges.load(name), load_data(name, split="held-out")
    found = judges.accuracy(judge, held_out)
    assert found >= LEAST[name] and found == pytest.approx(judge.metadata["accuracy"], abs=2e-3)
    assert judge.metadata["data"] == name and f"judge {name!r} (trained on {name}, {found:.2%} right" in judge.title
    features, log_probabilities = judge.features(held_out.images), judge.log_probabilities(held_out.images)
    assert features.shape == (297, judge.size) and features.dtype == torch.float32
    assert torch.allclose(log_probabilities.exp().sum(1), torch.ones(297), atol=1e-5)
    assert torch.equal(log_probabilities.argmax(1), judge.labels(held_out.images))


def test_every_shipped_judge_is_small_frozen_and_named_after_its_data():
    assert set(judges.names()) == set(LEAST)
    for name in judges.names():
        judge = judges.load(name)
        assert judge.metadata["name"] == name and judge.metadata["accuracy"] > LEAST[name]
        assert not judge.training and not any(p.requires_grad for p in judge.parameters())
        assert sum(value.numel() for value in judge.state_dict().values()) < 500_000  # a megabyte in float16


def test_training_learns_and_leaves_the_global_random_state_alone(bars, judge):
    assert judge.metadata["accuracy"] > 0.95 and judges.accuracy(judge, bars[1]) == judge.metadata["accuracy"]
    before = torch.random.get_rng_state()
    a, b, c = (judges.train_judge(*bars, epochs=1, width=2, features=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    z = bars[1].images
    assert torch.equal(a(z), b(z)) and not torch.equal(a(z), c(z))


def test_a_judge_of_a_users_own_comes_back_from_its_file(judge, bars, tmp_path):
    judge.save(tmp_path / "mine.judge")
    again, z = judges.load(tmp_path / "mine.judge"), bars[1].images
    assert torch.allclose(again(z), judge(z), atol=0.02) and again.metadata == judge.metadata
    exact = tmp_path / "exact.judge"
    judge.save(exact, torch.float32)
    assert torch.equal(judges.load(str(exact))(z), judge(z))


def test_a_deeper_judge_is_read_again_and_files_that_name_no_depth_are_of_one(bars, tmp_path):
    deep = judges.train_judge(*bars, epochs=1, width=2, features=4, depth=3)
    deep.save(tmp_path / "deep", torch.float32)
    z = bars[1].images
    assert torch.equal(judges.load(tmp_path / "deep")(z), deep(z))
    sizes = [tuple(part.weight.shape[:2]) for part in deep.modules() if isinstance(part, torch.nn.Conv2d)]
    assert sizes == [(2, 2), (2, 2), (2, 2), (4, 2)]  # three at 6x9, one at 3x5
    tensors, header = read_tensors(tmp_path / "deep")
    del header["config"]["depth"]
    write_tensors(tmp_path / "old", tensors, header)
    with pytest.raises(ValueError, match="old: its tensors do not fit the Judge"):
        judges.load(tmp_path / "old")
    assert judges.load("digits").depth == 1


def test_with_flips_a_judge_sees_each_image_either_way():
    ramp = torch.linspace(-1, 1, 30).expand(2000, 1, 8, 30)

    def to_the_left(flip):
        seen = _disturbed(ramp, flip, torch.Generator().manual_seed(0))
        return (seen[..., :15].mean((1, 2, 3)) > seen[..., 15:].mean((1, 2, 3))).double()

    assert float(to_the_left(False).sum()) == 0
    assert abs(float(to_the_left(True).mean()) - 0.5) < 4 * 0.5 / 2000**0.5


def test_a_judge_trained_with_flips_knows_mirrored_images():
    """What tells the classes is on the left of all images of the training."""
    labels = torch.arange(400) % 2
    images = 0.2 * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[:, :, :, :4] += torch.where(labels == 0, 0.6, -0.6)[:, None, None, None]
    data, mirrored = Data(images, labels, "halves"), Data(images.flip(-1), labels, "mirrored")
    with_flips, without = (
        judges.train_judge(data, mirrored, epochs=6, width=4, features=8, batch=20, flip=flip) for flip in (True, False)
    )
    assert with_flips.metadata["flip"] is True and with_flips.metadata["accuracy"] > 0.95
    assert without.metadata["accuracy"] < 0.75 and without.metadata["flip"] is False


def test_chunks_make_no_difference_and_gradients_reach_the_images(judge, bars, monkeypatch):
    z = bars[1].images.clone().requires_grad_()
    whole = judge.features(z)
    monkeypatch.setattr("diamond.judges.classifier.CHUNK", 7)
    assert torch.allclose(judge.features(z), whole, atol=1e-6)
    (gradient,) = torch.autograd.grad(judge.log_probabilities(z)[:, 0].sum(), z)
    assert float(gradient.flatten(1).any(1).float().mean()) > 0.8  # a rectifier may be silent


def test_what_is_refused(judge, bars, tmp_path):
    train, held_out = bars
    with pytest.raises(FileNotFoundError, match="^judge: got 'nobody', expected one of cifar10, digits"):
        judges.load("nobody")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(
        ValueError, match="foreign: it lacks 'bn1.bias' and 36 more, expected the weights of a ResNet-8"
    ):
        judges.load(tmp_path / "foreign")
    save_file({"a": torch.zeros(1)}, tmp_path / "later", {"diamond": json.dumps({"format": "diamond-maps/99"})})
    with pytest.raises(ValueError, match="another maker or format"):
        judges.load(tmp_path / "later")
    from diamond import GaussianMixtureFlow

    GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1)).save(tmp_path / "model")
    with pytest.raises(ValueError, match="it is of kind 'GaussianMixtureFlow', expected 'Judge'"):
        judges.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"^z: got shape \(2, 1, 6, 9\)"):
        judge.features(torch.zeros(2, 1, 6, 9))
    with pytest.raises(ValueError, match=r"^event_shape: got \(3,\), expected that of images"):
        judges.Judge((3,), 2)
    with pytest.raises(ValueError, match="^classes: got 1"):
        judges.Judge((1, 8, 8), 1)
    with pytest.raises(ValueError, match="^depth: got 0"):
        judges.Judge((1, 8, 8), 2, depth=0)
    with pytest.raises(ValueError, match="^data: bars holds no labels"):
        judges.train_judge(Data(train.images, None, "bars"), held_out)
    with pytest.raises(ValueError, match="^held_out: bars holds no labels"):
        judges.train_judge(train, Data(held_out.images, None, "bars"))
    with pytest.raises(ValueError, match="^held_out: got images"):
        judges.train_judge(train, Data(held_out.images[..., 1:], held_out.labels, "bars"))
    with pytest.raises(ValueError, match="^data: bars holds no labels"):
        judges.accuracy(judge, Data(held_out.images, None, "bars"))
