"""How gradients are computed: in chunks and tiles of draws, in half precision, tempered, and without a trace."""

import gc
import weakref

import pytest
import torch

import align

from align.gradient import population_gradient
from align.population import Population
from diamond.glass import GlassFlow
from diamond.interpolant import Linear
from diamond.randomness import normal


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 50, 1000])
def test_gradients_do_not_depend_on_the_chunk(estimator, chunk, case_a, mild, seeded, family, states, times):
    for source in (lambda: seeded(), lambda: family([1, 2])):
        whole, parts = (
            align.value_gradient(case_a, mild, states, times, 19, estimator, generator=source(), chunk=size)
            for size in (None, chunk)
        )
        assert torch.allclose(parts, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_gradients_ignore_a_constant_and_survive_large_rewards(estimator, case_a, mild, seeded, states, times):
    plain, more = (
        align.value_gradient(case_a, r, states, times, 20, estimator, generator=seeded())
        for r in (mild, lambda z: mild(z) + 5000)
    )
    assert torch.allclose(more, plain, rtol=1e-7, atol=1e-10)


class HalfPrecision:
    """A model of bfloat16 states: every draw is its state and noise, one apart; the draws are recorded."""

    interpolant, event_shape = Linear(), (1,)

    def __init__(self):
        self.seen = []

    def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        z = x_t + normal((n, *x_t.shape), generator, batch_axis=1, dtype=x_t.dtype)
        self.seen.append(z.detach())
        return z


@pytest.mark.parametrize("estimator", ["reparam", "score"])
@pytest.mark.parametrize("chunk", [None, 8])
def test_half_precision_states_have_their_means_summed_in_single_precision(estimator, chunk, seeded):
    """Against the same draws in double precision, to the last bits of the result. Means near 8 are known to 1/32 only in
    bfloat16, and sums stop growing there at 256 times what is added."""
    model, x, mc = HalfPrecision(), torch.tensor([[8.0], [-6.0]], dtype=torch.bfloat16), 6000

    def reward(z):
        return z.float()[:, 0] / 2

    found = align.value_gradient(model, reward, x, 0.5, mc, estimator, generator=seeded(), chunk=chunk)
    assert found.dtype == torch.bfloat16
    if estimator == "reparam":
        expected = torch.full((2, 1), 0.5, dtype=torch.float64)  # dz/dx = 1
    else:
        z = torch.cat(model.seen).double()  # each block has both states
        expected = 2 * (((z / 2).softmax(0) * z).sum(0) - z.mean(0))  # alpha / sigma^2 = 2
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5)


@pytest.fixture
def uncollected():
    """No search for garbage: what refers to itself is not freed."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("chunk", [None, 8])
def test_memory_of_the_gradient_does_not_grow_with_the_draws(
    chunk, tiny_flow, mild, seeded, states, times, uncollected
):
    """The most numbers that autograd ever keeps at once, and the most draws alive at once."""

    class Watched(GlassFlow):
        def posterior(self, *arguments, **options):
            z = super().posterior(*arguments, **options)
            alive.append(weakref.ref(z))
            return z

    model = Watched(tiny_flow, steps=2)

    class Held:
        def __init__(self, tensor):
            self.tensor = tensor
            count["held"] += tensor.numel()
            count["most held"] = max(count["most held"], count["held"])
            weakref.finalize(self, release, tensor.numel())

    def release(size):
        count["held"] -= size

    def reward(z):
        count["most draws"] = max(count["most draws"], sum(len(r().flatten(0, 1)) for r in alive if r() is not None))
        return mild(z)

    peaks = []
    for mc in (32, 64, 256):
        count, alive = {"held": 0, "most held": 0, "most draws": 0}, []
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            align.value_gradient(model, reward, states, times, mc, generator=seeded(), chunk=chunk)
        assert count["most held"] > 0 and count["most draws"] > 0
        peaks.append((count["most held"], count["most draws"]))
    assert peaks[0] == peaks[1] == peaks[2]


def test_gradients_leave_no_trace_on_state_reward_or_graph(case_a, seeded, states, times):
    reward = torch.nn.Sequential(torch.nn.Linear(2, 1, dtype=torch.float64), torch.nn.Flatten(0))
    x = states.clone().requires_grad_()
    with torch.no_grad():
        first = align.value_gradient(case_a, reward, x, times, generator=seeded())
    second = align.value_gradient(case_a, reward, x, times, generator=seeded())
    assert torch.equal(first, second)
    assert not (first.requires_grad or second.requires_grad)
    assert not align.value(case_a, reward, x, times).requires_grad
    assert x.grad is None
    assert all(p.grad is None for p in reward.parameters())


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
@pytest.mark.parametrize("chunk", [None, 5])
def test_populations_have_the_gradient_of_their_own_tempered_reward(estimator, chunk, case_a, mild, seeded, states):
    """`beta r` for each row's beta, as if the reward had been multiplied by it."""
    beta = torch.tensor([0.3, 1.0, 0.0, 0.6], dtype=torch.float64)
    population = Population(case_a, mild, 2, 2, generator=seeded(), chunk=chunk)
    found = population_gradient(population, states, 0.4, 6, estimator, beta=beta)
    assert not found[2].any()
    for row in range(4):
        population = Population(case_a, lambda z, row=row: beta[row] * mild(z), 2, 2, generator=seeded(), chunk=chunk)
        expected = population_gradient(population, states, 0.4, 6, estimator)[row]
        assert torch.allclose(found[row], expected, rtol=1e-9, atol=1e-12)
