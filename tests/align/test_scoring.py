"""What a reward may answer, how it is asked, and what is said of an answer that is no reward."""

import functools

import numpy
import pytest
import torch

import align

from align.rewards import Combined
from align.scoring import ByPopulation, RewardFailure, Scorer, takes_cond
from diamond.flow import Flow
from diamond.glass import GlassFlow

Z = torch.linspace(-1, 1, 12).reshape(6, 2)

BAD = {
    "a number": (lambda z: 1.0, "returned float"),
    "a list": (lambda z: [0.0] * len(z), "returned list"),
    "nothing": (lambda z: None, "returned NoneType"),
    "a numpy array": (lambda z: numpy.zeros(len(z)), "returned ndarray"),
    "a batch mean": (lambda z: z.mean(), r"returned shape \(\), expected a tensor of shape \(6,\)"),
    "a column": (lambda z: z[:, :1], r"returned shape \(6, 1\), expected a tensor of shape \(6,\)"),
    "too few": (lambda z: z[1:, 0], r"returned shape \(5,\), expected a tensor of shape \(6,\)"),
    "nan": (lambda z: z[:, 0] * torch.nan, "returned nan for 6 of 6 samples"),
    "one nan": (lambda z: torch.where(z[:, 0] > 0.7, torch.nan, 0.0), "returned nan for 1 of 6 samples"),
    "infinity": (lambda z: torch.where(z[:, 0] > 0, torch.inf, 0.0), "returned inf for 3 of 6 samples"),
    "half's overflow": (lambda z: (1e6 * z[:, 0].abs() + 1e6).half(), "returned inf for 6 of 6"),
    "complex": (lambda z: z[:, 0] + 0j, "returned torch.complex64, expected real numbers"),
    "another device": (lambda z: torch.zeros(len(z), device="meta"), "returned a tensor on meta, expected one on cpu"),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_are_no_rewards_are_refused(case):
    reward, message = BAD[case]
    with pytest.raises(ValueError, match=f"^reward: it {message}"):
        Scorer(reward)(Z)


@pytest.mark.parametrize("case", BAD)
def test_every_algorithm_refuses_them(case, algorithm, case_a):
    reward, _ = BAD[case]
    with pytest.raises(ValueError, match="^reward: "):
        algorithm(case_a, reward)


def test_what_cannot_be_called_is_refused(algorithm, case_a):
    with pytest.raises(ValueError, match=r"^reward: got float, expected a callable reward\(z\)"):
        algorithm(case_a, 3.0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_rewards_of_any_real_number_type_are_computed_in_single_precision(dtype):
    scores = Scorer(lambda z: (z[:, 0] > 0).to(dtype))(Z)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float32])
def test_rewards_of_double_precision_samples_are_computed_in_it(dtype):
    assert Scorer(lambda z: (z[:, 0] > 0).to(dtype))(Z.double()).dtype == torch.float64


def test_minus_infinity_is_a_reward():
    scores = Scorer(lambda z: torch.where(z[:, 0] > 0, -torch.inf, 1.5))(Z)
    assert scores.tolist() == [1.5] * 3 + [-torch.inf] * 3


def test_coarse_number_types_serve_every_algorithm(algorithm, differentiates, case_a, family):
    """Counts and votes are rewards where no derivative is asked for, and refused where one is."""
    if differentiates:
        with pytest.raises(ValueError, match="^reward: .*expected a differentiable reward"):
            algorithm(case_a, lambda z: z[:, 0] < 0)
        return
    for dtype in (torch.bool, torch.int32, torch.float16):
        coarse, fine = (
            algorithm(case_a, lambda z, kind=kind: (z[:, 0] < 0).to(kind), generator=family([3]))
            for kind in (dtype, torch.float64)
        )
        assert torch.equal(coarse.samples, fine.samples)
        assert torch.equal(coarse.rewards, fine.rewards)


class Judge(torch.nn.Module):
    def forward(self, z, cond):
        return z[:, 0] + cond


class Optional(torch.nn.Module):
    def forward(self, z, cond=None):
        return z[:, 0] if cond is None else z[:, 0] + cond


class Callable:
    def __call__(self, z, label):
        return z[:, 0] + label


TAKES_COND = {
    "function": Judge.forward.__get__(Judge()),
    "lambda": lambda z, c: z[:, 0] + c,
    "module": Judge(),
    "optional": Optional(),
    "object": Callable(),
    "partial": functools.partial(lambda k, z, c: z[:, 0] + k * c, 1),
}
TAKES_NONE = {
    "lambda": lambda z: z[:, 0],
    "module": torch.nn.Flatten(0, -1),
    "other option": lambda z, scale=2.0: scale * z[:, 0],
    "keywords": lambda z, **options: z[:, 0],
    "partial": functools.partial(lambda k, z: k * z[:, 0], 3.0),
    "builtin": torch.sum,
}


@pytest.mark.parametrize("kind", TAKES_COND)
def test_rewards_that_take_conditioning_get_it(kind):
    cond = torch.arange(6.0)
    assert torch.equal(Scorer(TAKES_COND[kind])(Z, cond), Z[:, 0] + cond)
    assert torch.equal(Scorer(TAKES_COND[kind], chunk=4)(Z, cond), Z[:, 0] + cond)


@pytest.mark.parametrize("kind", TAKES_NONE)
def test_rewards_that_take_none_are_not_given_it(kind):
    assert not Scorer(TAKES_NONE[kind]).takes_cond


def test_optional_conditioning_may_be_missing():
    assert torch.equal(Scorer(TAKES_COND["optional"])(Z), Z[:, 0])


def test_conditioning_is_repeated_for_each_particle(algorithm, tiny_flow, family):
    """Leading dimension `batch` outside, one row for each sample inside: each population meets its own."""
    cond = torch.tensor([[0.0, 0.0], [5.0, -5.0], [0.0, 0.0]], dtype=torch.float64)

    def reward(z, cond):
        assert z.shape == cond.shape
        return -(z - cond).square().sum(-1)

    model = GlassFlow(tiny_flow, steps=2)
    out = algorithm(model, reward, batch=3, cond=cond, generator=family([1, 1, 1]))
    assert torch.allclose(out.samples[0], out.samples[2], rtol=1e-9, atol=1e-12)
    assert ((out.samples[1] - out.samples[0])[:, 0] > 1).all()
    assert ((out.samples[1] - out.samples[0])[:, 1] < -1).all()


def test_conditioning_may_be_a_nest_of_tensors(algorithm, tiny_flow, family):
    cond = torch.tensor([[0.0, 1.0], [5.0, -5.0]], dtype=torch.float64)
    model = GlassFlow(tiny_flow, steps=2)
    out = algorithm(model, lambda z, c: (z * c).sum(1), batch=2, cond=cond, generator=family([1, 2]))
    nested = algorithm(
        unpacking(model), lambda z, c: (z * c["to"][0]).sum(1), batch=2, cond={"to": [cond]}, generator=family([1, 2])
    )
    assert torch.equal(nested.samples, out.samples)


def unpacking(model):
    """The same model, for conditioning that comes inside a dictionary of lists."""

    class Nested(torch.nn.Module):
        event_shape = (2,)

        def __init__(self):
            super().__init__()
            self.net = model.flow.net

        def forward(self, x, t, cond):
            return self.net(x, t, cond["to"][0])

    return GlassFlow(Flow(Nested()), steps=2)


def test_conditioning_of_another_length_is_refused(algorithm, case_a, mild):
    for cond in (torch.zeros(4, 2), torch.tensor(1.0), {"a": torch.zeros(2), "b": [torch.zeros(3)]}):
        with pytest.raises(ValueError, match=r"^cond: got shape .*expected leading dimension batch=2"):
            algorithm(case_a, mild, batch=2, cond=cond)


def test_rewards_that_work_in_place_change_nothing(algorithm, differentiates, case_a, mild, family):
    def doubling(z):
        return mild(z.mul_(2.0) / 2)

    def rude(z):
        score = mild(z)
        z.fill_(7.0)
        return score

    polite = algorithm(case_a, mild, generator=family([4]))
    for reward in [doubling] if differentiates else [doubling, rude]:
        out = algorithm(case_a, reward, generator=family([4]))
        assert torch.equal(out.samples, polite.samples)
        assert torch.equal(out.rewards, polite.rewards)


def test_a_value_function_may_take_conditioning_as_its_third_argument():
    assert takes_cond(lambda x, t, c: x, 2)
    assert takes_cond(lambda x, t, cond=None: x, 2)
    assert takes_cond(align.PlugIn(GlassFlow(Flow(lambda x, t: x, event_shape=(2,))), Judge()), 2)
    for plain in (lambda x, t: x, lambda x, t, scale=1.0: x, lambda cond, t: t, Judge(), Callable()):
        assert not takes_cond(plain, 2)


@pytest.mark.parametrize("chunk", [None, 1, 4, 5, 6, 100])
def test_scores_do_not_depend_on_the_chunk_and_are_counted(chunk):
    seen = []

    def reward(z):
        seen.append(len(z))
        return z.prod(1)

    scorer = Scorer(reward, chunk)
    assert torch.equal(scorer(Z), Z.prod(1))
    assert torch.equal(scorer(Z[:2]), Z[:2].prod(1))
    assert scorer.calls == sum(seen) == 8
    assert max(seen) <= (chunk or 6)


def test_gradients_pass_through_where_they_are_asked_for():
    z = Z.clone().requires_grad_()
    for chunk in (None, 4):
        (slope,) = torch.autograd.grad(Scorer(lambda z: z.square().sum(1), chunk)(z).sum(), z)
        assert torch.allclose(slope, 2 * Z)


@pytest.mark.parametrize("chunk", [None, 1, 2, 4])
def test_parts_of_several_rewards_keep_the_places_of_mixed_rows(chunk):
    """In chunks with rows of one population alone, too; each population's conditioning reaches its parts."""

    def made(slope):
        return Combined({"a": lambda z: slope * z[:, 0], "b": (lambda z, cond: z[:, 1] + cond, 2.0)})

    population, cond = torch.tensor([0, 0, 1, 0, 1, 1]), torch.arange(6.0)
    rewards, parts = Scorer(ByPopulation([made(1.0), made(-3.0)]), chunk).components(Z, (population, cond))
    assert torch.allclose(parts["a"], torch.tensor([1.0, -3.0])[population] * Z[:, 0])
    assert torch.allclose(parts["b"], Z[:, 1] + cond)
    assert torch.allclose(rewards, parts["a"] + 2 * parts["b"])


def test_the_failure_of_one_of_several_rewards_keeps_the_places_of_mixed_rows():
    """Rows of draws come population by population within each draw, not all of a population together."""

    def gone(z):
        raise RewardFailure("the judge is gone", torch.tensor([5.0, torch.nan, torch.nan]))

    scorer = Scorer(ByPopulation([lambda z: z[:, 0], gone]))
    with pytest.raises(RewardFailure) as caught:
        scorer(Z, (torch.tensor([0, 1, 0, 1, 0, 1]), None))
    expected = Z[:, 0].clone()
    expected[1] = 5.0
    assert torch.equal(caught.value.rewards[[0, 1, 2, 4]], expected[[0, 1, 2, 4]])
    assert caught.value.rewards[[3, 5]].isnan().all()
    assert torch.equal(caught.value.samples, Z)


def test_a_reward_reads_the_text_of_each_row(case_a):
    """Conditioning in words: one text a population, handed on for each particle, in whatever chunks."""
    wanted = {"left": -1.0, "right": 1.0}

    def reward(z, cond):
        return z[:, 0] * torch.tensor([wanted[text] for text in cond])

    for chunk in (None, 5):
        generator = torch.Generator().manual_seed(0)
        settings = {"batch": 2, "cond": ["left", "right"], "reward_chunk": chunk, "generator": generator}
        out = align.smc(case_a, reward, particles=16, steps=3, **settings)
        assert torch.equal(out.rewards, (out.samples[..., 0] * torch.tensor([[-1.0], [1.0]])).to(out.rewards))


def test_a_reward_that_leaves_torch_is_told_apart_from_other_failures(case_a):
    """numpy() on samples that need a derivative is the commonest black box, and torch's own words do not say what to do."""
    x_t = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="^reward: it takes the samples out of torch.*take estimator='score'"):
        align.value_gradient(case_a, lambda z: torch.from_numpy(z.numpy().sum(1)), x_t, 0.5)
    with pytest.raises(RuntimeError, match="size of tensor"):
        align.value_gradient(case_a, lambda z: (z + torch.zeros(3)).sum(1), x_t, 0.5)


class Elsewhere(torch.nn.Module):
    """Its weights lie on another device than the samples."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1, device="meta")

    def forward(self, z):
        return self.layer(z)[:, 0]


class Buffered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("target", torch.zeros(2, device="meta"))

    def forward(self, z):
        return -(z - self.target).square().sum(1)


ELSEWHERE = {
    "a module": Elsewhere,
    "a buffer": Buffered,
    "a method of one": lambda: Elsewhere().forward,
    "a sum": lambda: Combined({"light": lambda z: z[:, 0], "net": Elsewhere()}),
    "one of several": lambda: ByPopulation([Elsewhere()]),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("needs_grad", [False, True])
def test_a_module_on_another_device_is_told_apart_from_other_failures(kind, needs_grad):
    cond = (torch.zeros(6, dtype=torch.long), None) if kind == "one of several" else None
    message = "^reward: its weights are on meta and the samples on cpu .*expected both on one device.*to\\('cpu'\\)$"
    with pytest.raises(ValueError, match=message):
        Scorer(ELSEWHERE[kind]())(Z.clone().requires_grad_(needs_grad), cond)


def test_every_algorithm_tells_of_a_module_on_another_device(algorithm, case_a):
    with pytest.raises(ValueError, match="^reward: its weights are on meta and the samples on cpu"):
        algorithm(case_a, Elsewhere().double())


def test_other_failures_of_modules_keep_their_words():
    class Failing(Elsewhere):
        """Fails in other ways than by where its weights are."""

        def forward(self, z):
            raise RuntimeError(words)

    for words in ("CUDA out of memory", "CUDA error: device-side assert triggered", "mat1 and mat2 shapes"):
        with pytest.raises(RuntimeError, match=f"^{words}"):
            Scorer(Failing())(Z)
    words = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    with pytest.raises(RuntimeError, match="^Expected all tensors"):  # its weights are where the samples are
        Scorer(Failing().to_empty(device="cpu"))(Z)
