"""Guidance without scale, or of a constant reward, is the base sampler; eta is its share of fresh noise."""

import pytest
import torch

import align


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_without_scale_it_is_the_base_sampler(estimator, eta, case_a, mild, seeded, check_mean, as_flow):
    """Euler's method on the linear path without noise, sample by sample; the base law with it."""
    out = align.guide(case_a, mild, 2000, 40, 2, estimator=estimator, scale=0.0, eta=eta, generator=seeded())
    if eta == 0:
        expected = as_flow(case_a).sample(2000, 40, generator=seeded())
        assert torch.allclose(out.samples[0], expected, atol=1e-10)
    gap = out.samples[0] - case_a.mean()
    check_mean(gap, torch.zeros(2, dtype=torch.float64), limit=4, slack=0.02)
    check_mean(gap[:, :, None] * gap[:, None], case_a.covariance(), limit=4, slack=0.04)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.8, 1.0])
def test_eta_is_the_share_of_fresh_noise(eta, normal_law, mild, seeded, check_mean):
    """After one step from pure noise, of which DDPM keeps nothing: what is left of it is `sqrt(1 - eta^2)`."""
    model, seen = normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]]), []
    align.guide(model, mild, 5000, 2, estimator="plugin", scale=0.0, eta=eta, callback=seen.append, generator=seeded())
    before, after = model.prior(5000, generator=seeded()), seen[0].samples[0]
    noise = (after - 0.5 * model.mean()) / 0.5
    check_mean(noise * before, torch.full((2,), (1 - eta**2) ** 0.5, dtype=torch.float64), limit=4)
    check_mean(noise.square(), torch.ones(2, dtype=torch.float64), limit=4)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_without_scale_it_is_the_ancestral_sampler_too(eta, case_a, mild, seeded, as_flow):
    out = align.guide(case_a, mild, 50, 7, estimator="plugin", scale=0.0, eta=eta, generator=seeded())
    assert torch.allclose(out.samples[0], as_flow(case_a).sample(50, 7, eta=eta, generator=seeded()), atol=1e-10)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_constant_rewards_guide_nowhere(estimator, case_a, seeded):
    constant, unscaled = (
        align.guide(case_a, lambda z: 0 * z[:, 0] + 3, 20, 6, 4, estimator=estimator, scale=s, generator=seeded())
        for s in (1.0, 0.0)
    )
    assert torch.allclose(constant.samples, unscaled.samples, atol=1e-9)


@pytest.mark.parametrize("estimator", ["reparam", "score", "plugin"])
def test_a_constant_more_reward_changes_nothing(estimator, case_a, mild, seeded):
    plain, more = (
        align.guide(case_a, r, 20, 6, 4, estimator=estimator, eta=0.7, generator=seeded())
        for r in (mild, lambda z: mild(z) + 400)
    )
    assert torch.allclose(more.samples, plain.samples, rtol=1e-8, atol=1e-9)
