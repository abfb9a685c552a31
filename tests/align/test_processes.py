"""One population over two processes: its law, its lineage, and what becomes of an error in one of them.

Two processes that talk over gloo stand ready for all tests of this file, each with one thread: they run this very file
as a script, read the name of a case and its options, and answer with a result. They find each other by a file, so that
no port is fixed, and each answer is waited for no longer than a limit.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
import traceback

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from pathlib import Path

import pytest
import torch

import align

from align.processes import Processes
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.interpolant import Linear
from diamond.mixture import GaussianMixtureFlow

COUNT, LIMIT = 2, 60  # processes, and seconds for an answer
POPULATIONS, PARTICLES = 2000, 16
COND = torch.tensor([[0.5, -0.5], [1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)

# -------------------------------------------------------------------- models and rewards of both sides


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
        from diamond.randomness import normal

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


# -------------------------------------------------------------------- what each of the processes does


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


def serve(index, meeting):
    """The life of one of the processes."""
    os.environ.update(
        RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE=str(COUNT), LOCAL_WORLD_SIZE=str(COUNT),
        ACCELERATE_USE_CPU="true", GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=index, world_size=COUNT)
    from accelerate import Accelerator

    accelerator, cases = Accelerator(cpu=True), {case.__name__: case for case in CASES}
    for line in sys.stdin:
        name, options, path = json.loads(line)
        try:
            answer = cases[name](accelerator, **options)
            if isinstance(answer, align.Alignment):
                answer.save(f"{path}.{index}")
                answer = {"saved": f"{path}.{index}"}
        except Exception:
            answer = {"broken": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


# -------------------------------------------------------------------- how they are asked


class Pair:
    """The processes, started when they are needed."""

    def __init__(self, folder):
        self.folder, self.asked, self.members = folder, 0, []

    def __call__(self, case, **options):
        """Each one's answer: an Alignment, or JSON; None of one that ended."""
        if not self.members:
            self.start()
        self.asked += 1
        for member in self.members:
            member.stdin.write(json.dumps([case.__name__, options, str(self.folder / f"{self.asked}")]) + "\n")
            member.stdin.flush()
        with ThreadPoolExecutor(COUNT) as pool:
            lines = [pool.submit(member.stdout.readline) for member in self.members]
            try:
                answers = [line.result(LIMIT) for line in lines]
            except Late:
                self.stop()
                pytest.fail(f"no answer within {LIMIT} seconds")
        if not all(answers):
            self.stop()
        return [self.read(answer) for answer in answers]

    def read(self, answer):
        answer = json.loads(answer) if answer else None
        if isinstance(answer, dict):
            assert "broken" not in answer, answer["broken"]
            return align.Alignment.load(answer["saved"])
        return answer

    def start(self):
        meeting = self.folder / f"meeting{self.asked}"
        self.members = [
            subprocess.Popen(
                [sys.executable, __file__, str(index), str(meeting)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for index in range(COUNT)
        ]  # fmt: skip

    def stop(self):
        for member in self.members:
            member.kill()
            member.communicate()
        self.members = []


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    pair = Pair(tmp_path_factory.mktemp("processes"))
    yield pair
    pair.stop()


def fields(out):
    """What a result holds, by name."""
    found = {**dataclasses.asdict(out), **{f"part {name}": part for name, part in out.components.items()}}
    del found["components"]
    return found


def same(one, other, but=()):
    for name, value in fields(one).items():
        twin = fields(other)[name]
        equal = torch.equal(value, twin) if isinstance(value, torch.Tensor) else value == twin
        assert equal or name in but, name


def agreed(answers):
    """The one result of all processes."""
    same(*answers)
    return answers[0]


# -------------------------------------------------------------------- the law

SETTINGS = {
    "adaptive": {},
    "every step": {"ess_threshold": 1.0},
    "multinomial": {"ess_threshold": 1.0, "resampling": "multinomial"},
    "tempered": {"tempering": 0.7, "ess_threshold": 0.9},
    "lookahead": {"proposal": "lookahead", "ess_threshold": 0.9},
    "lookahead, tempered, every step": {"proposal": "lookahead", "tempering": 0.7, "ess_threshold": 1.0},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_evidence_and_law_are_those_of_one_population(settings, both, gentle, check_tilt):
    options = SETTINGS[settings] | {"particles": PARTICLES, "steps": 4, "batch": POPULATIONS, "mc": 4}
    out = agreed(both(plain, algorithm="smc", **options))
    assert out.samples.shape == (POPULATIONS, PARTICLES, 2)
    assert out.ess.shape == (4, POPULATIONS) and out.ancestors.shape == (4, POPULATIONS, PARTICLES)
    check_tilt(out, gentle.law(mixture()), gentle.log_z(mixture()))
    assert (out.inverse_temperatures is None) == ("tempering" not in options)


@pytest.mark.parametrize("settings", [{"particles": 6, "steps": 3, "ess_threshold": 0.9, "mc": 2}])
def test_the_spread_of_the_evidence_does_not_depend_on_the_number_of_processes(settings, both, seeded):
    """Populations of twins, with the same noise in both processes, would spread as those of half the size."""

    def alone(**options):
        return align.smc(mixture(), attraction, batch=4000, generator=seeded(1), **settings | options)

    def squares(out):
        z = out.log_z.exp()
        return torch.cat([(z - z.mean()).square()[:, None], out.ess.T], dim=1)

    spread = squares(agreed(both(plain, algorithm="smc", batch=4000, **settings)))

    def score(other):
        error = (spread.var(0) / len(spread) + other.var(0) / len(other)).sqrt()
        return ((spread.mean(0) - other.mean(0)) / error).abs()

    assert (score(squares(alone())) < 4).all()
    assert (score(squares(alone(particles=3)))[0] > 6).all()


def test_the_weights_of_independent_draws_give_the_evidence(both, gentle, check_tilt):
    out = agreed(both(plain, algorithm="best_of_n", n=8, batch=4000))
    assert torch.allclose(out.log_z, out.rewards.exp().mean(1).log(), rtol=1e-12)
    check_tilt(out, gentle.law(mixture()), gentle.log_z(mixture()))
    assert torch.equal(attraction(out.best()), out.rewards.amax(1))
    first = out.rewards.argmax(1) < 4
    assert 1800 < int(first.sum()) < 2200


# -------------------------------------------------------------------- the noise


@pytest.mark.parametrize("seeds", [0, [5, 6, 7, 8]])
def test_no_two_processes_or_populations_draw_the_same_numbers(seeds, both, check_mean):
    batch = 400 if seeds == 0 else 4
    out = agreed(both(still, algorithm="best_of_n", seeds=seeds, n=400 // batch * 10, batch=batch))
    assert len(out.samples.unique()) == out.samples.numel()
    one, other = out.samples.chunk(COUNT, dim=1)
    check_mean((one * other).flatten(), torch.zeros((), dtype=torch.float64))


def test_generators_beside_the_first_processes_do_not_matter(both):
    """Those of the second process are seeded by another number in every case here; this checks that the first one's are
    used at all."""
    options = {"algorithm": "smc", "particles": 4, "steps": 2, "batch": 3}
    one, again, other = (agreed(both(plain, seeds=seeds, **options)) for seeds in (1, 1, 2))
    same(one, again, but="seconds")
    assert not torch.equal(one.samples, other.samples)


@pytest.mark.parametrize("algorithm", ["smc", "search", "best_of_n"])
def test_populations_of_their_own_generators_ignore_the_others(algorithm, both):
    options = {"algorithm": algorithm, "n" if algorithm == "best_of_n" else "particles": 4, "steps": 3}
    together = agreed(both(plain, seeds=[5, 6, 7], batch=3, **options))
    alone = agreed(both(plain, seeds=[6], batch=1, **options))
    for name in ("samples", "rewards", "log_weights"):
        assert torch.allclose(getattr(together, name)[1], getattr(alone, name)[0], rtol=1e-9, atol=1e-12), name
    assert torch.equal(together.ancestors[:, 1], alone.ancestors[:, 0])


@pytest.mark.parametrize("proposal", [None, "lookahead"])
def test_results_do_not_depend_on_the_chunk(proposal, both):
    options = {"algorithm": "smc", "particles": 6, "steps": 3, "mc": 3, "batch": 3, "proposal": proposal}
    whole, parts = (agreed(both(plain, chunk=chunk, ess_threshold=1.0, **options)) for chunk in (None, 2))
    assert torch.equal(whole.ancestors, parts.ancestors)
    assert torch.allclose(whole.samples, parts.samples, rtol=1e-9, atol=1e-12)


# -------------------------------------------------------------------- lineage, beam, cost


@pytest.mark.parametrize("seeds", [0, list(range(5, 17))])
@pytest.mark.parametrize("ess_threshold", [0.7, 1.0])
def test_ancestors_are_global_and_offspring_come_from_elsewhere(seeds, ess_threshold, both):
    """Of pictures that never move, each must be that of the ancestor which the lineage names."""
    born = agreed(both(still, algorithm="best_of_n", seeds=seeds, n=8, batch=12))
    options = {"particles": 8, "steps": 4, "batch": 12, "mc": 1, "ess_threshold": ess_threshold}
    out = agreed(both(still, algorithm="smc", seeds=seeds, **options))
    origin = out.lineage()[0]
    assert torch.equal(out.samples, born.samples[torch.arange(12)[:, None], origin])
    here = torch.arange(8) // 4
    assert ((origin // 4 != here) & (here == 0)).any() and ((origin // 4 != here) & (here == 1)).any()


def test_every_process_draws_the_same_ancestors(both):
    """Systematic resampling gives each ancestor its expected number of offspring up to one. Shares of two draws would
    not, at the ancestor where they meet."""
    born = agreed(both(still, algorithm="best_of_n", n=8, batch=200))
    out = agreed(both(still, algorithm="smc", particles=8, batch=200, steps=2, mc=1, ess_threshold=1.0))
    offspring = torch.nn.functional.one_hot(out.ancestors[1], 8).sum(1)
    assert ((offspring - 8 * born.rewards.softmax(1)).abs() < 1 + 1e-9).all()


def test_the_beam_is_of_all_processes(both):
    out = agreed(both(ladder))
    assert torch.allclose(out.rewards[0], torch.tensor([3.7, 3.6, 3.1, 3.0], dtype=torch.float64))
    assert torch.allclose(out.rewards[1], torch.tensor([0.7, 0.6, 0.1, 0.0], dtype=torch.float64))
    assert torch.equal(out.samples[..., 0], out.rewards)
    assert out.ancestors.tolist() == [[[3, 3, 2, 2], [0, 0, 1, 1]], [[0, 1, 0, 1]] * 2]


def test_each_particle_keeps_its_best_branch_where_it_is(both):
    out = agreed(both(ladder, keep="each"))
    expected = 0.7 + torch.tensor([[0.0, 1, 2, 3], [0, -1, -2, -3]], dtype=torch.float64)
    assert torch.allclose(out.samples[..., 0], expected) and torch.allclose(out.rewards, expected)
    assert (out.ancestors == torch.arange(4)).all()


def test_members_without_hope_in_one_process_stand_below_those_of_the_others(both):
    """An estimate of -inf is raised to the least finite one of the population, which the other process holds."""
    out = agreed(both(hopeless))
    assert out.rewards.tolist() == [[-torch.inf, -torch.inf, -50, -50]]
    assert float(out.log_z) == pytest.approx(-50 - math.log(2), abs=1e-12)


COSTS = {
    "smc": {"algorithm": "smc", "particles": 4, "steps": 3, "mc": 3, "ess_threshold": 1.0},
    "lookahead": {"algorithm": "smc", "particles": 4, "steps": 3, "mc": 3, "proposal": "lookahead"},
    "reparam": {"algorithm": "smc", "particles": 4, "steps": 3, "mc": 3, "proposal": "reparam"},
    "search": {"algorithm": "search", "particles": 4, "branch": 2, "steps": 3, "mc": 3},
    "best_of_n": {"algorithm": "best_of_n", "n": 4, "steps": 3},
}


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("settings", COSTS)
def test_costs_are_sums_and_rows_get_what_is_theirs(settings, each, both):
    """Costs as those of one process; conditioning, rewards and their parts as those of the rows they stand for."""
    out = agreed(both(conditioned, each=each, **COSTS[settings]))
    alone = conditioned(None, each=each, **COSTS[settings])
    assert (out.nfe, out.nfe_backward, out.reward_calls) == (alone.nfe, alone.nfe_backward, alone.reward_calls)
    assert out.nfe > 0 and out.reward_calls > 0 and (out.nfe_backward > 0) == (settings == "reparam")
    expected = followed(out.samples, COND[:, None])
    if each:
        expected[1] = out.samples[1, :, 0]
    assert torch.allclose(out.rewards, expected, rtol=1e-12)
    assert out.components.keys() == alone.components.keys() == (set() if each else {"near", "first"})
    if not each:
        assert torch.equal(out.components["near"], out.rewards)
        assert torch.equal(out.components["first"], out.samples[..., 0])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_tensors_of_any_number_type_are_joined_in_the_order_of_the_processes(dtype, both):
    answers = both(gathered, dtype=dtype)
    rows = [[0, 1, 2, 10, 11, 12], [3, 4, 5, 13, 14, 15]]
    expected = [[float(min(x, 1) if dtype == "bool" else x) for x in row] for row in rows]
    assert answers == [[expected, f"torch.{dtype}", True, 7]] * COUNT


# -------------------------------------------------------------------- one process


@pytest.mark.parametrize("settings", COSTS)
def test_an_accelerator_of_one_process_changes_nothing(settings, seeded):
    from accelerate import Accelerator

    options = dict(COSTS[settings])
    run = getattr(align, options.pop("algorithm"))
    one, other = (
        run(mixture(), attraction, batch=2, generator=seeded(3), accelerator=accelerator, **options)
        for accelerator in (None, Accelerator(cpu=True))
    )
    same(one, other, but="seconds")


# -------------------------------------------------------------------- what goes wrong

RUNS = {
    "smc": {"algorithm": "smc", "particles": 4, "steps": 3},
    "search": {"algorithm": "search", "particles": 4, "steps": 3},
    "best_of_n": {"algorithm": "best_of_n", "n": 4, "chunk": 1},
}


@pytest.mark.parametrize("kind", ["nan", "judge"])
@pytest.mark.parametrize("settings", RUNS)
def test_a_reward_that_fails_in_one_process_fails_in_all(settings, kind, both):
    first, second = both(failing, kind=kind, **RUNS[settings])
    error, sentence = {
        "nan": ["ValueError", "reward: it returned nan for "],
        "judge": ["RewardFailure", "reward: the judge of process 1 has gone home"],
    }[kind]
    assert second[0] == error and second[1].startswith(sentence)
    assert (second[2] is not None) == (kind == "judge")  # the samples are kept where they are
    assert first[:2] == ["ProcessFailure", f"accelerator: process 1 of 2 failed with {error}: {second[1]}"]
    agreed(both(plain, **RUNS[settings]))  # and the next call finds them in step


@pytest.mark.parametrize("algorithm", [align.smc, align.search, align.best_of_n])
def test_what_is_no_accelerator_is_refused(algorithm):
    with pytest.raises(ValueError, match=r"^accelerator: got str, expected an accelerate.Accelerator, or None$"):
        algorithm(mixture(), attraction, accelerator="cpu")


@pytest.mark.parametrize("settings", RUNS)
def test_members_that_cannot_be_shared_equally_are_refused(settings, both):
    options = {**RUNS[settings], ("n" if settings == "best_of_n" else "particles"): 5}
    del options["algorithm"]
    sentence = "accelerator: got 2 processes for 5 particles, expected a number of processes that divides these"
    assert both(differing, algorithm=settings, options=options, others=options) == [["ValueError", sentence]] * 2


@pytest.mark.parametrize(
    "options, others",
    [({"particles": 4}, {"particles": 8}), ({"steps": 2}, {"steps": 3}), ({"batch": 2}, {"batch": 1})],
)
@pytest.mark.parametrize("algorithm", ["smc", "search"])
def test_calls_that_differ_between_processes_are_refused(algorithm, options, others, both):
    base = {"particles": 4, "steps": 3}
    answers = both(differing, algorithm=algorithm, options=base | options, others=base | others)
    for index, (error, sentence) in enumerate(answers):
        assert error == "ProcessFailure"
        assert sentence.startswith(f"accelerator: process {index} of 2 brought torch.")
    agreed(both(plain, algorithm=algorithm, **base))


def test_a_process_that_is_gone_is_not_waited_for(both):
    first, second = both(failing, kind="gone", **RUNS["smc"])
    assert second is None
    assert first[:2] == ["ProcessFailure", "accelerator: process 0 of 2 lost another one"]


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
