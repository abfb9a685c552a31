"""What the models of pipelines cost beside the pipelines themselves: ratios, on this machine.

1. A step of the model's own sampler against a step of the pipeline's, which is its network's call, its guidance and its
   scheduler's step: from one call of the network to the next, both told by the network itself.
2. `align.guide` with mc = 4 against the bare calls that it is made of: for each guided step one call of the network, and
   for each draw the network's calls, the decoder's and the gradient through them.
3. Peak memory of `align.guide` by particles and draws, with and without `chunk`.

Tiny random pipelines (`examples/tiny_pipelines.py`): their networks take milliseconds, so that what stands around them
shows most. Run it with `python -m examples.benchmarks.pipelines`; `--help` lists its options. Seed 0, one thread, times
of the processor; what is compared runs in turn.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time

from collections.abc import Callable
from typing import Any

import torch

from torch.profiler import ProfilerActivity, profile

import align
import diamond

from align.rewards import Brightness, Decoded
from examples.tiny_pipelines import CALLS, PIPELINES, tiny_pipeline

PROMPT = "a photograph of a cat"
STEPS = 8  # of a call of a sampler


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def model_of(name: str, pipe: Any, side: int, **options: Any) -> Any:
    return diamond.from_pipeline(pipe, PROMPT, height=side, width=side, **{**CALLS[name], **options})


# ---------------------------------------------------------------- steps


class Clock:
    """When a module is called: the seconds from each call to the next, of one run."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.starts: list[float] = []
        module.register_forward_pre_hook(lambda *_: self.starts.append(time.process_time()))

    def gaps(self, run: Callable[[], Any]) -> list[float]:
        self.starts.clear()
        run()
        return [later - sooner for sooner, later in itertools.pairwise(self.starts)]


def step_overhead(name: str, side: int, rounds: int) -> None:
    """One family: the median and the least time of a step, ours and the pipeline's own."""
    pipe = tiny_pipeline(name)
    model = model_of(name, pipe, side)
    if name == "stable-diffusion-xl-turbo":  # whose own sampler draws noise at each step
        import diffusers

        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    clock = Clock(model.network.network)
    own = {"use_resolution_binning": False} if name.startswith("sana") else {}
    own |= {"intermediate_timesteps": None} if name == "sana-sprint" else {}
    runs = (
        lambda: pipe(
            prompt=PROMPT, height=side, width=side, num_inference_steps=STEPS, output_type="latent",
            generator=seeded(), **CALLS[name], **own,
        ),
        lambda: model.sample(1, STEPS, generator=seeded()),
    )  # fmt: skip
    for run in runs:
        run()
    gaps: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, record in zip(runs, gaps, strict=True):
            record.extend(clock.gaps(run))
    (theirs, ours), (least, ours_least) = map(statistics.median, gaps), map(min, gaps)
    print(
        f"  {name:26s} own {theirs * 1e3:7.2f} ms   ours {ours * 1e3:7.2f} ms   ratio {ours / theirs:.3f}"
        f"   of the least {ours_least / least:.3f}"
    )


# ---------------------------------------------------------------- guidance


def recorded(module: torch.nn.Module, run: Callable[[], Any]) -> tuple[tuple, dict]:
    """What a module is called with, the first time."""
    calls: list[tuple[tuple, dict]] = []
    hook = module.register_forward_pre_hook(lambda _, given, named: calls.append((given, named)), with_kwargs=True)
    run()
    hook.remove()
    return calls[0]


def bare_call(module: torch.nn.Module, given: tuple, named: dict) -> Callable[[bool], None]:
    """A call of the network with the same arguments, and through it to the gradient of its state if asked."""

    def call(gradient: bool) -> None:
        positional, by_name = list(given), dict(named)
        place, key = (by_name, "hidden_states") if "hidden_states" in by_name else (positional, 0)
        state = place[key] = place[key].detach().requires_grad_(gradient)  # type: ignore[index]
        with torch.set_grad_enabled(gradient):
            output = module(*positional, **by_name)[0]
        if gradient:
            torch.autograd.grad(output.sum(), state)

    return call


def guidance_overhead(name: str, side: int, rounds: int, checkpoint: bool) -> None:
    """Guided steps of one particle with four draws, and the bare calls of as many: a network's call for the mean, and
    four at once, with their gradients, of the network and the decoder."""
    pipe = tiny_pipeline(name)
    model = model_of(name, pipe, side, glass_steps=1, checkpoint=checkpoint)
    reward, x = Decoded(Brightness(), model), torch.randn(4, *model.event_shape, generator=seeded())
    network = model.network.network
    one, four = (
        bare_call(network, *recorded(network, lambda n=n: model.velocity(x[:n], 0.5)))  # type: ignore[misc]
        for n in (1, 4)
    )
    steps = 4  # of which the first has a gradient that is a difference of means, so no backward pass

    def bare() -> None:
        for k in range(steps):
            one(False)
            four(k > 0)
            z = x.detach().requires_grad_(k > 0)
            with torch.set_grad_enabled(k > 0):
                image = pipe.vae.decode(z, return_dict=False)[0]
            if k:
                torch.autograd.grad(image.sum(), z)
        with torch.no_grad():
            pipe.vae.decode(x[:1])  # of the reward at the end

    def guided() -> None:
        align.guide(model, reward, 1, steps, mc=4, generator=seeded())

    times: tuple[list[float], list[float]] = ([], [])
    for run in (bare, guided):
        run()
    for _ in range(rounds):
        for run, record in zip((bare, guided), times, strict=True):
            start = time.process_time()
            run()
            record.append(time.process_time() - start)
    (bare_time, ours), (least, ours_least) = map(statistics.median, times), map(min, times)
    how = "calls made again" if checkpoint else "activations kept"
    print(
        f"  {name:20s} {how:17s} bare {bare_time * 1e3:7.1f} ms   guide {ours * 1e3:7.1f} ms"
        f"   ratio {ours / bare_time:.3f}   of the least {ours_least / least:.3f}"
    )


# ---------------------------------------------------------------- memory


def peak_bytes(call: Callable[[], Any]) -> float:
    """The most memory that tensors of a call held at once, beyond what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return float(sizes.cumsum(0).max())


def memory_growth(side: int) -> None:
    print(f"\nalign.guide on Flux, {side} pixels: the most that tensors held at once, in MiB, by particles x draws")
    model = model_of("flux", tiny_pipeline("flux"), side, glass_steps=1)
    reward = Decoded(Brightness(), model)
    for chunk in (None, 4, 1):
        figures = []
        for particles, mc in ((1, 1), (1, 4), (1, 16), (4, 4), (16, 1)):
            most = peak_bytes(
                lambda particles=particles, mc=mc, chunk=chunk: align.guide(  # type: ignore[misc]
                    model, reward, particles, 2, mc=mc, chunk=chunk, generator=seeded()
                )
            )
            figures.append(f"{particles} x {mc}: {most / 2**20:.0f}")
        print(f"  chunk {chunk!s:5s} " + "   ".join(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="calls of each kind")
    parser.add_argument("--quick", action="store_true", help="small images and few rounds: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    side, rounds = (128, 2) if options.quick else (512, options.rounds)
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, seed 0"
    )
    print(f"\nA step of sampling, {side} pixels, {rounds} x {STEPS - 1} of each")
    for name in PIPELINES:
        step_overhead(name, side, rounds)
    print(f"\nalign.guide, mc = 4, {side // 2} pixels, against its bare calls")
    for name in ("flux", "stable-diffusion"):
        for checkpoint in (False, True):
            guidance_overhead(name, side // 2, max(rounds // 2, 2), checkpoint)
    memory_growth(side // 2)


if __name__ == "__main__":
    main()
