"""`diamond eval`: what it writes, whom it asks to judge, and what it refuses."""

import json

import numpy as np
import pytest
import torch

from diamond import ClassifierFree, judges
from diamond.cli.evaluation import QUICK, Subject, evaluate_all
from diamond.data import Data, load_data
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.nets import ResidualMLP

FEW = "--quick --draws 6 --states 3 --samples 32 -q"


@pytest.fixture(scope="module")
def figures(diamond, chain, tmp_path_factory):
    """The folder of a quick run, what it said and its figures."""
    folder = tmp_path_factory.mktemp("eval")
    said = diamond(f"eval --model {chain[1]} {FEW} --out {folder}/a.json").stdout
    return folder, said, json.loads((folder / "a.json").read_text())


def test_every_part_is_there(figures):
    _, said, found = figures
    times = len(QUICK.times)
    assert found["times"] == list(QUICK.times) and found["data"] == "digits" and found["draws"] == 6
    for figure in ("energy_distance", "mean_error", "spread"):
        assert all(len(row) == times for row in found["posterior"][figure].values())
    assert max(found["posterior"]["spread"]["GLASS-1"]) < 1e-9  # one Euler step ends at the mean, whatever the noise
    assert set(found["two_sample"]) == {"pixels", "judge's features"}
    for by in found["two_sample"].values():
        assert set(by) == {"map", "GLASS-4", "GLASS-16"}
        assert all(len(row) == times and 0 <= min(row) <= max(row) <= 1 for row in by["map"].values())
    for figure in ("rmse", "bias"):
        assert set(found["value"][figure]) == {"brightness", "symmetry"}
        assert {"map", "GLASS-16"} <= set(found["value"][figure]["symmetry"])
    ranked = found["calibration"]["by"]
    assert set(ranked) == {"map", "GLASS-16"} and len(found["calibration"]["numbers"]) == 6
    assert all(np.mean(histogram) == pytest.approx(1) for histogram in ranked["map"]["histogram"])
    assert len(found["transition"]["chain of the map"]["energy_distance"]) == 8
    assert "wrote" in said and "two-sample" in said and "calibration" in said


def test_samples_are_judged_by_name(figures):
    _, said, found = figures
    samples = found["samples"]
    assert samples["judge"] == judges.load("digits").title and samples["judge_metadata"]["name"] == "digits"
    assert samples["judge"].split(" (")[0] in said and "99." in samples["judge"]
    kinds = {"held-out data", "map, 1 step", "map, 2 steps", "map, 4 steps", "map, 8 steps", "teacher, 64 steps"}
    assert set(samples["by"]) == kinds
    held_out, teacher = samples["by"]["held-out data"], samples["by"]["teacher, 64 steps"]
    assert held_out["frechet"] < 0.6 * teacher["frechet"]  # a teacher of twenty steps
    assert held_out["precision"] > 0.7 and held_out["accuracy"] > 0.9 and "accuracy" not in teacher


def test_plots_stand_beside_the_figures(figures):
    folder = figures[0]
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {"a.posteriors.png", "a.calibration.png", "a.samples.png"}
    assert all((folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for name in pictures)


def test_the_same_seed_gives_the_same_figures(figures, diamond, chain, here):
    diamond(f"eval --model {chain[1]} {FEW} --out again.json")
    assert json.loads((here / "again.json").read_text()) == figures[2]


def test_data_without_a_judge_are_measured_and_not_judged(diamond, here):
    images = np.random.default_rng(0).uniform(-1, 1, (60, 5, 6)).astype(np.float32)
    np.savez("a.npz", images=images)
    diamond("train --data a.npz --width 8 --depth 1 --steps 3 --batch 8 -q")
    diamond("distill --teacher glass.ckpt --steps 3 --batch 8 -q")
    said = diamond(f"eval --model diamond.ckpt {FEW}").stdout
    found = json.loads((here / "eval.json").read_text())
    assert found["samples"] is None and "no judge of these data ships" in said
    assert set(found["two_sample"]) == {"pixels"} and not (here / "eval.samples.png").exists()
    judges.Judge((1, 5, 6), 2, 4, 8).save("mine.judge")
    diamond(f"eval --model diamond.ckpt --judge mine.judge {FEW}")
    assert json.loads((here / "eval.json").read_text())["samples"]["judge"].startswith("judge 'unnamed'")
    for judge, why in (("digits", r"judge: digits judges images \(1, 8, 8\)"), ("nobody", "judge: got 'nobody'")):
        error = diamond(f"eval --model diamond.ckpt --judge {judge} -q", code=2).stderr
        assert why.replace("\\", "") in error


@pytest.mark.parametrize("wrap", [lambda flow: flow, GlassFlow])
def test_the_teacher_of_a_guided_map_is_guided_alike(wrap, diamond, here, monkeypatch):
    """A map's figures are held against the flow it was distilled from, whether its file holds that or its GLASS view."""
    from diamond.cli import evaluation

    met = []
    monkeypatch.setattr(evaluation, "evaluate_all", lambda subject, *_, **__: met.append(subject) or {"samples": None})
    monkeypatch.setattr(evaluation, "draw_plots", lambda *_: [])
    monkeypatch.setattr(evaluation, "print_tables", lambda *_: None)
    flow = Flow(ResidualMLP((1, 8, 8), width=8, depth=1, classes=10))
    wrap(flow).save("glass.ckpt")
    for scale in ("--guidance 2.5", ""):
        diamond(f"distill --teacher glass.ckpt --data digits {scale} --steps 2 --batch 8 -q")
        diamond("eval --model diamond.ckpt")
    guided, plain = (subject.teacher for subject in met)
    assert isinstance(guided, ClassifierFree) and guided.scale == 2.5
    assert type(plain) is Flow


def test_too_few_of_anything_is_refused(diamond, chain, here):
    for option, why in (("draws 1", "draws: got 1"), ("states 0", "states: got 0"), ("samples 15", "samples: got 15")):
        assert why in diamond(f"eval --model {chain[1]} --{option}", code=2).stderr
    np.savez("few.npz", images=np.zeros((12, 8, 8), np.uint8))
    assert "few.npz has 11 training images" in diamond(f"eval --model {chain[1]} --data few.npz", code=2).stderr


class OfClass:
    """A model of digits whose samples are data of the class asked for."""

    def __init__(self, flow, data):
        self.flow, self.data, self.interpolant, self.event_shape = flow, data, flow.interpolant, flow.event_shape
        self.metadata, self.prior = {}, flow.prior
        self.posterior, self.transition = GlassFlow(flow, 2).posterior, GlassFlow(flow, 2).transition
        self.denoise, self.velocity = flow.denoise, flow.velocity

    def sample(self, n, steps, *, cond, generator):
        rows = [torch.randperm(1500, generator=generator)[:200] for _ in cond]
        picked = [row[self.data.labels[row] == label][0] for row, label in zip(rows, cond, strict=True)]
        return self.data.images[torch.stack(picked)]


def test_conditional_samples_are_of_the_class_asked_for():
    train, held_out = load_data("digits"), load_data("digits", split="held-out")
    torch.manual_seed(0)
    flow = Flow(ResidualMLP((1, 8, 8), width=8, depth=1, classes=10))
    perfect = OfClass(flow, Data(train.images, train.labels, "digits"))
    from dataclasses import replace

    sizes = replace(QUICK, draws=4, states=3, samples=200, ranked_states=8)
    subject = Subject(perfect, perfect, train, held_out, judges.load("digits"), True, 0)
    samples = evaluate_all(subject, sizes, progress=False)["samples"]["by"]
    for name in ("map, 1 step", "teacher, 64 steps"):
        found = samples[name]
        assert found["accuracy"] > 0.98 and found["frechet"] < 2 * samples["held-out data"]["frechet"]
        assert found["precision"] > 0.7 and 0.85 < found["diversity"] < 1.15
