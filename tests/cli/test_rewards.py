"""Rewards as written on a command line, the classifier behind one of them, and what a picture shows."""

import json

import pytest
import torch

from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

from align import best_of_n, rewards
from diamond.cli.classifier import train_classifier
from diamond.cli.pictures import picture, shown_samples
from diamond.cli.rewards import parse_terms, reward_named
from diamond.data import load_data
from diamond.mixture import GaussianMixtureFlow


def no_data():
    raise AssertionError("this reward needs no data")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("brightness", [(1.0, "brightness")]),
        ("2.0*brightness + symmetry", [(2.0, "brightness"), (1.0, "symmetry")]),
        (
            " - 2 * brightness + -1 * ~/my own/sharp one.py:a ",
            [(-2.0, "brightness"), (-1.0, "~/my own/sharp one.py:a")],
        ),
        ("-.5*jpeg-size+1e+2*class:3", [(-0.5, "jpeg-size"), (100.0, "class:3")]),
        ("3*my.package_1:sharp", [(3.0, "my.package_1:sharp")]),
        ("sharp.py:a+.5*./sharp.py:b", [(1.0, "sharp.py:a"), (0.5, "./sharp.py:b")]),
        (
            "2*../../my/sharp.py:a+~/b.py:c+/d/e.py:f",
            [(2.0, "../../my/sharp.py:a"), (1.0, "~/b.py:c"), (1.0, "/d/e.py:f")],
        ),
    ],
)
def test_a_specification_is_a_sum_of_terms(text, terms):
    assert parse_terms(text) == terms


@pytest.mark.parametrize("text", ["", "+", "2", "2*", "*a", "a++b", "a b+", "a*2", "2*3*a", "a-"])
def test_what_is_no_sum_is_refused(text):
    with pytest.raises(ValueError, match="reward: got"):
        reward_named(text, no_data)


def test_a_sum_is_the_sum_of_its_terms():
    z = torch.rand(5, 1, 8, 8) * 2 - 1
    found = reward_named("2.0*brightness+symmetry+0.5*jpeg-size", no_data)(z)
    expected = 2 * rewards.Brightness()(z) + rewards.Symmetry()(z) + 0.5 * rewards.JPEGSize()(z)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("brightness", rewards.Brightness()),
        ("contrast", rewards.Contrast()),
        ("symmetry", rewards.Symmetry()),
        ("sparsity", rewards.Sparsity()),
        ("jpeg-size", rewards.JPEGSize()),
        ("mean-colour:orange", rewards.MeanColour("orange")),
    ],
)
def test_ready_rewards_have_names(text, reward):
    z = torch.rand((5, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(reward_named(text, no_data)(z), reward(z))
    assert torch.allclose(reward_named(f"-2*{text}+brightness", no_data)(z), rewards.Brightness()(z) - 2 * reward(z))


def test_an_unknown_name_is_answered_with_those_that_there_are():
    names = (
        "brightness, contrast, symmetry, sparsity, jpeg-size, mean-colour:NAME, class:K, margin:K, module.path:attrib"
    )
    for text, name in [("beauty", "beauty"), ("2*beauty+contrast", "beauty"), ("margin", "margin")]:
        with pytest.raises(ValueError, match=f"^reward: got '{name}', expected one of {names}"):
            reward_named(text, no_data)
    with pytest.raises(ValueError, match="^reward: got 'margin:x', expected a whole number, like margin:3"):
        reward_named("margin:x", no_data)
    with pytest.raises(ValueError, match="^colour: got 'beautiful'"):
        reward_named("mean-colour:beautiful", no_data)


def test_a_term_that_loses_its_gradient_is_named_as_it_was_written():
    z = torch.zeros(2, 1, 8, 8, requires_grad=True)
    with pytest.raises(ValueError, match="^reward 'jpeg-size': .*use estimator='score'"):
        reward_named("jpeg-size+contrast", no_data)(z)


def test_a_margin_is_that_of_the_classifier(monkeypatch):
    data = load_data("digits")
    net = train_classifier(data, steps=3)
    monkeypatch.setattr("diamond.cli.classifier.train_classifier", lambda part: net)
    logits = net(data.images[:9])
    expected = logits[:, 3] - logits[:, [0, 1, 2, 4, 5, 6, 7, 8, 9]].amax(1)
    assert torch.allclose(reward_named("margin:3", lambda: data)(data.images[:9]), expected)
    with pytest.raises(ValueError, match="^reward: got 'margin:10', expected a class of digits from 0 to 9"):
        reward_named("margin:10", lambda: data)


def test_a_callable_of_the_current_folder(diamond, chain, here):
    (here / "my_own_rewards.py").write_text(
        "def spread(z):\n    return z.flatten(1).std(1)\n\n"
        "class Peak:\n    def __call__(self, z):\n        return z.flatten(1).amax(1)\n"
    )
    line = f"align --model {chain[1]} --reward 2.0*my_own_rewards:spread+my_own_rewards:Peak --particles 3 --steps 1 -q"
    diamond(line)
    assert json.loads((here / "out" / "alignment.json").read_text())["reward"].startswith("2.0*my_own")
    z = torch.randn(4, 1, 8, 8)
    assert torch.allclose(reward_named("my_own_rewards:spread", no_data)(z), z.flatten(1).std(1))
    assert torch.allclose(reward_named("my_own_rewards:Peak", no_data)(z), z.flatten(1).amax(1))


def test_a_callable_of_a_file(here):
    folder = here / "elsewhere"
    folder.mkdir()
    (folder / "helper_of_json.py").write_text("FACTOR = 3.0\n")
    (folder / "json.py").write_text(  # a module of this name is there already
        "from dataclasses import dataclass\nfrom helper_of_json import FACTOR\n\nruns = []\n\n"
        "def mean(z):\n    runs.append(len(z))\n    return FACTOR * z.flatten(1).mean(1)\n\n"
        "@dataclass\nclass Peak:\n    factor: float = 2.0\n\n"
        "    def __call__(self, z):\n        return self.factor * z.flatten(1).amax(1) + len(runs)\n"
    )
    z = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    reward = reward_named(f"elsewhere/json.py:mean+{folder}/json.py:Peak", no_data)
    assert torch.allclose(reward(z), 3 * z.flatten(1).mean(1) + 2 * z.flatten(1).amax(1) + 1)  # one module, run once
    assert json.loads("3") == 3
    (here / "else where").mkdir()
    (here / "else where" / "two words.py").write_text("def first(z):\n    return z.flatten(1)[:, 0]\n")
    assert torch.equal(reward_named("2 * else where/two words.py:first", no_data)(z), 2 * z.flatten(1)[:, 0])
    with pytest.raises(ValueError, match="^reward: got './json.py:mean', but ./json.py cannot be .*no such file"):
        reward_named("./json.py:mean", no_data)
    (here / "half.py").write_text("def mean(z):\n    return z\n\nimport not_there_at_all\n")
    for _ in range(2):  # nor is half of it found the second time
        with pytest.raises(ValueError, match="^reward: got 'half.py:mean', but half.py cannot be .*not_there_at_all"):
            reward_named("half.py:mean", no_data)


def test_the_classifier_knows_digits_it_has_not_seen(diamond, chain, here, monkeypatch):
    held_out = load_data("digits", split="held-out")
    net = train_classifier(load_data("digits"))
    monkeypatch.setattr("diamond.cli.classifier.train_classifier", lambda data: net)  # as it would be each time
    right = (net(held_out.images).argmax(1) == held_out.labels).float().mean()
    assert right > 0.93
    reward = reward_named("class:3", lambda: load_data("digits"))(held_out.images)
    assert reward[held_out.labels == 3].exp().mean() > 0.8 and reward[held_out.labels != 3].exp().mean() < 0.05
    diamond(f"align --model {chain[1]} --reward 3*class:3 --method guide --particles 2 --steps 2 --mc 2 -q")


def test_the_classifier_is_the_same_each_time_and_leaves_the_global_state_alone():
    data = load_data("digits")
    before = torch.random.get_rng_state()
    first, second = (train_classifier(data, steps=3) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("batch", "rows"), [(1, 8), (3, 3)])
def test_a_picture_shows_the_best_first(batch, rows):
    model = GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 1), torch.ones(1))
    result = best_of_n(model, lambda z: z[:, 0], n=70, batch=batch)
    shown = shown_samples(result, "reward")
    assert shown.shape == (rows, 8, 1)
    for population, best in zip(shown.reshape(batch, -1), result.best(), strict=True):
        assert population[0] == best and bool((population.diff() <= 0).all())
    assert torch.equal(shown_samples(result, "order").reshape(batch, -1), result.samples[:, : rows * 8 // batch, 0])


def test_a_small_image_is_enlarged_without_smoothing():
    images = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 1, 2).expand(1, 2, 3, 2, 2)
    drawn = picture(images)
    assert drawn.size == (2 * 68 + 4, 72)
    assert sorted(drawn.crop((4, 4, 68, 68)).getcolors()) == [(32 * 64, (0, 0, 0)), (32 * 64, (255, 255, 255))]


@pytest.mark.parametrize("shape", [(2, 3, 1, 5, 7), (1, 1, 3, 70, 66)])
def test_a_picture_is_a_framed_grid(shape):
    samples = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    enlarged = (
        ((samples.clamp(-1, 1) + 1) / 2).flatten(0, 1).repeat_interleave(scale := max(1, -(-64 // min(shape[3:]))), 2)
    )
    grid = make_grid(enlarged.repeat_interleave(scale, 3), nrow=shape[1], padding=4, pad_value=1.0)
    assert torch.equal(pil_to_tensor(picture(samples)), (grid * 255).byte())


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("brightness-symmetry", "brightness+-1*symmetry"),
        ("brightness - symmetry", "brightness+-1*symmetry"),
        ("2*contrast+jpeg-size-class:3", "jpeg-size+-1*class:3"),
        ("beauty-symmetry", None),
    ],
)
def test_a_difference_is_told_how_it_is_written(text, hint):
    with pytest.raises(ValueError, match="^reward: got .*(expected one of|cannot be imported)") as caught:
        reward_named(text, no_data)
    assert ("a difference" in str(caught.value)) == (hint is not None)
    if hint:
        assert str(caught.value).endswith(f"; a difference is a sum, like {hint}")


def test_a_difference_written_so_is_one():
    z = torch.rand(5, 1, 8, 8) * 2 - 1
    found = reward_named("brightness+-1*symmetry", no_data)(z)
    assert torch.allclose(found, rewards.Brightness()(z) - rewards.Symmetry()(z))
