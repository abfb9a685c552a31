"""Noise of two processes: all numbers are drawn once, and each population has its own."""

import pytest
import torch


@pytest.mark.parametrize("seeds", [0, [5, 6, 7, 8]])
def test_no_two_processes_or_populations_draw_the_same_numbers(seeds, both, check_mean, agreed):
    batch = 400 if seeds == 0 else 4
    out = agreed(both("still", algorithm="best_of_n", seeds=seeds, n=400 // batch * 10, batch=batch))
    assert len(out.samples.unique()) == out.samples.numel()
    one, other = out.samples.chunk(2, dim=1)
    check_mean((one * other).flatten(), torch.zeros((), dtype=torch.float64))


def test_generators_beside_the_first_processes_do_not_matter(both, agreed, same):
    """Those of the second process are seeded by another number in every case here; this checks that the first one's are
    used at all."""
    options = {"algorithm": "smc", "particles": 4, "steps": 2, "batch": 3}
    one, again, other = (agreed(both("plain", seeds=seeds, **options)) for seeds in (1, 1, 2))
    same(one, again, but="seconds")
    assert not torch.equal(one.samples, other.samples)


@pytest.mark.parametrize("algorithm", ["smc", "search", "best_of_n"])
def test_populations_of_their_own_generators_ignore_the_others(algorithm, both, agreed):
    options = {"algorithm": algorithm, "n" if algorithm == "best_of_n" else "particles": 4, "steps": 3}
    together = agreed(both("plain", seeds=[5, 6, 7], batch=3, **options))
    alone = agreed(both("plain", seeds=[6], batch=1, **options))
    for name in ("samples", "rewards", "log_weights"):
        assert torch.allclose(getattr(together, name)[1], getattr(alone, name)[0], rtol=1e-9, atol=1e-12), name
    assert torch.equal(together.ancestors[:, 1], alone.ancestors[:, 0])


@pytest.mark.parametrize("proposal", [None, "lookahead"])
def test_results_do_not_depend_on_the_chunk(proposal, both, agreed):
    options = {"algorithm": "smc", "particles": 6, "steps": 3, "mc": 3, "batch": 3, "proposal": proposal}
    whole, parts = (agreed(both("plain", chunk=chunk, ess_threshold=1.0, **options)) for chunk in (None, 2))
    assert torch.equal(whole.ancestors, parts.ancestors)
    assert torch.allclose(whole.samples, parts.samples, rtol=1e-9, atol=1e-12)
