"""Rewards that someone else gives: their order, micro-batches and workers, what judges see, and what is refused."""

import threading
import time

from functools import partial

import pytest
import torch

import align

from align.rewards import Brightness, External
from align.scoring import Scorer

ANSWERS = {  # to samples, by the product of their coordinates
    "tensor": lambda product, samples: product(samples),
    "list": lambda product, samples: product(samples).tolist(),
    "array": lambda product, samples: product(samples).numpy(),
    "list of numpy numbers": lambda product, samples: list(product(samples).numpy()),
    "in place": lambda product, samples: product(samples.add_(1).sub_(1)),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("batch", [None, 1, 3, 7, 100])
def test_rewards_stand_in_the_order_of_the_samples(answer, batch, product, z):
    found = External(partial(ANSWERS[answer], product), batch=batch, workers=3)(z)
    assert found.dtype == torch.float64 and torch.allclose(found, product(z), rtol=1e-15)


def test_whatever_the_order_of_the_answers(product, z):
    def slow(samples):
        time.sleep(0.05 * float(samples[0, 0] < 0))
        return product(samples)

    assert torch.equal(External(slow, batch=1, workers=7)(z), product(z))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_judges_see_single_precision(kind, z):
    seen = []

    def ask(samples):
        seen.append((samples.dtype, samples.device.type, samples.requires_grad, tuple(samples.shape)))
        return [1] * len(samples)

    found = External(ask, batch=4)(z.to(kind).requires_grad_())
    assert seen == [(torch.float32, "cpu", False, (n, 2)) for n in (4, 3)]
    assert found.dtype == torch.float32 and not found.requires_grad


def test_no_samples_are_no_call(z):
    assert External(lambda samples: 1 / 0)(z[:0]).shape == (0,)


def test_conditioning_goes_to_judges_that_take_it(z, product):
    cond = {"label": torch.arange(7), "tint": [z]}

    def ask(samples, cond):
        return product(samples) + cond["label"] + cond["tint"][0][:, 0]

    expected = product(z) + torch.arange(7) + z[:, 0]
    assert torch.allclose(Scorer(External(ask, batch=2))(z, cond), expected)
    assert torch.equal(Scorer(External(product, batch=2))(z, cond), product(z))


def test_a_module_that_is_asked_stays_where_it_is(z):
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
    reward = External(net).double()
    assert not list(reward.parameters()) and reward(z.float()).shape == (7,)


def test_as_many_calls_are_out_as_there_are_workers(product, z):
    together = threading.Barrier(3, timeout=10)

    def ask(samples):
        together.wait()  # breaks unless three are here at once
        return product(samples)

    assert torch.equal(External(ask, batch=1, workers=3, retries=0)(z[:6]), product(z[:6]))


def test_and_no_more(product, z):
    lock, out, most = threading.Lock(), [], []

    def ask(samples):
        with lock:
            out.append(1)
            most.append(len(out))
        time.sleep(0.01 + 0.04 * float(samples[0, 0] > 0))  # so that they end one by one
        with lock:
            out.pop()
        return product(samples)

    External(ask, batch=1, workers=2)(torch.stack([z[0], z[6]] * 3))
    assert max(most) == 2


def test_algorithms_give_the_same_as_with_the_function_itself(case_a, mild, seeded):
    for run in (align.best_of_n, align.smc, align.search):
        judged = run(case_a, External(mild, batch=5, workers=2), generator=seeded(3))
        assert torch.equal(judged.samples, run(case_a, mild, generator=seeded(3)).samples)


def test_it_is_a_black_box(case_a, mild, z):
    with pytest.raises(ValueError, match="^reward: .*estimator='score'"):
        align.guide(case_a, External(mild), 2, 2, 3)
    with pytest.raises(ValueError, match="^reward 'External': .*use estimator='score'"):
        (Brightness() + External(mild))(z.clone().requires_grad_())
    assert align.guide(case_a, External(mild), 2, 2, 3, estimator="score").samples.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch: got 0, expected a whole number of at least 1"),
        ({"timeout": 0}, "timeout: got 0, expected seconds above 0"),
        ({"timeout": float("nan")}, "timeout: got nan"),
        ({"timeout": "soon"}, "timeout: got .soon., expected seconds above 0, or None"),
        ({"pause": None}, "pause: got None, expected seconds from 0"),
        ({"retries": -1}, "retries: got -1"),
        ({"workers": 0}, "workers: got 0"),
        ({"pause": -0.1}, "pause: got -0.1"),
        ({"process": True}, "ask: got .*lambda.*, which another process cannot import"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        External(lambda s: s, **settings)


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="^ask: got str, expected a callable"):
        External("judge")


def test_no_thread_outlives_its_answer(product, z):
    """One that did could meet the end of the program, and abort it."""
    before = set(threading.enumerate())
    reward = External(product, batch=1, workers=2)
    for _ in range(60):
        reward(z)
        assert set(threading.enumerate()) <= before
