"""Averages: their recursion, several at once, and the choice among them after training."""

import numpy as np
import pytest
import torch

import diamond
import distill

from diamond.checkpoint import read_tensors
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP
from distill.training.averages import Averages, average_path, choose_average


def flow(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return diamond.Flow(ResidualMLP((2,), width=8, depth=1))


def fill(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def mixture():
    return GaussianMixtureFlow(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.full((2,), 0.1))


def test_each_average_follows_its_recursion():
    """With a decay of (1 + k) / (10 + k) while that is below its own; the first step's weights begin it."""
    model, decays = flow(), (0.5, 0.9)
    averages, expected = Averages(model, decays), [0.0, 0.0]
    for k in range(30):
        fill(model, float(k * k % 7))
        averages.update(k)
        for i, decay in enumerate(decays):
            kept = min(decay, (1 + k) / (10 + k)) if k else 0.0
            expected[i] = kept * expected[i] + (1 - kept) * (k * k % 7)
    for i, value in enumerate(expected):
        averages.apply(i)
        assert all(torch.allclose(p, torch.full_like(p, value), rtol=1e-5) for p in model.parameters())
    assert abs(expected[0] - expected[1]) > 0.1


def test_an_average_is_applied_for_a_while():
    model = flow().train()
    averages = Averages(model, (0.9,))
    averages.update(0)
    before = [parameter.clone() for parameter in model.parameters()]
    fill(model, 3.0)
    with averages.applied():
        assert not model.training
        assert all(map(torch.equal, model.parameters(), before))
    assert model.training and all(bool((parameter == 3).all()) for parameter in model.parameters())


def test_all_averages_are_saved_each_as_if_it_were_the_only_one(tmp_path):
    def run(out, ema):
        return distill.train_flow(
            mixture(), flow().net, steps=40, batch=16, ema=ema, warmup=0, out=tmp_path / out, progress=False
        )

    returned = run("both.ckpt", (0.9, 0.5))
    run("slow.ckpt", 0.9)
    run("fast.ckpt", 0.5)
    assert average_path("a/both.ckpt", 0.5).name == "both.ema-0.5.ckpt"
    assert average_path("a/both.ckpt", np.float64(0.5)).name == "both.ema-0.5.ckpt"
    pairs = {"both.ckpt": "slow.ckpt", "both.ema-0.5.ckpt": "fast.ckpt"}
    states = {name: diamond.load(tmp_path / name).state_dict() for name in (*pairs, *pairs.values())}
    for one, other in pairs.items():
        assert all(torch.equal(states[one][key], states[other][key]) for key in states[one])
    assert not torch.equal(*(states[name]["net.enter.weight"] for name in pairs))
    assert torch.equal(returned.state_dict()["net.enter.weight"], states["both.ckpt"]["net.enter.weight"])


def test_all_averages_are_in_the_state_and_survive_a_stop(tmp_path, monkeypatch):
    from distill.objectives import FlowObjective

    def run(out):
        distill.train_flow(mixture(), flow().net, steps=12, batch=16, ema=(0.9, 0.5), out=out, progress=False)

    run(tmp_path / "whole.ckpt")
    call, count = FlowObjective.__call__, []

    def stops(self, *arguments):
        count.append(None)
        if len(count) == 8:
            raise KeyboardInterrupt
        return call(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FlowObjective, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped.ckpt")
    names = set(read_tensors(tmp_path / "stopped.ckpt.state")[0])
    assert {"average.0.net.enter.weight", "average.1.net.enter.weight"} <= names
    run(tmp_path / "stopped.ckpt")
    for end in (".ckpt", ".ema-0.5.ckpt"):
        one, other = (diamond.load(tmp_path / (name + end)).state_dict() for name in ("whole", "stopped"))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_best_average_is_chosen_afterwards(tmp_path):
    out = tmp_path / "flow.ckpt"
    for path, value in ((out, 1.0), (average_path(out, 0.9), 3.0), (average_path(out, 0.5), 2.0)):
        model = flow()
        fill(model, value)
        model.save(path)
    decay, model = choose_average(out, (0.9, 0.5), score=lambda model: float(next(model.parameters()).detach().mean()))
    assert decay == 0.9 and bool((next(model.parameters()) == 3).all())
    assert bool((next(diamond.load(out).parameters()) == 3).all())
    decay, _ = choose_average(out, (0.5,), score=lambda model: float(next(model.parameters()).detach().mean()))
    assert decay is None
    with pytest.raises(ValueError, match="score: got NaN"):
        choose_average(out, (), score=lambda model: float("nan"))


def test_averages_that_could_not_be_kept_are_refused():
    with pytest.raises(ValueError, match=r"ema: got \(0.9, 0.5\) without out"):
        distill.train_flow(mixture(), flow().net, steps=2, batch=4, ema=(0.9, 0.5), progress=False)
    for ema in ((), (0.5, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match="ema: got"):
            distill.Schedule(steps=2, ema=ema)
