"""Seeds of every algorithm: equal ones give equal results, and a population of its own ignores the others."""

import torch


def test_equal_seeds_give_equal_results(algorithm, glass, seeded, attracted, cond):
    one, other, third = (algorithm(glass, attracted, batch=3, cond=cond, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one.samples, other.samples)
    assert not torch.equal(one.samples, third.samples)


def test_the_global_state_is_neither_read_nor_moved(algorithm, glass, seeded, attracted, cond):
    before = torch.get_rng_state()
    fresh = [algorithm(glass, attracted, batch=3, cond=cond).samples for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(*fresh)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(algorithm(glass, attracted, batch=3, cond=cond, generator=seeded()).samples)
    assert torch.equal(*results)


def test_populations_ignore_which_others_run_beside_them(algorithm, glass, family, attracted, cond):
    together = algorithm(glass, attracted, batch=3, cond=cond, generator=family([5, 6, 7]))
    for row, seed in enumerate([5, 6, 7]):
        alone = algorithm(glass, attracted, cond=cond[row : row + 1], generator=family([seed]))
        for name in ("samples", "rewards", "log_weights"):
            assert torch.allclose(getattr(alone, name)[0], getattr(together, name)[row], rtol=1e-9, atol=1e-12), name
        assert torch.equal(alone.ancestors[:, 0], together.ancestors[:, row])
        assert alone.nfe == together.nfe and alone.reward_calls == together.reward_calls
