"""Ancestors lead back to the start, and populations resample and run alone."""

import pytest
import torch

import align

POPULATIONS, PARTICLES = 1000, 64  # of a run


@pytest.mark.parametrize("resampling", ["systematic", "stratified", "residual", "multinomial"])
def test_ancestors_lead_back_to_the_start(resampling, still):
    """Particles that never move are found again where their ancestors say, with the weights of their lineage."""
    seen = []
    out = align.smc(
        still, lambda z: 2 * z[:, 0], 10, 5, batch=3, ess_threshold=0.9, resampling=resampling, callback=seen.append,
        generator=torch.Generator().manual_seed(0), value=lambda x, t: (1 + t) * x[:, 0],
    )  # fmt: skip
    assert out.ancestors.shape == (5, 3, 10)
    assert not torch.equal(out.ancestors[1:], torch.arange(10).expand(4, 3, 10))
    log_w = torch.zeros(3, 10, dtype=torch.float64)
    before, start = None, seen[0].samples
    origin = torch.arange(10).expand(3, 10)
    for step, ancestors in zip(seen, out.ancestors, strict=True):
        if before is not None:
            resampled = (ancestors != torch.arange(10)).any(1)
            moved = before.samples.gather(1, ancestors[..., None])
            assert torch.equal(step.samples, moved)
            was, now = 1 + before.t, 1 + step.t
            log_w = torch.where(resampled[:, None], 0.0, log_w) + (now - was) * moved.squeeze(-1)
            assert torch.allclose(step.log_weights, log_w, atol=1e-12)
            origin = origin.gather(1, ancestors)
        else:
            log_w = (1 + step.t) * step.samples.squeeze(-1)
        before = step
    assert torch.equal(out.samples, start.gather(1, origin[..., None]))


def test_populations_are_resampled_only_where_they_need_it(case_a, hard, run, values):
    """A population resampled at a step began it with a low effective size; the others kept everyone, and weights."""
    out = run(case_a, hard, populations=50, steps=8, **values["exact"](case_a, hard))
    stayed = (out.ancestors == torch.arange(PARTICLES)).all(-1)
    enough = out.ess >= 0.5 * PARTICLES
    assert stayed[0].all()
    assert torch.equal(stayed[1:], enough[:-1])
    assert stayed[1:].any() and not stayed[1:].all()


def test_a_population_ignores_which_others_run_beside_it(case_a, mild, family):
    """Even where some need resampling and others do not, and whatever the chunk."""
    options = {"particles": 16, "steps": 6, "mc": 3}
    together = align.smc(case_a, mild, batch=6, generator=family(range(6)), **options)
    stayed = (together.ancestors == torch.arange(16)).all(-1)
    assert (stayed[1:].any(1) & ~stayed[1:].all(1)).any()
    for row in range(6):
        for chunk in (None, 7):
            alone = align.smc(case_a, mild, generator=family([row]), chunk=chunk, **options)
            assert torch.allclose(together.samples[row], alone.samples[0], rtol=1e-10)
            assert torch.allclose(together.log_z[row], alone.log_z[0], rtol=1e-10)
            assert torch.equal(together.ancestors[:, row], alone.ancestors[:, 0])


def test_populations_of_one_call_are_independent_of_each_other(case_a, mild, run, values):
    """The evidence of the first half of the populations says nothing of the second's."""
    out = run(case_a, mild, seed=10, **values["exact"](case_a, mild))
    halves = out.log_z.reshape(2, -1)
    assert abs(float(torch.corrcoef(halves)[0, 1])) < 4 / (POPULATIONS / 2) ** 0.5
