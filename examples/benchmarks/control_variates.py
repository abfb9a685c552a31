"""What a control variate saves in the value of a noisy state, at equal cost, against the closed form.

Gaussian mixtures in d = 2 and 16 with their exact posterior; a linear, two quadratic and a steep reward; states of the
tilted law at t = 0.2, 0.5 and 0.8. For each budget of evaluations and reward calls, the root of the mean squared error
of the value over many estimates for each of many states:

* plain, antithetic draws and the jackknife, with all of the budget in draws, and the plug-in value `r(D)`;
* `control="plugin"` with one draw less, its evaluation and reward call at the posterior mean D; in the next column with
  two less, its reward gradient counted as a call too; then with two less, in antithetic pairs;
* what was tried and not taken, with one draw less: the control in the mean of `exp r` with the coefficient `exp r(D)`,
  and with a coefficient fitted to the draws. Where the corrected mean is not positive the plain one stands in: the
  percentage behind it, with the bias of `exp` of the result relative to the truth for the first of them.

The second table sums up: geometric means of the error relative to that of antithetic draws of the same budget, and the
worst case. The third asks what is left of it in `align.smc`: the error of the evidence, 1 where all of its mass is
missed in nearly every population.

Run it with `python examples/benchmarks/control_variates.py`; `--help` lists its options. Seed 0, one thread.
"""

import argparse
import collections
import dataclasses
import functools
import math
import platform
import time

from typing import NamedTuple

import torch

import align
import diamond

TIMES, BUDGETS = (0.2, 0.5, 0.8), (2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """`r(z) = linear . z - precision |z|^2 / 2 + constant`, and the values that it has for a mixture."""

    linear: torch.Tensor
    precision: float = 0.0
    constant: float = 0.0

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.linear - self.precision * z.square().sum(-1) / 2 + self.constant

    def slope(self, z: torch.Tensor) -> torch.Tensor:
        return self.linear - self.precision * z

    def value(self, model, x: torch.Tensor, t: float) -> torch.Tensor:
        return model.value(x, t, self.linear, self.precision) + self.constant


def mixture(size: int) -> diamond.GaussianMixtureFlow:
    means = torch.tensor([[-1.5, 0.5], [1.0, -0.5]], dtype=torch.float64)
    if size != 2:
        means = torch.randn(2, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        means = 1.5 * means / means.norm(dim=1, keepdim=True)
    return diamond.GaussianMixtureFlow(torch.tensor([0.35, 0.65]), means, torch.tensor([0.16, 0.36]))


def rewards(size: int) -> dict[str, Quadratic]:
    """By name; widths grow with the dimension, so that the values do not."""
    axis = torch.zeros(size, dtype=torch.float64)
    axis[0] = -1.0

    def near(centre: float, variance: float) -> Quadratic:
        return Quadratic(centre * axis / variance, 1 / variance, -(centre**2) / (2 * variance))

    wide = 2.0 if size == 2 else 8.0
    return {
        "linear": Quadratic(1.5 * axis),
        "wide": near(1.0, wide),
        "quadratic": near(1.0, wide / 4),
        "steep": near(2.5, wide / 40),
    }


class Case(NamedTuple):
    """States, `copies` times each, with their exact values."""

    model: diamond.GaussianMixtureFlow
    reward: Quadratic
    x: torch.Tensor
    t: float
    exact: torch.Tensor

    def error(self, estimate: torch.Tensor) -> float:
        return float((estimate - self.exact).square().mean().sqrt())

    def value(self, mc: int, seed: int, **options) -> torch.Tensor:
        source = torch.Generator().manual_seed(seed)
        return align.value(self.model, self.reward, self.x, self.t, mc, **options, generator=source)


def make_case(size: int, reward: Quadratic, t: float, states: int, copies: int) -> Case:
    model, source = mixture(size), torch.Generator().manual_seed(0)
    law = model.tilt(reward.linear, reward.precision)
    noise = torch.randn(states, size, generator=source, dtype=torch.float64)
    x = (t * law.sample(states, generator=source) + (1 - t) * noise).repeat(copies, 1)
    return Case(model, reward, x, t, reward.value(model, x, t))


def corrected_mean(case: Case, mc: int, seed: int, fitted: bool) -> tuple[torch.Tensor, float]:
    """The control in the mean of `exp r`, and the share of estimates that the plain mean stands in for. The coefficient
    is `exp r(D)`, or that of a regression on the draws."""
    z = case.model.posterior(case.x, case.t, mc, generator=torch.Generator().manual_seed(seed))
    centre = case.model.denoise(case.x, case.t)
    r, at_centre = case.reward(z), case.reward(centre)
    noise = ((z - centre) * case.reward.slope(centre)).sum(-1)
    relative, mean = (r - at_centre).exp(), noise.mean(0)
    shift = mean
    if fitted:
        spread = noise - mean
        shift = (relative * spread).sum(0) / spread.square().sum(0) * mean
    corrected = relative.mean(0) - shift
    good = corrected.isfinite() & (corrected > 0)
    plain = r.logsumexp(0) - math.log(mc)
    return torch.where(good, at_centre + corrected.clamp_min(1e-300).log(), plain), 1 - float(good.double().mean())


def errors(case: Case, budget: int) -> tuple[dict[str, float], str]:
    """Errors by estimator, and what else there is to say of the corrected mean."""
    found = {
        "plain": case.error(case.value(budget, 1)),
        "antithetic": case.error(case.value(budget, 2, antithetic=True)),
        "jackknife": case.error(case.value(budget, 3, correction="jackknife")),
        "control": case.error(case.value(budget - 1, 4, control="plugin")),
    }
    if budget > 2:
        found["control - 2"] = case.error(case.value(budget - 2, 5, control="plugin"))
        found["pairs - 2"] = case.error(case.value(budget - 2, 6, control="plugin", antithetic=True))
    mean, fallen = corrected_mean(case, budget - 1, 7, fitted=False)
    found["in exp r"] = case.error(mean)
    bias = float((mean - case.exact).exp().mean()) - 1
    if budget > 2:
        fit, unfit = corrected_mean(case, budget - 1, 8, fitted=True)
        found["fitted"] = case.error(fit)
    return found, f"{fallen:5.0%} {bias:+8.2f}"


COLUMNS = ("plain", "antithetic", "jackknife", "control", "control - 2", "pairs - 2", "in exp r", "fitted")


def values(states: int, copies: int) -> dict[tuple[int, str, str], list[float]]:
    """Prints the first table. Gives errors relative to those of antithetic draws by budget, reward and estimator."""
    relative: dict[tuple[int, str, str], list[float]] = collections.defaultdict(list)
    print(
        "\nError of the value by budget"
        + " " * 12
        + "".join(f"{name:>12s}" for name in COLUMNS)
        + "  plain instead, bias"
    )
    for size in (2, 16):
        for name, reward in rewards(size).items():
            for t in TIMES:
                case = make_case(size, reward, t, states, copies)
                plugged = case.error(case.reward(case.model.denoise(case.x, t)))
                print(f"d = {size}, {name}, t = {t}: plug-in {plugged:.3f}")
                for budget in BUDGETS:
                    found, note = errors(case, budget)
                    cells = (f"{found[key]:12.3f}" if key in found else " " * 11 + "-" for key in COLUMNS)
                    print(f"{budget:>40d}" + "".join(cells) + "  " + note, flush=True)
                    for key, error in found.items():
                        relative[budget, name, key].append(error / found["antithetic"])
    return relative


def summary(relative: dict[tuple[int, str, str], list[float]]) -> None:
    print("\nRelative to antithetic draws: geometric mean over dimensions and times (the worst)")
    print(f"{'':28s}" + "".join(f"{name:>16s}" for name in COLUMNS if name != "antithetic"))
    for name in dict.fromkeys(key[1] for key in relative):
        for budget in BUDGETS:
            cells = []
            for column in COLUMNS:
                ratios = relative.get((budget, name, column))
                if column != "antithetic":
                    cells.append(f"{statistic(ratios):>16s}" if ratios else " " * 15 + "-")
            print(f"{name:>20s}{budget:>8d}" + "".join(cells))


def statistic(ratios: list[float]) -> str:
    return f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} ({max(ratios):.2f})"


def evidence(populations: int) -> None:
    """Prints the third table."""
    print(
        f"\nalign.smc, 64 particles, 6 steps: root mean square of Z^ / Z - 1 over {populations} populations by budget a value"
    )
    for size, name in ((2, "linear"), (2, "quadratic"), (2, "steep")):
        model, reward = mixture(size), rewards(size)[name]
        log_z = reward.value(model, torch.zeros(1, size, dtype=torch.float64), 0.0)[0]
        for budget in BUDGETS:
            line = f"  d = {size}, {name:10s}{budget:3d}"
            for label, mc, options in (
                ("plain", budget, {}),
                ("antithetic", budget, {"antithetic": True}),
                ("control", budget - 1, {"control": "plugin"}),
            ):
                source = torch.Generator().manual_seed(1)
                estimate = functools.partial(align.value, model, reward, mc=mc, generator=source, **options)
                out = align.smc(
                    model, reward, 64, 6, batch=populations, value=estimate, generator=torch.Generator().manual_seed(0)
                )
                line += f"   {label} {float(((out.log_z - log_z).exp() - 1).square().mean().sqrt()):6.3f}"
            print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100, help="states of each case")
    parser.add_argument("--copies", type=int, default=40, help="estimates for each state")
    parser.add_argument("--populations", type=int, default=300, help="populations of align.smc")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    print(f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}")
    summary(values(options.states, options.copies))
    evidence(options.populations)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
