"""What the toolkit costs beside the network: ratios, on this machine.

1. `DiamondMap.posterior` against the bare call of its network, at batch 256: with a time of its own for each row, and with
   one time for all, which the model embeds once and a bare call with a batch of times does not.
2. The share of `align.smc` that is spent outside the network and the reward, and its time against that of bare calls with
   batches of times, as many and as large, and the reward.
3. `align.smc` where the model costs next to nothing: 1,000 populations of 512 particles in one call, on a mixture.
4. Peak memory of `align.value_gradient` as the number of Monte Carlo draws grows, with and without `chunk`.

Run it with `python examples/benchmarks/overhead.py`; `--help` lists its options. Seed 0. Each time is the median of
many calls, those of a pair in turn.
"""

import argparse
import functools
import os
import platform
import statistics
import subprocess
import sys
import time

from pathlib import Path

import torch

import align
import diamond

from diamond.nets import ResidualMLP, Transformer, Whitened, grow

EVENT = (1, 8, 8)


def networks(generator: torch.Generator) -> dict[str, torch.nn.Module]:
    """The digits' network, a small and a wider transformer, as maps."""
    data = torch.randn(256, *EVENT, generator=generator)
    return {
        "perceptron, 256 wide, whitened": grow(Whitened(ResidualMLP((64,)), EVENT, data=data), 1, 3),
        "transformer, 96 wide": grow(Transformer(EVENT), 1, 3),
        "transformer, 192 wide": grow(Transformer(EVENT, width=192), 1, 3),
    }


def alternate(one, other, rounds: int) -> tuple[float, float]:
    """Median seconds of two functions called in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for function in (one, other) * 3:
        function()
    for _ in range(rounds):
        for function, record in zip((one, other), times, strict=True):
            start = time.perf_counter()
            function()
            record.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


@torch.no_grad()
def posterior_overhead(rounds: int) -> None:
    print("\nDiamondMap.posterior against its network's bare call, batch 256")
    generator = torch.Generator().manual_seed(0)
    for name, net in networks(generator).items():
        model = diamond.DiamondMap(net, event_shape=EVENT).eval()
        x, t = torch.randn(256, *EVENT, generator=generator), torch.rand(256, generator=generator)
        bare = bare_call(net, x, t)
        for kind, at in {"each its time": t, "one time": 0.5}.items():
            theirs, ours = alternate(bare, functools.partial(model.posterior, x, at, generator=generator), rounds)
            print(
                f"  {name:32s} {kind:13s} bare {theirs * 1e3:7.2f} ms   posterior {ours * 1e3:7.2f} ms   "
                f"ratio {ours / theirs:.3f}"
            )


def bare_call(net: torch.nn.Module, x: torch.Tensor, t: torch.Tensor) -> functools.partial:
    """The network's own call at states `x` and times `t`, one a row."""
    return functools.partial(net, x, t, None, states=(x,), times=(torch.zeros_like(t), torch.ones_like(t), t))


class Timed(torch.nn.Module):
    """A module whose time is added up."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.inner, self.seconds, self.event_shape = inner, 0.0, EVENT
        self.rows: list[int] = []

    def forward(self, *arguments, **options):
        start = time.perf_counter()
        out = self.inner(*arguments, **options)
        self.seconds += time.perf_counter() - start
        self.rows.append(len(arguments[0]))
        return out


def smc_overhead(rounds: int) -> None:
    for particles in (64, 256):
        print(f"\nalign.smc outside network and reward: {particles} particles, 8 steps, mc = 4")
        smc_shares(particles, max(3, rounds * 4 // particles))


def smc_shares(particles: int, rounds: int) -> None:
    for name, net in networks(torch.Generator().manual_seed(0)).items():
        shares, seconds, ratios = [], [], []
        for seed in range(rounds):
            timed, reward = Timed(net), Timed(align.rewards.Symmetry())
            model = diamond.DiamondMap(timed, event_shape=EVENT).eval()
            out = align.smc(model, reward, particles, generator=torch.Generator().manual_seed(seed))
            shares.append(1 - (timed.seconds + reward.seconds) / out.seconds)
            seconds.append(out.seconds)
            ratios.append(out.seconds / (seconds_of_bare_calls(net, timed.rows) + reward.seconds))
        print(
            f"  {name:32s} {statistics.median(seconds) * 1e3:7.1f} ms   outside {statistics.median(shares):.1%}   "
            f"against bare calls {statistics.median(ratios):.2f}"
        )


@torch.no_grad()
def seconds_of_bare_calls(net: torch.nn.Module, rows: list[int]) -> float:
    """The time of the network's own calls on so many rows each, one after the other."""
    calls = {n: bare_call(net, torch.zeros(n, *EVENT), torch.full((n,), 0.5)) for n in set(rows)}
    start = time.perf_counter()
    for n in rows:
        calls[n]()
    return time.perf_counter() - start


def peak() -> int:
    """The most memory that this process has held, in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def many_populations(options: dict) -> None:
    """One call of `smc` on 1,000 populations, in a process of its own: its seconds, the growth of the peak in MiB, and the
    mean evidence relative to the truth with its standard error."""
    wanted = torch.tensor([-1.0, 0.0])
    model = diamond.GaussianMixtureFlow(
        torch.tensor([0.35, 0.65]), torch.tensor([[-1.5, 0.5], [1.0, -0.5]]), torch.tensor([0.16, 0.36])
    )
    log_z = model.log_normaliser(2 * wanted, precision=2.0) - wanted.square().sum()
    before = peak()
    out = align.smc(
        model, lambda z: -(z - wanted).square().sum(-1), 512, 6, batch=1000, **options,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    ratios = (out.log_z - log_z).exp()
    print(out.seconds, (peak() - before) / 1024, float(ratios.mean()), float(ratios.std()) / 1000**0.5)


def populations_at_once() -> None:
    print("\nalign.smc on a 2-D mixture: 1,000 populations of 512 particles, 6 steps, mc = 4, in one call")
    for name in POPULATIONS:
        command = [sys.executable, __file__, "--populations", name]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, growth, mean, error = map(float, answer.stdout.split()[-4:])
        print(f"  {name:24s} {seconds:5.2f} s   {growth:5.0f} MiB   mean Z^ / Z {mean:.4f} +- {error:.4f}")


POPULATIONS: dict[str, dict] = {
    "transitions": {},
    "tempered": {"tempering": 0.5},
    "look-ahead": {"proposal": "lookahead"},
    "look-ahead, tempered": {"proposal": "lookahead", "tempering": 0.5},
}


def memory(mc: int, chunk: int | None) -> None:
    """One call of `value_gradient`, in a process of its own, and by how much it raised the peak (Linux)."""
    generator = torch.Generator().manual_seed(0)
    model = diamond.DiamondMap(grow(Transformer(EVENT), 1, 3), event_shape=EVENT).eval()
    x = torch.randn(8, *EVENT, generator=generator)
    align.value_gradient(model, align.rewards.Symmetry(), x[:2], 0.5, 2, generator=generator)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = peak()
    align.value_gradient(model, align.rewards.Symmetry(), x, 0.5, mc, generator=generator, chunk=chunk)
    print((peak() - before) / 1024)


def memory_growth() -> None:
    print("\nalign.value_gradient, 8 states: growth of the peak resident memory in MiB by the number of draws")
    for chunk in (None, 16):
        figures = []
        for mc in (2, 16, 64, 256):
            command = [sys.executable, __file__, "--memory", str(mc), "--chunk", str(chunk or 0)]
            environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
            answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            figures.append(f"mc {mc}: {float(answer.stdout.split()[-1]):.0f}")
        print(f"  chunk {chunk!s:5s} " + "   ".join(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="calls of each kind")
    parser.add_argument("--populations", choices=POPULATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--chunk", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.random.default_generator.manual_seed(0)  # the networks' weights
    if options.populations:
        many_populations(POPULATIONS[options.populations])
        return
    if options.memory:
        memory(options.memory, options.chunk or None)
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    posterior_overhead(options.rounds)
    smc_overhead(options.rounds)
    populations_at_once()
    memory_growth()


if __name__ == "__main__":
    main()
