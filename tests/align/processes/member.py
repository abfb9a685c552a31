"""One of the processes that stand ready: it reads the name of a case and its options, and answers.

A case is a function of an accelerator and of options; with None for an accelerator it is that of one process.
"""

import json
import os
import traceback

import torch

import align

from align.processes import Processes
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.interpolant import Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.randomness import normal

COND = torch.tensor([[0.5, -0.5], [1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)

# -------------------------------------------------------------------- models and rewards


def mixture():
    """The two components of the fixture `case_a`."""
    weights, means, spreads = [0.35, 0.65], [[-1.5, 0.5], [1.0, -0.5]], [0.16, 0.36]
    return GaussianMixtureFlow(*(torch.tensor(values, dtype=torch.float64) for values in (weights, means, spreads)))


def attraction(z):
    """The fixture `gentle`."""
    return -(z - torch.tensor([-1.0, 0.5], dtype=torch.float64)).square().sum(-1) / 4


def followed(z, cond):
    return -(z - cond).square().sum(-1)


def first(z):
    return z[:, 0]


class Pull(torch.nn.Module):
    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, t, cond=None):
        return torch.tanh(x.flip(-1)) - self.gain * x + cond


class Still:
    """Pictures that never move: each tells where it comes from."""

    interpolant, event_shape = Linear(), (1, 2, 2)

    def prior(self, n, *, generator=None):
        return normal((n, *self.event_shape), generator, dtype=torch.float64)

    def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        return x_t.expand(n, *x_t.shape)

    def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
        return x_t

    def velocity(self, x_t, t, *, cond=None):
        return torch.zeros_like(x_t)

    def denoise(self, x_t, t, *, cond=None):
        return x_t


class Ladder(Still):
    """Numbers that are known beforehand: process p starts at 2 p and 2 p + 1, the second population at their opposites,
    and of two branches the second climbs by 0.1 + t."""

    event_shape = (1,)

    def __init__(self, index):
        self.index = index

    def prior(self, n, *, generator=None):
        first = torch.tensor([2.0 * self.index, 2.0 * self.index + 1], dtype=torch.float64)
        return torch.cat([first, -first])[:n, None]

    def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
        climb = torch.tensor([0.0, 0.1 + t], dtype=torch.float64)
        return x_t + climb.repeat(len(x_t) // 2)[:, None]


class Failing:
    """A reward that fails at its second call, in the process 1."""

    def __init__(self, index, kind):
        self.index, self.kind, self.calls = index, kind, 0

    def __call__(self, z):
        self.calls += 1
        if self.index == 1 and self.calls == 2:
            if self.kind == "gone":
                os._exit(1)
            if self.kind == "judge":
                raise align.RewardFailure("reward: the judge of process 1 has gone home", torch.zeros(len(z)))
            return torch.full((len(z),), torch.nan)
        return attraction(z)


# -------------------------------------------------------------------- cases


def generators(seeds, index):
    """One, or one a population; those of other processes are others."""
    if isinstance(seeds, int):
        return torch.Generator().manual_seed(seeds + 1000 * index)
    return [torch.Generator().manual_seed(seed + 1000 * index) for seed in seeds]


def plain(accelerator, algorithm, seeds=0, **options):
    generator = generators(seeds, accelerator.process_index)
    return getattr(align, algorithm)(mixture(), attraction, generator=generator, accelerator=accelerator, **options)


def still(accelerator, algorithm, seeds=0, **options):
    generator = generators(seeds, accelerator.process_index)
    return getattr(align, algorithm)(
        Still(), lambda z: z.flatten(1).sum(1), generator=generator, accelerator=accelerator, **options
    )


def conditioned(accelerator, algorithm, seeds=0, each=False, **options):
    generator = None if accelerator is None else generators(seeds, accelerator.process_index)
    parts = {"near": followed, "first": (first, 0.0)}
    reward = [followed, first, followed] if each else align.rewards.Combined(parts)
    return getattr(align, algorithm)(
        GlassFlow(Flow(Pull()), steps=2), reward, batch=3, cond=COND, generator=generator,
        accelerator=accelerator, **options,
    )  # fmt: skip


def ladder(accelerator, **options):
    model = Ladder(accelerator.process_index)
    return align.search(model, first, 4, 2, 2, batch=2, mc=1, accelerator=accelerator, **options)


def hopeless(accelerator):
    def reward(z):
        return torch.where(first(z) < 1.9, -torch.inf, -50.0)

    model = Ladder(accelerator.process_index)
    return align.smc(model, reward, 4, 2, mc=1, ess_threshold=1.0, accelerator=accelerator)


def failing(accelerator, algorithm, kind, **options):
    reward = Failing(accelerator.process_index, kind)
    try:
        getattr(align, algorithm)(mixture(), reward, accelerator=accelerator, **options)
    except Exception as error:
        samples = getattr(error, "samples", None)
        return [type(error).__name__, str(error), None if samples is None else list(samples.shape)]


def differing(accelerator, algorithm, options, others):
    options = others if accelerator.process_index else options
    try:
        getattr(align, algorithm)(mixture(), attraction, accelerator=accelerator, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]


def gathered(accelerator, dtype):
    processes = Processes(accelerator)
    x = (10 * processes.index + torch.arange(6).reshape(2, 3)).to(getattr(torch, dtype))
    both = processes.gather(x, dim=1)
    return [both.double().tolist(), str(both.dtype), both.is_contiguous(), processes.sum(3 + processes.index)]


CASES = (plain, still, conditioned, ladder, hopeless, failing, differing, gathered)


def serve(index, count, meeting, questions, answers):
    """The life of one of the processes: of its number, how many they are, the file by which they find each other, and
    the lines that it reads and writes."""
    os.environ.update(
        RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count),
        ACCELERATE_USE_CPU="true", GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=index, world_size=count)
    from accelerate import Accelerator

    accelerator, cases = Accelerator(cpu=True), {case.__name__: case for case in CASES}
    for line in questions:
        name, options, path = json.loads(line)
        try:
            answer = cases[name](accelerator, **options)
            if isinstance(answer, align.Alignment):
                answer.save(f"{path}.{index}")
                answer = {"saved": f"{path}.{index}"}
        except Exception:
            answer = {"broken": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)
