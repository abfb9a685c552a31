r"""A reward far narrower than the data: what a distilled map's values save, against importance sampling.

Data are a mixture of two Gaussians, of standard deviations 0.5 and 0.4 a mode, in 2 and in 4 dimensions; the reward
:math:`r(z) = -|z - c|^2 / 2 \tau^2` is a tenth as wide as the first mode and three of its deviations away from it. Then Z
is in closed form, and so is the standard deviation of importance sampling with n draws of the data's law,

.. math:: \frac{1}{Z} \sqrt{\frac{E[e^{2r}] - Z^2}{n}},

which a sample of its estimates would miss. SMC is tempered, on noise levels in geometric progression with fresh noise at
each step (`rho=0`), or with `--grid cubic` on the cubes of even ones with DDPM's noise, and is held against importance
sampling of as many draws as it makes reward calls. Three models:

* exact: the mixture itself;
* map's values: moves of the mixture, values from draws of the map: Z is the mixture's, whatever the map gets wrong;
* map: moves and values of the map. Its evidence is that of the map's own law under those moves, so that its mean is off
  by what distillation cost; that bias is not spread, and no number of particles mends it.

Guided moves draw from the posterior that they are guided by, so the second model has none of its own.

Run it with `python -m examples.benchmarks.hard_tilt`. Of each row: particles, network evaluations and reward calls of a
population; the mean of its estimates of Z relative to the truth, with a standard error; their spread about that mean and
their root mean square error about the truth, relative to Z; and the ratios of these two to importance sampling's.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torch import Tensor

import align
import diamond
import distill

from .matched_cost.mixtures import seeded
from .matched_cost.models import cached

SIZES = (2, 4)
WIDTH = 0.05  # of the reward, tau
CHUNK = 65536  # samples a network call
STEPS, FIRST, LAST = 10, 0.6, 0.99  # the grid: the first time after noise, and the last before data
WALK: dict[str, Any] = {"mc": 4, "tempering": 0.3}
METHODS: dict[str, dict[str, Any]] = {
    "SMC": {},
    "SMC, gradient": {"proposal": "reparam"},
    "SMC, look-ahead": {"proposal": "lookahead"},
}
GRIDS = ("geometric", "cubic")
HEAD = (
    "d",
    "model",
    "method",
    "particles",
    "NFE",
    "calls",
    "mean",
    "",
    "spread",
    "RMSE",
    "",
    "spread/IS",
    "RMSE/IS",
    "s",
)
LINE = "{:>2}  {:12}  {:15}" + " {:>9}" * 3 + " {:>6}" * 5 + " {:>9} {:>8} {:>5}"


@dataclass(frozen=True)
class Narrow:
    """The problem in `size` dimensions; the mixture is float64."""

    mixture: diamond.GaussianMixtureFlow
    target: Tensor

    def reward(self, z: Tensor) -> Tensor:
        return -(z - self.target.to(z.dtype)).square().sum(1) / (2 * WIDTH**2)

    def log_moment(self, power: int) -> float:
        """`log E[exp(power * r)]`."""
        precision = power / WIDTH**2
        constant = self.target.square().sum() * precision / 2
        return float(self.mixture.log_normaliser(precision * self.target, precision) - constant)

    def importance_deviation(self, calls: int) -> float:
        """The standard deviation of importance sampling with that many draws, relative to Z."""
        return math.sqrt(math.expm1(self.log_moment(2) - 2 * self.log_moment(1)) / calls)


class MapValues:
    """Moves of an exact mixture, posterior draws of a map."""

    def __init__(self, mixture: diamond.GaussianMixtureFlow, diamond_map: diamond.DiamondMap) -> None:
        self.mixture, self.map = mixture, diamond_map
        self.interpolant, self.event_shape = mixture.interpolant, mixture.event_shape
        self.prior, self.transition = mixture.prior, mixture.transition
        self.velocity, self.denoise = mixture.velocity, mixture.denoise

    def posterior(self, x_t: Tensor, t: Any, n: int = 1, **options: Any) -> Tensor:
        return self.map.posterior(x_t.to(self.map.dtype), t, n, **options).to(x_t.dtype)

    @property
    def nfe(self) -> int:
        return self.map.nfe


def make(size: int) -> Narrow:
    means = torch.zeros(2, size, dtype=torch.float64)
    means[:, 0] = torch.tensor([-1.0, 1.0])
    weights, variances = torch.tensor([[0.4, 0.6], [0.25, 0.16]], dtype=torch.float64)
    target = means[0].clone()
    target[0] -= 3 * 0.5
    return Narrow(diamond.GaussianMixtureFlow(weights, means, variances), target)


def geometric(steps: int, first: float, last: float) -> Tensor:
    """Times from 0 to 1 in that many steps; between `first` and `last` the noise shrinks by the same factor a step."""
    share = torch.linspace(0, 1, steps - 1, dtype=torch.float64)
    times = 1 - (1 - first) ** (1 - share) * (1 - last) ** share
    return torch.cat([times.new_zeros(1), times, times.new_ones(1)])


def walk(grid: str) -> dict[str, Any]:
    """Options of :func:`align.smc` for the grid of that name."""
    if grid == "geometric":
        return WALK | {"times": geometric(STEPS, FIRST, LAST), "rho": 0.0}
    return WALK | {"times": 1 - torch.linspace(1, 0, STEPS + 1, dtype=torch.float64) ** 3}


def measure(problem: Narrow, model: Any, size: tuple[int, int], seed: int, options: dict[str, Any]) -> tuple:
    """A row of the table, but for the names; `size` is that of a population and the number of them."""
    particles, populations = size
    generator = seeded(seed, len(problem.target), type(model).__name__, str(options.get("proposal")))
    out = align.smc(
        model, problem.reward, particles, batch=populations, chunk=CHUNK, generator=generator, **options
    )  # fmt: skip
    assert out.log_z is not None
    ratio = (out.log_z.double() - problem.log_moment(1)).exp()
    mean, spread, squares = float(ratio.mean()), float(ratio.std()), (ratio - 1).square()
    rmse = float(squares.mean().sqrt())
    errors = spread / populations**0.5, float(squares.std()) / populations**0.5 / (2 * rmse)
    alone = problem.importance_deviation(out.reward_calls)
    figures = f"{mean:.3f}", f"±{errors[0]:.3f}", f"{spread:.3f}", f"{rmse:.3f}", f"±{errors[1]:.3f}"
    return particles, out.nfe, out.reward_calls, *figures, f"{spread / alone:.3f}", f"{rmse / alone:.3f}", out.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.benchmarks.hard_tilt",
        description="SMC with a map's values against importance sampling.",
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="dimensions")
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps of each map")
    parser.add_argument("--grid", choices=GRIDS, default=GRIDS[0], help="of the noise levels")
    parser.add_argument("--particles", type=int, default=512, help="of each population")
    parser.add_argument("--populations", type=int, default=128, help="independent ones")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--out", type=Path, default=Path("out/hard_tilt"), help="folder of the maps")
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, "
        f"seed {options.seed}; {options.populations} populations, maps of {options.steps} steps, "
        f"{options.grid} grid"
    )
    print(LINE.format(*HEAD))
    for size in options.sizes:
        problem = make(size)
        began = time.perf_counter()
        diamond_map = distilled(problem, options.out, options.steps, options.seed)
        print(f"a map of {size} dimensions: {time.perf_counter() - began:.0f} s")
        models = {
            "exact": problem.mixture,
            "map's values": MapValues(problem.mixture, diamond_map),
            "map": diamond_map,
        }
        for name, model in models.items():
            for method, settings in METHODS.items():
                if settings and name == "map's values":
                    continue
                counts = options.particles, options.populations
                row = measure(problem, model, counts, options.seed, walk(options.grid) | settings)
                print(LINE.format(size, name, method, *row[:-1], f"{row[-1]:.0f}"), flush=True)


def distilled(problem: Narrow, folder: Path, steps: int, seed: int) -> diamond.DiamondMap:
    """The map of that problem's mixture, kept in `folder`."""
    exact = problem.mixture
    mixture = diamond.GaussianMixtureFlow(exact.weights.float(), exact.means.float(), exact.covariances.float())
    how: dict[str, Any] = {"steps": steps, "seed": seed}
    file = folder / f"mixture-{len(problem.target)}.ckpt"
    return cached(file, lambda out: distill.distill(mixture, loss="trajectory", times="uniform", out=out, **how), how)


if __name__ == "__main__":
    main()
