"""Conditioning: which rewards get it, and the row of each particle."""

import functools

import pytest
import torch

import align

from align.answers import takes_cond
from align.rewards import External
from align.scoring import Scorer
from diamond.flow import Flow
from diamond.glass import GlassFlow


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
    "behind an option": lambda z, scale=1.0, cond=None: scale * z[:, 0] + cond,
    "by name alone": lambda z, *, cond: z[:, 0] + cond,
    "partial by name": functools.partial(lambda z, k, cond=None: z[:, 0] + k * cond, k=1),
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
def test_rewards_that_take_conditioning_get_it(kind, samples):
    cond = torch.arange(6.0)
    assert torch.equal(Scorer(TAKES_COND[kind])(samples, cond), samples[:, 0] + cond)
    assert torch.equal(Scorer(TAKES_COND[kind], chunk=4)(samples, cond), samples[:, 0] + cond)


@pytest.mark.parametrize("kind", TAKES_NONE)
def test_rewards_that_take_none_are_not_given_it(kind):
    assert not Scorer(TAKES_NONE[kind]).takes_cond


def test_optional_conditioning_may_be_missing(samples):
    assert torch.equal(Scorer(TAKES_COND["optional"])(samples), samples[:, 0])


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


def test_a_value_function_may_take_conditioning_as_its_third_argument():
    assert takes_cond(lambda x, t, c: x, 2)
    assert takes_cond(lambda x, t, cond=None: x, 2)
    assert takes_cond(align.PlugIn(GlassFlow(Flow(lambda x, t: x, event_shape=(2,))), Judge()), 2)
    for plain in (lambda x, t: x, lambda x, t, scale=1.0: x, lambda cond, t: t, Judge(), Callable()):
        assert not takes_cond(plain, 2)


def test_a_value_function_may_take_conditioning_behind_an_option(still, seeded):
    def value(x, t, scale=1.0, cond=None):
        assert scale == 1.0 and cond.tolist() == [[1.0]] * 3 + [[2.0]] * 3
        return x[:, 0] * cond[:, 0]

    cond = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    align.smc(still, lambda z: z[:, 0], 3, 2, value=value, batch=2, cond=cond, generator=seeded())


def test_an_external_judge_may_take_conditioning_by_name(samples):
    cond = torch.arange(6.0)
    reward = External(lambda z, scale=1.0, cond=None: scale * z[:, 0] + cond, batch=4)
    assert torch.equal(reward(samples, cond), samples[:, 0] + cond)
    assert torch.equal((2.0 * reward)(samples, cond), 2 * (samples[:, 0] + cond))


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
