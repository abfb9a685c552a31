"""What a training step costs: ratios, on this machine.

1. Each loss of `distill.distill`, teacher included, as a multiple of the student network's own forward and backward pass
   at the same batch.
2. What the trainer adds, as a share of the loss with its gradient: the optimiser, and the rest, which is batches,
   clipping, the average and metrics.
3. Samples per second of one process and of two, one thread each, that share its batch or have as much each; with bf16,
   and with the network compiled.
4. Peak memory of a run, for each loss.

Run it with `python examples/benchmarks/training.py`; `--help` lists its options. Seed 0, random weights, one thread a
process. Times are the processor's own, not the clock's, but where 3 says so; each is the least of several rounds, those
that are compared in turn, because other work on the machine only adds to them.
"""

import argparse
import os
import platform
import subprocess
import sys
import time

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

import diamond
import distill

from diamond.nets import Preconditioned, ResidualMLP, Transformer, UNet, Whitened, grow
from distill.objectives import MapObjective
from distill.shares import LOSSES
from distill.training.batches import Batches
from distill.training.metrics import Metrics
from distill.training.processes import joined
from distill.training.trainer import Schedule, _Run

EVENT = (1, 8, 8)


def images(n: int = 512) -> torch.Tensor:
    return torch.randn(n, *EVENT, generator=torch.Generator().manual_seed(0))


def teachers() -> dict[str, tuple[Any, int]]:
    """Flows by the name of their network, and a batch for each."""
    torch.random.default_generator.manual_seed(0)
    return {
        "perceptron, 256 wide, whitened": (diamond.Flow(Whitened(ResidualMLP((64,)), EVENT, data=images())), 256),
        "transformer, 96 wide": (diamond.Flow(Transformer(EVENT)), 64),
        "U-Net, 32 wide": (diamond.Flow(Preconditioned(UNet(EVENT, 32), 1.0)), 64),
    }


def student_of(teacher: Any) -> diamond.DiamondMap:
    torch.random.default_generator.manual_seed(0)
    return diamond.DiamondMap(grow(teacher.net, 1, 3), teacher.interpolant, teacher.event_shape)


def objective_of(loss: str, teacher: Any) -> MapObjective:
    """A loss of the table; "diagonal" is the diagonal alone, "data" the Lagrangian one without a teacher."""
    if loss == "diagonal":
        return MapObjective(teacher, "lsd", off_diagonal=0.0)
    return MapObjective(None, supervision="data") if loss == "data" else MapObjective(teacher, loss)


def least(functions: dict[str, Callable[[], object]], rounds: int, repeats: int) -> dict[str, float]:
    """The least seconds of processor time of each function over rounds in turn, per call."""
    best = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            for _ in range(repeats):
                function()
            best[name] = min(best[name], (time.process_time() - start) / repeats)
    return best


def bare(model: Any, z: torch.Tensor) -> Callable[[], object]:
    """The network's own forward and backward pass, as a function."""
    t = torch.rand(len(z), generator=torch.Generator().manual_seed(0))

    def once() -> None:
        model.zero_grad()
        model.net(z, t, None, (z,), (t, t, t)).square().mean().backward()

    return once


def parts_of(run: Any, objective: MapObjective, batch: int) -> dict[str, Callable[[], object]]:
    """What a step consists of, as functions: the loss with its gradient, and the trainer's own parts."""
    generator, (z, cond) = torch.Generator(), next(run.drawn)
    steps = iter(range(10**6))
    prepared: list = []
    metrics = Metrics(None, 0, 10**6, batch, run.accelerator)
    values = torch.zeros(3)

    def loss() -> None:
        step = next(steps)
        if step % objective.reuse == 0:
            prepared[:] = [objective.prepare(run.model, z, cond, generator.manual_seed(step))]
        run.optimizer.zero_grad()
        torch.stack([*objective(run.model, prepared[0], generator).values()]).sum().backward()

    def rest() -> None:
        next(run.drawn)
        torch.nn.utils.clip_grad_norm_(run.parameters, 1.0, foreach=True)
        run.averages.update(5)
        metrics.add(("one", "other"), values)
        if len(metrics.pending) == 50:
            metrics.write(1.0)

    return {"loss": loss, "optimiser": run.optimizer.step, "rest": rest}


def cost_of_losses(rounds: int) -> None:
    print("\n1, 2. milliseconds; a loss as a multiple of the network's forward and backward; what the trainer adds")
    for name, (teacher, batch) in teachers().items():
        print(f"\n  {name}, batch {batch}")
        teacher.eval().requires_grad_(False)
        for loss in ("diagonal", *LOSSES, "data"):
            model, objective = student_of(teacher), objective_of(loss, teacher)
            with ExitStack() as stack:
                run = _Run(model, objective, Batches(images()), Schedule(steps=10**6, batch=batch), joined())
                run.start(0, False, stack)
                functions = {"network": bare(model, images(batch)), **parts_of(run, objective, batch)}
                times = least(functions, rounds, 8)
            print(
                f"    {loss:10s} network {times['network'] * 1e3:6.2f}   loss {times['loss'] * 1e3:6.2f}   "
                f"multiple {times['loss'] / times['network']:4.2f}   optimiser {times['optimiser'] / times['loss']:5.1%}   "
                f"rest of the trainer {times['rest'] / times['loss']:5.1%}",
                flush=True,
            )


def throughput(options: argparse.Namespace) -> None:
    """In a process of its own, or of two: trains the transformer, and says how many samples were seen in a second of the
    clock, and of this process's work, and how much memory it held."""
    teacher, batch = teachers()["transformer, 96 wide"]
    batch *= options.batches
    more: dict = {"batch": batch, "precision": options.precision, "compiled": options.compile, "progress": False}

    def run(steps: int) -> None:
        if options.task == "flow matching":
            distill.train_flow(images(), teacher.net, steps=steps, **more)
        else:
            distill.distill(teacher, images(), loss=options.task, steps=steps, **more)

    run(4)
    clock, work = time.perf_counter(), time.process_time()
    run(options.steps)
    seen = options.steps * batch
    rates = seen / (time.perf_counter() - clock), seen / (time.process_time() - work)
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"RESULT {rates[0]:.1f} {rates[1]:.1f} {_peak_mib():.0f}")


def _peak_mib() -> float:
    """Of the resident memory; the usage that the system reports for a process would begin with its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measured(
    task: str, steps: int, processes: int = 1, batches: int = 1, precision: str = "fp32", compiled: bool = False
) -> list[float]:
    """Samples a second by the clock, and of the first process's work, and peak MiB, of a run in processes of its own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] * (processes > 1)
    line = [sys.executable, *launcher, __file__, "--task", task, "--steps", str(steps), "--precision", precision]
    line += ["--batches", str(batches)]
    done = subprocess.run(
        [*line, *["--compile"] * compiled], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    for text in done.stdout.splitlines():
        if text.startswith("RESULT"):
            return [float(figure) for figure in text.split()[1:]]
    raise RuntimeError(done.stderr[-500:])


def throughputs(steps: int, rounds: int, compiled: bool) -> None:
    print("\n3. transformer, 96 wide, batch 64: samples a second by the clock, and of the first process's work")
    for task in ("flow matching", "lsd"):
        cases: dict[str, dict] = {
            "one process": {}, "one, twice the batch": {"batches": 2}, "two processes": {"processes": 2},
            "two, twice the batch": {"processes": 2, "batches": 2}, "bf16": {"precision": "bf16"},
        }  # fmt: skip
        if compiled:
            cases["compiled"] = {"compiled": True}
        print(f"  {task}")
        base: list[float] = []
        for name, how in cases.items():
            runs = [measured(task, steps, **how) for _ in range(rounds)]
            rates = [max(run[i] for run in runs) for i in (0, 1)]
            base = base or rates
            ratios = [rate / one for rate, one in zip(rates, base, strict=True)]
            print(
                f"    {name:20s} {rates[0]:6.0f} ({ratios[0]:4.2f} times one process)   of work {rates[1]:6.0f} "
                f"({ratios[1]:4.2f})",
                flush=True,
            )


def memory(steps: int) -> None:
    print("\n4. transformer, 96 wide, batch 64: peak memory of the process, MiB")
    print("  " + "   ".join(f"{task} {measured(task, steps)[2]:.0f}" for task in ("flow matching", *LOSSES)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=8, help="rounds of eight calls of each kind; of the runs of 3, a quarter"
    )
    parser.add_argument("--steps", type=int, default=60, help="steps of the runs of 3 and 4")
    parser.add_argument("--compiled", action="store_true", help="also with the network compiled, which takes minutes")
    parser.add_argument("--only", choices=["losses", "throughput", "memory"], help="one of the parts")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.task:
        throughput(options)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}")
    if options.only in (None, "losses"):
        cost_of_losses(options.rounds)
    if options.only in (None, "throughput"):
        throughputs(options.steps, max(1, options.rounds // 4), options.compiled)
    if options.only in (None, "memory"):
        memory(options.steps)


if __name__ == "__main__":
    main()
