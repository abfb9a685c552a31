"""Costs of two processes are those of one; what they join is in their order, and one process changes nothing."""

import pytest
import torch

import align

COSTS = {
    "smc": {"algorithm": "smc", "particles": 4, "steps": 3, "mc": 3, "ess_threshold": 1.0},
    "lookahead": {"algorithm": "smc", "particles": 4, "steps": 3, "mc": 3, "proposal": "lookahead"},
    "reparam": {"algorithm": "smc", "particles": 4, "steps": 3, "mc": 3, "proposal": "reparam"},
    "search": {"algorithm": "search", "particles": 4, "branch": 2, "steps": 3, "mc": 3},
    "best_of_n": {"algorithm": "best_of_n", "n": 4, "steps": 3},
}


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("settings", COSTS)
def test_costs_are_sums_and_rows_get_what_is_theirs(settings, each, both, member, agreed):
    """Costs as those of one process; conditioning, rewards and their parts as those of the rows they stand for."""
    out = agreed(both("conditioned", each=each, **COSTS[settings]))
    alone = member.conditioned(None, each=each, **COSTS[settings])
    assert (out.nfe, out.nfe_backward, out.reward_calls) == (alone.nfe, alone.nfe_backward, alone.reward_calls)
    assert out.nfe > 0 and out.reward_calls > 0 and (out.nfe_backward > 0) == (settings == "reparam")
    expected = member.followed(out.samples, member.COND[:, None])
    if each:
        expected[1] = out.samples[1, :, 0]
    assert torch.allclose(out.rewards, expected, rtol=1e-12)
    assert out.components.keys() == alone.components.keys() == (set() if each else {"near", "first"})
    if not each:
        assert torch.equal(out.components["near"], out.rewards)
        assert torch.equal(out.components["first"], out.samples[..., 0])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_tensors_of_any_number_type_are_joined_in_the_order_of_the_processes(dtype, both):
    answers = both("gathered", dtype=dtype)
    rows = [[0, 1, 2, 10, 11, 12], [3, 4, 5, 13, 14, 15]]
    expected = [[float(min(x, 1) if dtype == "bool" else x) for x in row] for row in rows]
    assert answers == [[expected, f"torch.{dtype}", True, 7]] * 2


@pytest.mark.parametrize("settings", COSTS)
def test_an_accelerator_of_one_process_changes_nothing(settings, seeded, case_a, gentle, same):
    from accelerate import Accelerator

    options = dict(COSTS[settings])
    run = getattr(align, options.pop("algorithm"))
    one, other = (
        run(case_a, gentle, batch=2, generator=seeded(3), accelerator=accelerator, **options)
        for accelerator in (None, Accelerator(cpu=True))
    )
    same(one, other, but="seconds")
