"""One population over several processes: seconds against one process alone, and what the processes send each other.

1. `align.smc` of a Diamond Map with a transformer, random weights: the time is the network's.
2. `align.smc` of an exact mixture in the plane: the time is that of many small operations.

Each with the model's own moves and with the look-ahead, with an adaptive threshold and with resampling at every step.
Run it with `torchrun --standalone --nproc_per_node 2 examples/benchmarks/scaling.py`: the first process runs alone while
the others wait, then all of them run the same total number of particles together, one thread each. With `python` in the
place of `torchrun ...` it runs alone and nothing else. Seeds from 0 on.
"""

import argparse
import os
import platform
import time

import accelerate.utils
import torch

from accelerate import Accelerator

import align
import diamond

from diamond.nets import Transformer

EVENT = (1, 8, 8)


def cases() -> dict[str, tuple]:
    """Models, rewards and sizes by name."""
    network = diamond.DiamondMap(Transformer(EVENT, states=1, times=3)).eval()
    means = torch.tensor([[-1.5, 0.5], [1.0, -0.5]])
    mixture = diamond.GaussianMixtureFlow(torch.tensor([0.35, 0.65]), means, torch.tensor([0.16, 0.36]))
    return {
        "transformer, 96 wide, 8 x 8": (network, align.rewards.Symmetry(), {"particles": 64, "steps": 4, "mc": 4}),
        "mixture in the plane": (mixture, nearness, {"particles": 16384, "steps": 8, "mc": 4}),
    }


def nearness(z: torch.Tensor) -> torch.Tensor:
    return -(z + 1).square().sum(1)


class Counted:
    """`accelerate.utils.gather`, with calls and bytes that this process sends to each of the others counted."""

    def __init__(self) -> None:
        self.inner, self.calls, self.bytes = accelerate.utils.gather, 0, 0
        accelerate.utils.gather = self

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        self.calls, self.bytes = self.calls + 1, self.bytes + tensor.numel() * tensor.element_size()
        return self.inner(tensor)


def timed(processes: Accelerator | None, model, reward, seed: int, options: dict) -> tuple[float, float]:
    """Seconds of the slowest process, on the clock and of its own work; the latter leaves out what it waits for."""
    clock, work = time.perf_counter(), time.process_time()
    align.smc(model, reward, accelerator=processes, generator=torch.Generator().manual_seed(seed), **options)
    spent = torch.tensor([[time.perf_counter() - clock, time.process_time() - work]], dtype=torch.float64)
    slowest = (spent if processes is None else processes.gather(spent)).amax(0)
    return float(slowest[0]), float(slowest[1])


def measure(accelerator: Accelerator, counted: Counted, model, reward, rounds: int, options: dict) -> str:
    """A line of figures. One process alone and all together take turns; the least time of several calls counts, because
    other work on the machine only adds to it."""
    alone, together = [], []
    for seed in range(rounds):
        if accelerator.is_main_process:
            alone.append(timed(None, model, reward, seed, options))
        if accelerator.num_processes > 1:
            accelerator.wait_for_everyone()
            together.append(timed(accelerator, model, reward, seed, options))
    figures = [figure(name, calls) for name, calls in (("alone", alone), ("together", together)) if calls]
    if alone and together:
        (clock, work), (clocks, works) = least(alone), least(together)
        figures.append(f"ratio {clock / clocks:.2f}, of work {work / works:.2f}")
        steps = rounds * options["steps"]
        figures.append(f"a step {counted.calls / steps:.1f} exchanges, {counted.bytes / steps / 1024:.1f} KiB")
    counted.calls = counted.bytes = 0
    return "   ".join(figures)


def least(calls: list[tuple[float, float]]) -> tuple[float, float]:
    return min(clock for clock, _ in calls), min(work for _, work in calls)


def figure(name: str, calls: list[tuple[float, float]]) -> str:
    clock, work = least(calls)
    return f"{name} {clock * 1e3:4.0f} ms, work {work * 1e3:4.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="calls of each kind")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.random.default_generator.manual_seed(0)  # the network's weights
    accelerator, counted = Accelerator(cpu=True), Counted()
    count, speaks = accelerator.num_processes, accelerator.is_main_process
    if speaks:
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPU cores"
        print(f"{machine}, {count} processes of one thread, torch {torch.__version__}")
    for name, (model, reward, sizes) in cases().items():
        if speaks:
            print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in sizes.items()))
        for proposal in (None, "lookahead"):
            for threshold in (0.5, 1.0):
                options = {**sizes, "proposal": proposal, "ess_threshold": threshold}
                line = measure(accelerator, counted, model, reward, rounds, options)
                if speaks:
                    print(f"  proposal {proposal!s:9s} ess_threshold {threshold:3.1f}   {line}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
