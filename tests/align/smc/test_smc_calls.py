"""What value functions and callbacks see, and what a run costs."""

import pytest
import torch

import align

from diamond.glass import GlassFlow

PARTICLES = 64  # of each population of a run


def test_value_functions_see_their_own_copy_and_the_time(case_a, mild, run):
    """What a value function does to its input stays with it."""
    times = []

    def rude(x, t):
        times.append(float(t[0]))
        assert t.shape == (len(x),) and (t == t[0]).all()
        value = mild(x)
        x.zero_()
        return value

    polite = run(case_a, mild, populations=2, value=lambda x, t: mild(x))
    out = run(case_a, mild, populations=2, value=rude)
    assert torch.equal(out.samples, polite.samples)
    assert times == pytest.approx([k / 6 for k in range(1, 6)])


def test_callbacks_see_every_step_and_change_nothing(case_a, mild, run):
    seen = []
    out = run(case_a, mild, populations=2, callback=seen.append)
    silent = run(case_a, mild, populations=2)
    assert [step.step for step in seen] == list(range(6))
    assert [step.t for step in seen] == pytest.approx([k / 6 for k in range(1, 7)])
    assert torch.equal(torch.stack([step.ess for step in seen]), out.ess)
    assert torch.equal(seen[-1].samples, out.samples)
    assert torch.equal(seen[-1].log_weights, out.log_weights)
    assert torch.equal(out.samples, silent.samples)
    assert all(step.samples.shape == (2, PARTICLES, 2) for step in seen)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("chunk", [None, 5])
def test_cost_is_counted_for_one_population(batch, chunk, tiny_flow, mild):
    particles, steps, mc, inner = 4, 5, 3, 2
    out = align.smc(GlassFlow(tiny_flow, steps=inner), mild, particles, steps, mc=mc, batch=batch, chunk=chunk)
    assert out.nfe == particles * inner * (steps + mc * (steps - 1))
    assert out.reward_calls == particles * (mc * (steps - 1) + 1)
    assert out.nfe_backward == 0
    assert out.seconds > 0


def test_value_functions_cost_no_reward_calls(case_a, mild, run, values):
    assert run(case_a, mild, populations=2, **values["nothing"](case_a, mild)).reward_calls == PARTICLES
