"""What every algorithm gives, shows and refuses."""

import sys

import numpy
import pytest
import torch
import tqdm.auto

import align


def test_callbacks_see_every_step_and_change_nothing(algorithm, glass, seeded, attracted, cond):
    seen = []
    out = algorithm(glass, attracted, batch=3, cond=cond, generator=seeded(), callback=seen.append)
    silent = algorithm(glass, attracted, batch=3, cond=cond, generator=seeded())
    steps = algorithm.keywords["steps"]
    assert [step.step for step in seen] == list(range(steps))
    assert [step.t for step in seen] == pytest.approx([(k + 1) / steps for k in range(steps)])
    assert torch.equal(seen[-1].samples, out.samples)
    assert all(step.samples.shape == out.samples.shape for step in seen)
    assert all(step.log_weights.shape == out.rewards.shape and step.ess.shape == (3,) for step in seen)
    assert torch.equal(out.samples, silent.samples)


def test_results_have_their_documented_shapes(algorithm, glass, attracted, cond):
    out = algorithm(glass, attracted, batch=3, cond=cond)
    batch, particles, size = out.samples.shape
    assert (batch, size) == (3, 2)
    assert out.rewards.shape == out.log_weights.shape == (3, particles)
    assert out.ess.shape[1:] == (3,)
    assert out.ancestors.shape[1:] == (3, particles)
    assert out.ancestors.dtype == torch.int64
    assert torch.allclose(out.rewards.flatten(), attracted(out.samples, cond[:, None]).flatten())
    assert out.log_z is None or out.log_z.shape == (3,)
    assert out.seconds > 0 and out.method and out.law


def test_results_hold_no_graph(algorithm, glass, attracted, cond):
    with torch.enable_grad():
        out = algorithm(glass, attracted, batch=3, cond=cond)
    assert not any(value.requires_grad for value in vars(out).values() if isinstance(value, torch.Tensor))


def test_progress_shows_a_bar_only_where_asked(algorithm, case_a, mild, capsys):
    algorithm(case_a, mild)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    algorithm(case_a, mild, progress=True)
    steps = algorithm.keywords["steps"]
    assert f"{steps}/{steps}" in capsys.readouterr().err


def test_generators_that_are_not_one_for_each_population_are_refused(algorithm, case_a, mild, family):
    with pytest.raises(ValueError, match="^generator: got 2 generators, expected one, or one for each of 3"):
        algorithm(case_a, mild, batch=3, generator=family([1, 2]))


@pytest.mark.parametrize("name, value", [("batch", 0), ("chunk", 0), ("steps", 0)])
def test_counts_of_nothing_are_refused(name, value, algorithm, case_a, mild):
    with pytest.raises(ValueError, match=f"^{name}: got 0"):
        algorithm(case_a, mild, **{name: value})


def test_models_without_a_posterior_are_refused(algorithm, tiny_flow, mild):
    with pytest.raises(ValueError, match=r"^model: got Flow, expected a posterior sampler"):
        algorithm(tiny_flow, mild)


def test_a_model_that_counts_nothing_has_no_cost(still):
    assert align.best_of_n(still, lambda z: z[:, 0], 3).nfe is None


SAME = {
    "tensor": lambda text, number: torch.tensor([number, number]),
    "texts": lambda text, number: [text, text],
    "both": lambda text, number: {"prompt": (text, text), "size": [torch.tensor([[number], [number]]), None]},
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_populations_of_the_same_conditioning_are_replicates(make, case_a, mild):
    """Texts too, whose rows are equal and not the same."""
    same = align.best_of_n(case_a, mild, 4, batch=2, cond=make("a cat", 1.0))
    assert same.replicates and same.evidence().error > 0


@pytest.mark.parametrize("cond", [["a cat", "a dog"], torch.tensor([1, 2]), {"a": ["x", "x"], "b": torch.eye(2)}])
def test_populations_of_other_conditioning_are_not(cond, case_a, mild):
    assert not align.best_of_n(case_a, mild, 4, batch=2, cond=cond).replicates


def test_one_reward_given_to_each_population_is_one(case_a, mild, gentle):
    assert align.best_of_n(case_a, [mild], 4).replicates
    assert align.best_of_n(case_a, [mild, mild], 4, batch=2).replicates
    assert not align.best_of_n(case_a, [mild, gentle], 4, batch=2).replicates


@pytest.mark.parametrize("make", [numpy.float32, torch.tensor])
def test_numbers_of_other_libraries_are_kept_as_settings_that_can_be_saved(make, case_a, mild, tmp_path):
    for name, out in {
        "rho": align.smc(case_a, mild, 4, 2, rho=make(0.5), ess_threshold=make(0.75)),
        "eta": align.guide(case_a, mild, 2, 2, eta=make(0.5)),
    }.items():
        assert out.settings[name] == 0.5
        out.save(tmp_path / "result")
        assert align.Alignment.load(tmp_path / "result").settings == out.settings


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.1), (False, 10.0)])
def test_a_bar_in_a_file_is_written_seldom(terminal, seconds, algorithm, case_a, mild, monkeypatch):
    """It keeps every state of the bar; a terminal shows the last."""
    seen = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            seen.append(self.mininterval)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    algorithm(case_a, mild, progress=True)
    assert seen == [seconds]
