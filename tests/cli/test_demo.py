"""The demo, quickly: its files, its figures, and a report that stands alone."""

import base64
import json
import math
import re

import pytest
import torch

import diamond

from diamond.cli.demo import run
from diamond.cli.demo.alignments import METHODS, RIVALS
from diamond.cli.demo.settings import BRANCH, GLASS_STEPS, GUIDE_COST, WALK_COST, WALK_MC, WALK_STEPS
from diamond.cli.demo.wording import joined, leaders, number, scale

NAMES = (
    "samples", "posteriors", "distances", "values", "task-class", "task-symmetry", "task-inpainting", "rewards", "ess"
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of a quick run, what the run returned, and whether it left the global random state alone."""
    out = tmp_path_factory.mktemp("demo")
    before = torch.random.get_rng_state()
    content = run(out, quick=True)
    return out, content, torch.equal(before, torch.random.get_rng_state())


@pytest.fixture(scope="module")
def tasks(demo):
    return demo[1]["figures"]["tasks"]


def every_row(tasks):
    """All `(budget, method, row)` of all tasks."""
    tables = [(int(budget), by) for rows in tasks.values() for budget, by in rows.items()]
    return [(budget, name, row) for budget, by in tables for name, row in by.items()]


def test_files(demo):
    out, content, untouched = demo
    for name in ("glass.ckpt", "diamond.ckpt", "report.html", *content["pictures"]):
        assert (out / name).stat().st_size > 500, name
    assert content["pictures"] == [f"{name}.png" for name in NAMES]
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(content))
    assert untouched


def test_every_picture_is_in_the_report_and_nothing_outside_it_is_needed(demo):
    out, content, _ = demo
    html = (out / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href|srcset|data|action)\s*=\s*["']([^"']*)""", html)
    assert len(sources) == len(NAMES)
    for name, source in zip(NAMES, sources, strict=True):
        head, _, body = source.partition(",")
        assert head == "data:image/png;base64", name
        assert base64.b64decode(body) == (out / f"{name}.png").read_bytes(), name
    words = re.sub(r'src="[^"]*"', "", html)
    assert not re.search(r"https?:|file:|url\(|@import|<script|<link", words)
    assert str(out) not in words and "/tmp/" not in words and "/home/" not in words
    assert "nan" not in re.findall(r"[a-z]+", words.lower())


def test_every_budget_is_spent_to_the_last_evaluation(tasks):
    assert WALK_COST == WALK_STEPS + (WALK_STEPS - 1) * WALK_MC
    for budget, name, row in every_row(tasks):
        if name in METHODS[1:]:
            assert row["nfe"] == budget, name
        elif name == METHODS[0]:
            assert (row["nfe"], row["nfe backward"], row["reward calls"]) == (1, 0, 0)
        else:
            assert 0.9 * budget < row["nfe"] <= max(budget, WALK_COST * GLASS_STEPS), name


def test_reward_calls_and_backward_passes_are_what_the_formulas_say(tasks):
    walk = 1 + (WALK_STEPS - 1) * WALK_MC
    for task, rows in tasks.items():
        for budget, by in ((int(budget), by) for budget, by in rows.items()):
            assert by["best-of-N"]["reward calls"] == budget
            assert by["search"]["reward calls"] == budget // WALK_COST // BRANCH * BRANCH * walk
            assert by["SMC"]["reward calls"] == budget // WALK_COST * walk
            guide = by["guidance"]
            particles, steps, mc = (guide["settings"][key] for key in ("particles", "steps", "mc"))
            assert particles == budget // GUIDE_COST and steps * (1 + mc) == GUIDE_COST
            assert guide["reward calls"] == particles * (steps * mc + 1)
            # no derivative at t = 0, and none of a black box
            assert guide["nfe backward"] == (0 if task == "symmetry" else particles * (steps - 1) * mc)
            assert all(by[name]["nfe backward"] == 0 for name in ("best-of-N", "search", "SMC"))


def test_choosing_beats_not_choosing(tasks):
    for rows in tasks.values():
        for by in rows.values():
            assert by["best-of-N"]["reward"]["mean"] >= by["base"]["reward"]["mean"]


def test_rivals_stand_beside_the_shown_budget_only(demo, tasks):
    shown = str(demo[1]["settings"]["shown_budget"])
    for task, rows in tasks.items():
        expected = {*METHODS, *(RIVALS[:2] if task == "symmetry" else RIVALS)}
        assert set(rows[shown]) == expected
        assert all(set(by) == set(METHODS) for budget, by in rows.items() if budget != shown)


def test_figures_have_the_ranges_that_they_must(demo, tasks):
    figures = demo[1]["figures"]
    for row in (row for _, _, row in every_row(tasks)):
        assert row["reward"]["mean"] <= 1e-6
        assert all(math.isfinite(measure["mean"]) for measure in row["measures"].values())
        assert sum(row["digits shown"]) == demo[1]["settings"]["targets"] * demo[1]["settings"]["populations"]
    for key in ("agrees", "agrees, by weight"):
        assert all(0 <= row["measures"][key]["mean"] <= 1 for by in tasks["class"].values() for row in by.values())
    for runs in figures["ess"].values():
        for run_ in runs.values():
            assert all(0 < share <= 1 + 1e-6 for share in run_["share"])
        assert all(abs(share - 1) < 1e-6 for share in runs["none"]["share"][:-1])
    distances = figures["distances"]
    assert all(row == sorted(row, reverse=True) for row in distances["glass"]), "more steps come closer"
    assert all(distances["steps"][0] <= e <= distances["steps"][-1] for e in distances["equivalent steps"])
    real = figures["real digits"]
    assert real["judge accuracy"] > 0.95 and real["classifier accuracy"] > 0.93


def test_figures_are_a_function_of_models_and_seed(demo):
    from diamond.cli.demo import models, quality, settings

    teacher, diamond_map = (diamond.load(demo[0] / name) for name in ("glass.ckpt", "diamond.ckpt"))
    assert diamond_map.metadata["teacher"] == str(demo[0] / "glass.ckpt")  # so that `diamond eval` finds it
    cast = models.assemble(teacher, diamond_map, seed=0)
    again = json.loads(json.dumps(quality.measure_distances(cast, settings.QUICK)))
    assert again == demo[1]["figures"]["distances"]


@pytest.mark.parametrize(
    ("figures", "best", "expected"),
    [
        ({"a": (1.0, 0.1), "b": (2.0, 0.1)}, "high", ["b"]),
        ({"a": (1.0, 0.1), "b": (2.0, 0.1)}, "low", ["a"]),
        ({"a": (1.0, 0.5), "b": (2.0, 0.5), "c": (-9.0, 0.5)}, "high", ["b", "a"]),
    ],
)
def test_only_what_errors_tell_apart_is_called_better(figures, best, expected):
    assert leaders({name: {"mean": mean, "error": error} for name, (mean, error) in figures.items()}, best) == expected


def test_wording():
    assert number(-0.001) == "0.00" and number(-1.5, 1) == "\u22121.5"
    assert joined(["a"]) == "a" and joined("abc") == "a, b and c"
    assert scale(-123.0) == "\u2212123.0" and scale(-2.4e9) == "\u22122 \u00d7 10<sup>9</sup>"
