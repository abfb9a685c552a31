"""The door: that it opens at once, and the whole chain from data to aligned samples behind it."""

import json
import subprocess
import sys
import types

import pytest
import torch

from PIL import Image

import align
import diamond as package

LIGHT = """
import sys
from typer.testing import CliRunner
from diamond.cli import app
for command in ("", "train", "distill", "align", "eval", "info", "demo"):
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.stdout, command
heavy = {"torch", "numpy", "accelerate", "matplotlib", "sklearn", "torchvision", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_needs_nothing_heavy():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_help_is_there_at_once():
    resource = pytest.importorskip("resource")

    def seconds():
        """Of a processor's time, which does not depend on what else runs."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    began = seconds()
    done = subprocess.run([sys.executable, "-m", "diamond", "distill", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--teacher" in done.stdout
    assert seconds() - began < 1.5  # it takes a quarter of a second; torch alone takes two


def test_version(diamond):
    assert package.__version__ in diamond("--version").stdout


def test_training_leaves_a_model_and_its_metrics(chain):
    glass, _ = chain
    flow = package.load(glass)
    assert isinstance(flow, package.Flow) and flow.event_shape == (1, 8, 8)
    assert flow.metadata == {"data": "digits", "steps": 20, "seed": 0}
    assert flow.net.net.config["width"] == 32 and flow.net.net.config["depth"] == 1
    rows = [json.loads(line) for line in (glass.parent / "glass.ckpt.metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 20
    assert not (glass.parent / "glass.ckpt.state").exists()


def test_distilling_leaves_a_map_that_knows_where_it_comes_from(chain):
    glass, model = chain
    found = package.load(model)
    assert isinstance(found, package.DiamondMap)
    assert found.metadata["data"] == "digits" and found.metadata["teacher"] == str(glass)


def test_training_says_where_its_outputs_are(diamond, here):
    said = diamond("train --width 8 --depth 1 --steps 2 --batch 4 --quiet").stdout
    assert "wrote glass.ckpt\n" in said and (here / "glass.ckpt").is_file()
    said = diamond("distill --teacher glass.ckpt --steps 2 --batch 4 --quiet").stdout
    assert "wrote diamond.ckpt\n" in said and (here / "diamond.ckpt").is_file()


def test_a_seed_fixes_the_weights(diamond, here):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        diamond(f"train --width 8 --depth 1 --steps 2 --batch 4 --quiet --out {out} --seed {seed}")
    first, second, other = (package.load(name).net.net.enter.weight for name in "abc")
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_training_takes_each_network_and_path(diamond, here):
    diamond("train --net transformer --width 16 --depth 1 --interpolant cosine --steps 2 --batch 4 -q --out t.ckpt")
    flow = package.load("t.ckpt")
    assert type(flow.net).__name__ == "Transformer" and isinstance(flow.interpolant, package.Cosine)


@pytest.mark.parametrize("method", ["best-of-n", "search", "smc", "guide", "base"])
def test_align_leaves_pictures_tensors_and_figures(method, diamond, chain, here):
    sizes = "--particles 5 --steps 2 --batch 2"
    said = diamond(f"align --model {chain[1]} --reward brightness --method {method} {sizes} --out o -q").stdout
    for name in ("samples.png", "alignment.safetensors", "alignment.json", "alignment.png"):
        assert (here / "o" / name).is_file() and f"wrote o/{name}" in said
    result = align.Alignment.load(here / "o" / "alignment.safetensors")
    figures = json.loads((here / "o" / "alignment.json").read_text())
    assert result.samples.shape == (2, 5, 1, 8, 8)
    assert torch.allclose(result.rewards, result.samples.flatten(2).mean(2), atol=1e-5)
    assert figures["method"] == result.method and figures["law"] == result.law and figures["reward"] == "brightness"
    assert figures["nfe"] == result.nfe and figures["reward_calls"] == result.reward_calls
    assert figures["best_reward"] == pytest.approx(float(result.rewards.amax(1).mean()))
    assert (figures["log_z"] is None) == (method in ("search", "guide", "base"))
    assert Image.open(here / "o" / "samples.png").size == (5 * 68 + 4, 2 * 68 + 4)  # 8x8 is shown as 64x64
    if method == "base":
        assert not result.log_weights.any() and result.law.startswith("p(z)")


OPTIONS = {
    "smc": "--proposal lookahead --tempering 0.4 --mc 4 --antithetic --potential max --resampling residual --rho 0.3",
    "search": "--antithetic --mc 2 --rho 0.2 --branch 3 --keep each",
    "smc ": "--proposal plugin --proposal-strength 0.3 --ess-threshold 0.9",
    "guide": "--estimator score --mc 4 --eta 0.5 --correct --scale 0.5 --strength drift",
}


@pytest.mark.parametrize("method", OPTIONS)
def test_the_options_of_a_method_reach_it(method, diamond, chain, here):
    diamond(
        f"align --model {chain[1]} --reward contrast --method {method} --particles 6 --steps 3 {OPTIONS[method]} -q"
    )
    settings = json.loads((here / "out" / "alignment.json").read_text())["settings"]
    names = OPTIONS[method].split()
    settings = {name.replace("_", "-"): value for name, value in settings.items()}
    for name, value in zip(names, [*names[1:], "--"], strict=True):
        if name.startswith("--"):
            expected = True if value.startswith("--") else value
            assert str(settings[name[2:]]) == str(expected), name


def test_a_population_does_not_depend_on_those_beside_it(diamond, chain, here):
    for batch in (1, 3):
        diamond(f"align --model {chain[1]} --reward symmetry --particles 4 --steps 2 --batch {batch} --out o{batch} -q")
    one, three = (align.Alignment.load(f"o{batch}/alignment.safetensors") for batch in (1, 3))
    assert torch.allclose(one.samples[0], three.samples[0], atol=1e-5)


def test_a_plain_flow_is_seen_as_a_glass_flow(diamond, chain, here):
    diamond(f"align --model {chain[0]} --reward brightness --method best-of-n --particles 3 --glass-steps 5 -q")
    assert json.loads((here / "out" / "alignment.json").read_text())["nfe"] == 3 * 5


def test_search_climbs(diamond, chain, here):
    for method in ("search", "base"):
        diamond(
            f"align --model {chain[1]} --reward 5.0*brightness --method {method} --particles 4 --batch 8 --out {method} -q"
        )
    searched, base = (json.loads((here / m / "alignment.json").read_text())["mean_reward"] for m in ("search", "base"))
    assert searched > base + 0.5, (searched, base)


def test_eval_compares_the_map_with_its_teacher(diamond, chain, here):
    said = diamond(f"eval --model {chain[1]} --draws 4 --states 2 --samples 64 -q").stdout
    figures = json.loads((here / "eval.json").read_text())
    distances = figures["posterior"]["energy_distance"]
    assert figures["teacher"] == str(chain[0]) and figures["times"] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert all(len(row) == 5 for row in distances.values())
    assert distances["GLASS-32"][2] < distances["GLASS-2"][2]
    assert distances["GLASS-1"] == figures["posterior"]["energy_distance_published"]["GLASS-1"]  # one step has no grid
    assert distances["GLASS-8"][4] < 0.5 * figures["posterior"]["energy_distance_published"]["GLASS-8"][4]
    for steps, row in (("equivalent_steps", "worth GLASS steps"), ("equivalent_steps_published", "worth even steps")):
        numbers = figures["posterior"][steps]
        assert all(1 <= number <= 32 for number in numbers)
        shown = next(line for line in said.splitlines() if row in line).split("│")[2:-1]
        assert [cell.strip() for cell in shown] == [f"{number:.1f}" for number in numbers]
    for name in ("brightness", "symmetry"):
        errors = figures["value"]["rmse"][name]
        assert set(errors) == {"map", "plug-in", "reference", *(f"GLASS-{k}" for k in (1, 2, 4, 8, 16, 32))}
        assert errors["GLASS-1"] == pytest.approx(errors["plug-in"], rel=1e-3)  # one step is the posterior mean
    assert "wrote eval.json" in said and "energy distance" in said


def labels_of(model):
    found = {name: value for name, value in model.state_dict().items() if name.endswith("label.weight")}
    return [value for name, value in found.items() if "trunk" not in name]


def test_a_conditional_model_goes_all_the_way(diamond, here):
    diamond("train --conditional --width 8 --depth 1 --steps 3 --batch 8 -q")
    diamond("distill --teacher glass.ckpt --steps 3 --batch 8 -q")
    before, after = (labels_of(package.load(name)) for name in ("glass.ckpt", "diamond.ckpt"))
    assert len(before) == len(after) == 1
    assert not torch.equal(before[0][:10], after[0][:10])  # the map was shown labels too
    diamond("align --model diamond.ckpt --reward brightness --particles 2 --steps 1 --batch 3 -q")
    assert json.loads((here / "out" / "alignment.json").read_text())["labels"] == [0, 1, 2]
    said = diamond(
        "align --model diamond.ckpt --reward brightness --particles 2 --steps 1 --batch 2 --label 7 -q"
    ).stdout
    assert next(line for line in said.splitlines() if "class" in line).split("│")[2].strip() == "7, 7"
    assert json.loads((here / "out" / "alignment.json").read_text())["labels"] == [7, 7]
    diamond("eval --model diamond.ckpt --draws 2 --states 2 --samples 32 --quick -q")
    said = diamond("align --model diamond.ckpt --reward brightness --label 10", code=2).stderr
    assert "label: got 10, expected a class from 0 to 9" in said


def test_info_says_what_each_kind_of_file_holds(diamond, chain, here):
    glass, model = chain
    assert "Flow" in (said := diamond(f"info {glass}").stdout) and "ResidualMLP" in said and "digits" in said
    count = sum(parameter.numel() for parameter in package.load(model).parameters())
    assert "DiamondMap" in (said := diamond(f"info {model}").stdout) and f"{count:,}" in said
    package.GlassFlow(package.load(glass), 7).save("g.ckpt")
    assert "GlassFlow" in (said := diamond("info g.ckpt").stdout) and '"euler"' in said
    package.GaussianMixtureFlow(torch.ones(2), torch.zeros(2, 3), torch.ones(2)).save("m.ckpt")
    assert "GaussianMixtureFlow" in diamond("info m.ckpt").stdout
    diamond(f"align --model {model} --reward brightness --particles 2 --steps 1 -q")
    assert "alignment" in (said := diamond("info out/alignment.safetensors").stdout) and "smc" in said


def test_a_mixture_is_a_teacher_and_a_model_too(diamond, here):
    package.GaussianMixtureFlow(torch.ones(2), torch.randn(2, 3), torch.ones(2)).save("m.ckpt")
    diamond("distill --teacher m.ckpt --steps 2 --batch 4 -q")
    said = diamond("align --model diamond.ckpt --reward brightness --particles 2 --steps 1 -q").stdout
    assert "samples.png" not in said and not (here / "out" / "samples.png").exists()  # vectors are no pictures
    diamond("align --model m.ckpt --reward brightness --particles 2 --steps 1 -q")


def test_demo_hands_its_options_on(diamond, here, monkeypatch):
    calls = []
    fake = types.ModuleType("diamond.cli.demo")
    fake.run = lambda out, **options: calls.append((out, options))
    monkeypatch.setitem(sys.modules, "diamond.cli.demo", fake)
    diamond("demo --out somewhere --seed 3 --quick")
    ((out, options),) = calls
    assert str(out) == "somewhere" and options == {"seed": 3, "quick": True}
