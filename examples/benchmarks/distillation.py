"""Which loss makes the best map for the same work: LSD, ESD, PSD, MeanFlow and trajectory, by a teacher and by data alone.

Every loss trains a Diamond Map of the same network from the same start for the same seconds of one thread's own work
(which other programs do not lengthen), with the step time of each measured first; the rate falls to zero in that time, so
that each budget is a run of its own. On images the start is the teacher's weights, for those by data alone as well, which
never ask it. Then, on states of held-out data at five outer times:

- posterior: energy distance of one-call draws to the exact posterior (mixture), or to GLASS with 64 steps (images);
- value: root mean square error of log-mean-exp values from 16 draws, against that of the reference's draws;
- Frechet: distance of the first two moments of one-step samples to those of the data, in the data's own coordinates.

`python examples/benchmarks/distillation.py --out FOLDER` prints a table and writes `distillation.json` and
`distillation.png`; `--quick` takes seconds a run, `--cases mixture digits mnist` chooses. Seed 0.
"""

import argparse
import json
import math
import os
import platform
import time

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import diamond
import distill

from diamond.data import load_data
from diamond.evaluation import Reference, distances_to, draw_in_tiles, draw_references, frechet_distance
from diamond.model import Model
from diamond.nets import Preconditioned, ResidualMLP, grow
from diamond.randomness import seeded

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
METHODS = {
    "LSD": {"loss": "lsd"},
    "ESD": {"loss": "esd"},
    "PSD": {"loss": "psd"},
    "MeanFlow": {"loss": "meanflow"},
    "trajectory": {"loss": "trajectory"},
    "LSD, data": {"loss": "lsd", "supervision": "data"},
    "ESD, data": {"loss": "esd", "supervision": "data"},
    "PSD, data": {"loss": "psd", "supervision": "data"},
    "MeanFlow, data": {"loss": "meanflow", "supervision": "data"},
    "PSD, data, adaptive": {"loss": "psd", "supervision": "data", "weighting": "adaptive"},
    "LSD, learned": {"loss": "lsd", "weighting": "learned"},
    "LSD, early times": {"loss": "lsd", "times": "early"},
    "trajectory, early times": {"loss": "trajectory", "times": "early"},
    "trajectory, early, Muon": {"loss": "trajectory", "times": "early", "optimizer": "muon"},
}
BUDGETS = {"mixture": (5.0, 20.0), "digits": (10.0, 40.0), "mnist": (120.0, 480.0)}
QUICK = {"mixture": (2.0,), "digits": (4.0,), "mnist": (20.0,)}
GLASS = (4, 8, 16)


@dataclass(frozen=True)
class Case:
    """A teacher, data to train on, held-out samples, a reward, and the size of what is measured."""

    teacher: Model
    data: torch.Tensor
    held_out: torch.Tensor
    reward: Any
    exact: bool
    states: int
    draws: int

    def student(self) -> torch.nn.Module:
        """The same network for every method."""
        if not self.exact:
            return grow(self.teacher.net, 1, 3)
        with seeded(0):
            return ResidualMLP((2,), width=128, depth=3, states=1, times=3)


def mixture() -> Case:
    means = torch.tensor([[-1.5, 0.5], [1.0, -0.5]])
    exact = diamond.GaussianMixtureFlow(torch.tensor([0.35, 0.65]), means, torch.tensor([0.16, 0.36]))
    data = exact.sample(28_192, generator=torch.Generator().manual_seed(1))
    wanted = torch.tensor([-1.0, 0.0])
    return Case(exact, data[8192:], data[:8192], lambda z: -(z - wanted).square().sum(-1), True, 48, 512)


def images(name: str, seconds: float) -> Case:
    """A data set, and a teacher trained on it for a number of steps that takes about `seconds`."""
    train, held_out = (
        load_data(name, split=split, root=os.environ.get("DIAMOND_DATA")) for split in ("train", "held-out")
    )
    with seeded(0):
        net = Preconditioned(ResidualMLP(tuple(train.images.shape[1:]), width=256), std=float(train.images.std()))
    options = {"batch": 256, "progress": False}
    step = step_seconds(lambda n: distill.train_flow(train.images, net, steps=n, **options))
    teacher = distill.train_flow(train.images, net, steps=max(round(seconds / step), 50), **options)
    brightness = train.images.flatten(1).mean(1)
    reward = lambda z: 2 * (z.flatten(1).mean(1) - brightness.mean()) / brightness.std()  # noqa: E731
    return Case(teacher, train.images, held_out.images, reward, False, 16, 128)


def step_seconds(train: Any, few: int = 8, more: int = 40) -> float:
    """Of this process's own time, what a step of `train(steps)` takes beyond what any run does."""
    train(1)  # what is slow but once
    spent = []
    for steps in (few, more):
        began = time.process_time()
        train(steps)
        spent.append(time.process_time() - began)
    return max((spent[1] - spent[0]) / (more - few), spent[1] / more / 4)


def run(case: Case, method: dict[str, Any], seconds: float, batch: int) -> tuple[diamond.DiamondMap, int, float]:
    """A map trained for about `seconds`, its steps, and the seconds that they took."""

    def train(steps: int) -> diamond.DiamondMap:
        schedule = {"steps": steps, "batch": batch, "warmup": min(100, steps // 10), "progress": False}
        return distill.distill(case.teacher, case.data, case.student(), **schedule, **{"times": "uniform", **method})

    steps = max(round(seconds / step_seconds(train)), 10)
    began = time.process_time()
    model = train(steps)
    return model, steps, time.process_time() - began


@torch.no_grad()
def measure(case: Case, references: list[Reference], sampler: Any) -> dict[str, float]:
    """The figures of a posterior sampler."""
    generator = torch.Generator().manual_seed(3)
    gaps = []
    for reference in references:
        drawn = draw_in_tiles(sampler, reference.x_t, reference.t, 256, generator=generator)
        truth = values(case.reward, reference.draws, len(reference.draws))
        gaps.append(values(case.reward, drawn, 16) - truth)
    made = draw_in_tiles(
        sampler, torch.randn(1, *case.data.shape[1:], generator=generator), 0.0, 4096, generator=generator
    )
    return {
        "posterior": float(distances_to(references, sampler).mean()),
        "value": float(torch.stack(gaps).square().mean().sqrt()),
        "frechet": frechet_distance(made.flatten(0, 1).flatten(1), case.held_out.flatten(1)),
    }


def values(reward: Any, draws: torch.Tensor, mc: int) -> torch.Tensor:
    """Log-mean-exp rewards of every `mc` of draws `(n, B, *event)`: `(n / mc, B)`."""
    rewards = reward(draws.flatten(0, 1)).reshape(draws.shape[:2])
    return rewards.unflatten(0, (mc, -1)).logsumexp(0) - math.log(mc)


def draw_plot(rows: list[dict[str, Any]], path: Path) -> None:
    """One row of axes a case: each figure against the seconds of training, and against samples seen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row["case"] for row in rows))
    shown = [("seconds", "posterior"), ("seconds", "value"), ("seconds", "frechet"), ("samples", "posterior")]
    figure, axes = pyplot.subplots(len(cases), len(shown), figsize=(14, 3.2 * len(cases)), squeeze=False)
    colors = dict(zip(METHODS, pyplot.get_cmap("tab20").colors, strict=False))
    for line, case in zip(axes, cases, strict=True):
        for axis, (x, y) in zip(line, shown, strict=True):
            for name, color in colors.items():
                found = [row for row in rows if row["case"] == case and row["method"] == name]
                axis.plot([row[x] for row in found], [row[y] for row in found], "o-", ms=3, color=color, label=name)
            for row in rows:
                if row["case"] == case and row["method"].startswith("GLASS"):
                    axis.axhline(row[y], color="gray", lw=0.6, ls=":")
            axis.set(xscale="log", yscale="log", xlabel=x, title=f"{case}: {y}")
    axes[0, -1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def line_of(row: dict[str, Any]) -> str:
    figures = "  ".join(f"{row[key]:8.4f}" for key in ("posterior", "value", "frechet"))
    return f"{row['method']:22s} {row['seconds']:7.1f} {row['steps']:7d} {row['samples']:8d}    {figures}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=BUDGETS, default=["mixture", "digits"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", nargs="+", type=float, help="budgets, in the place of the usual ones")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="one small budget")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the JSON file and the plot")
    given = parser.parse_args()
    torch.set_num_threads(1)
    machine = f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}"
    print(f"{machine}, batch {given.batch}")
    rows: list[dict[str, Any]] = []
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.cases:
        budgets = given.seconds or (QUICK if given.quick else BUDGETS)[name]
        case = mixture() if name == "mixture" else images(name, max(budgets))
        generator = torch.Generator().manual_seed(2)
        references = draw_references(
            case.teacher, case.held_out[: case.states], TIMES, draws=case.draws, reference_steps=64, exact=case.exact,
            generator=generator,
        )  # fmt: skip
        print(f"\n{name:22s} seconds   steps  samples   posterior    value   Frechet")

        for steps in GLASS:
            figures = measure(case, references, diamond.GlassFlow(case.teacher, steps, grid="uniform"))
            rows.append({"case": name, "method": f"GLASS-{steps}", "seconds": 0.0, "steps": 0, "samples": 0, **figures})
            print(line_of(rows[-1]), flush=True)
        for seconds in budgets:
            for method in given.methods:
                model, steps, spent = run(case, METHODS[method], seconds, given.batch)
                sizes = {"seconds": spent, "steps": steps, "samples": steps * given.batch}
                rows.append({"case": name, "method": method, **sizes, **measure(case, references, model)})
                print(line_of(rows[-1]), flush=True)
        (given.out / "distillation.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    draw_plot(rows, given.out / "distillation.png")


if __name__ == "__main__":
    main()
