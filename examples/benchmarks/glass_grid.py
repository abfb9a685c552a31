"""Where a GLASS flow should step: `grid="posterior"` against "uniform", by the squared error of the endpoints.

1. An exact mixture in the plane, of four scales: how many times less "posterior" errs than "uniform" in 8 steps, Euler's
   and Heun's, for posterior draws and for DDPM's transitions half of the way to t = 1.
2. A trained teacher, class-conditional: squared errors relative to the posterior's variance, and energy distances to the
   reference's draws relative to its deviation, for 2 to 16 steps.

References start from the same noise and take many of Heun's steps, of the grid "posterior": both grids converge to the
exact draws, but at t = 0.97 512 even steps come no nearer to them than 32 of these. Run it with
`python examples/benchmarks/glass_grid.py`; `--help` lists its options. Seed 0.
"""

import argparse
import math
import platform

from collections.abc import Iterator

import torch

from torch import Tensor

import diamond

from diamond.data import load_data
from diamond.evaluation import energy_distance

GRIDS = ("uniform", "posterior")
TIMES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
SCALES = (0.25, 0.5, 1.0, 2.0)


def mixture(scale: float) -> diamond.GaussianMixtureFlow:
    """Three components of every orientation, centred, of standard deviation `scale` an entry."""
    weights = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5], [0.5, 1.5]], dtype=torch.float64)
    within = [[[0.09, 0.06], [0.06, 0.15]], [[0.18, -0.09], [-0.09, 0.06]], [[0.03, 0.0], [0.0, 0.12]]]
    covariances, means = torch.tensor(within, dtype=torch.float64), means - weights @ means
    variance = (weights @ (means.square() + covariances.diagonal(dim1=1, dim2=2))).mean()
    unit = scale / variance.sqrt()
    return diamond.GaussianMixtureFlow(weights, means * unit, covariances * unit**2)


def gains(model: diamond.GaussianMixtureFlow, t: float, t_next: float, states: int) -> list[float]:
    """The squared error of "uniform" over that of "posterior", in 8 Euler steps and in 8 of Heun's."""
    generator = torch.Generator().manual_seed(0)
    z = model.sample(states, generator=generator)
    x = t * z + (1 - t) * torch.randn(z.shape, dtype=z.dtype, generator=generator)

    def draw(steps: int, solver: str, grid: str) -> Tensor:
        glass = diamond.GlassFlow(model, steps, solver, grid)
        return glass.transition(x, t, t_next, generator=torch.Generator().manual_seed(1))

    truth = draw(256, "heun", "posterior")
    errors = [[float((draw(8, s, g) - truth).square().mean()) for g in GRIDS] for s in ("euler", "heun")]
    return [even / ours for even, ours in errors]


def mixtures(states: int) -> None:
    print("| drawn | t | " + " | ".join(f"scale {scale:g}" for scale in SCALES) + " |")
    print("| --- | ---: | " + " | ".join(["---:"] * len(SCALES)) + " |")
    for name, share in (("posterior", 1.0), ("transition", 0.5)):
        for t in TIMES:
            cells = [gains(mixture(scale), t, t + share * (1 - t), states) for scale in SCALES]
            print(f"| {name} | {t:g} | " + " | ".join(f"{euler:.2f}, {heun:.2f}" for euler, heun in cells) + " |")


def rows(teacher: diamond.Flow, z: Tensor, labels: Tensor, given: argparse.Namespace) -> Iterator[str]:
    """A row of the table a time and solver."""
    generator = torch.Generator().manual_seed(0)
    for t in given.times:
        x = t * z + (1 - t) * torch.randn(z.shape, generator=generator)
        noise = torch.randn(given.draws, *z.shape, generator=generator)

        def draw(steps: int, solver: str, grid: str, x: Tensor = x, t: float = t, noise: Tensor = noise) -> Tensor:
            glass = diamond.GlassFlow(teacher, steps, solver, grid)
            return glass.posterior(x, t, given.draws, cond=labels, noise=noise)

        truth = draw(given.reference_steps, "heun", "posterior")
        variance = (truth - teacher.denoise(x, t, cond=labels)).square().mean()
        for solver in given.solvers:
            cells = []
            for steps in given.steps:
                drawn = [draw(steps, solver, grid) for grid in GRIDS]
                errors = [float((d - truth).square().mean() / variance) for d in drawn]
                distances = [float(energy_distance(d, truth).mean() / math.sqrt(variance)) for d in drawn]
                cells.append(f"{errors[0]:.4f} → {errors[1]:.4f} ({distances[0]:.4f} → {distances[1]:.4f})")
            yield f"| {t:g} | {solver} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--root", help="folder of the data sets that have to be downloaded")
    parser.add_argument("--mixture-states", type=int, default=100, help="0 leaves the mixtures out")
    parser.add_argument("--states", type=int, default=24, help="of the teacher's data; 0 leaves the teacher out")
    parser.add_argument("--draws", type=int, default=16, help="of each of the teacher's states")
    parser.add_argument("--times", nargs="+", type=float, default=TIMES)
    parser.add_argument("--steps", nargs="+", type=int, default=[2, 4, 8, 16])
    parser.add_argument("--solvers", nargs="+", choices=["euler", "heun"], default=["euler", "heun"])
    parser.add_argument("--reference-steps", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}")
    if given.mixture_states:
        print("\nMixture: times less squared error of `posterior` than of `uniform` in 8 steps (Euler, Heun)\n")
        mixtures(given.mixture_states)
    if given.states:
        print(
            f"\n{given.teacher}: squared error over variance, and energy distance over deviation, uniform → posterior\n"
        )
        print("| t | solver | " + " | ".join(f"{steps} steps" for steps in given.steps) + " |")
        print("| ---: | --- | " + " | ".join(["---:"] * len(given.steps)) + " |")
        teacher = diamond.load(f"{given.teacher}-teacher")
        held_out = load_data(given.teacher, split="held-out", root=given.root)
        chosen = torch.randperm(len(held_out.images), generator=torch.Generator().manual_seed(0))[: given.states]
        for row in rows(teacher, held_out.images[chosen], held_out.labels[chosen], given):
            print(row, flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
