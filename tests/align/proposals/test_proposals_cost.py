"""What proposals cost, and which are refused."""

import pytest

import align

from diamond.glass import GlassFlow

PARTICLES, STEPS, MC, INNER = 4, 5, 2, 3
VALUES = MC * (STEPS - 1)  # draws a particle for the values


COSTS = {  # evaluations of the flow a particle, of them differentiated, and rewards
    "lookahead": (INNER * (1 + VALUES), 0, VALUES + 1),
    "reparam": (INNER * (STEPS + VALUES + MC * (STEPS - 2)), INNER * MC * (STEPS - 2), VALUES + 1 + MC * (STEPS - 2)),
    "score": (INNER * (STEPS + VALUES + MC * (STEPS - 2)), 0, VALUES + 1 + MC * (STEPS - 2)),
    "plugin": (INNER * (STEPS + VALUES) + STEPS - 2, STEPS - 2, VALUES + 1 + STEPS - 2),
}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("chunk", [None, 5])
def test_cost_is_counted_for_one_population(name, chunk, tiny_flow, mild):
    """The first step has no gradient, nor has the last; a look-ahead moves on the draws that there are."""
    model = GlassFlow(tiny_flow, steps=INNER)
    out = align.smc(model, mild, PARTICLES, STEPS, mc=MC, batch=3, chunk=chunk, proposal=name)
    assert (out.nfe, out.nfe_backward, out.reward_calls) == tuple(PARTICLES * count for count in COSTS[name])


def test_black_box_rewards_are_refused_by_the_proposals_that_differentiate_them(case_a, mild):
    for name in ("reparam", "plugin"):
        with pytest.raises(ValueError, match="^reward: .*expected a differentiable reward"):
            align.smc(case_a, lambda z: mild(z.detach()), 4, 3, proposal=name)
    for name in ("score", "lookahead"):
        align.smc(case_a, lambda z: mild(z.detach()), 4, 3, proposal=name)


def test_unknown_proposals_are_refused(case_a, mild):
    with pytest.raises(ValueError, match="^proposal: got 'twisted', expected one of lookahead, reparam, score, plugin"):
        align.smc(case_a, mild, 4, 3, proposal="twisted")
