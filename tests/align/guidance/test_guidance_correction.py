"""Corrected guidance: weights that make the guided walk the tilt of the unguided one."""

import math

import pytest
import torch

import align

from align.resampling import ess

CORRECTED = {
    "score": {"estimator": "score", "mc": 4, "eta": 1.0, "scale": 0.5},
    "plugin": {"estimator": "plugin", "eta": 0.7, "scale": 0.4},
    "constant": {"estimator": "plugin", "eta": 0.7, "strength": "constant", "scale": 0.5},
    "drift": {"estimator": "plugin", "eta": 0.5, "strength": "drift", "scale": 0.1},
    "interval": {"estimator": "plugin", "eta": 1.0, "interval": (0.4, 1.0), "scale": lambda t: t},
}


@pytest.mark.parametrize("name", CORRECTED)
def test_corrected_guidance_is_the_tilt_of_the_unguided_walk(name, case_a, gentle, seeded, check_mean, as_flow):
    """Its evidence and weighted moments, unbiased for any number of particles, against importance sampling of the
    plain walk of the same few steps, which is far from the model's own law."""
    options = CORRECTED[name]
    plain = as_flow(case_a).sample(100_000, 4, eta=options["eta"], generator=seeded(1))
    weights = gentle(plain).exp()
    out = align.guide(case_a, gentle, 16, 4, batch=1500, correct=True, generator=seeded(), **options)

    def features(z):
        return torch.cat([torch.ones_like(z[..., :1]), z, z.square(), z[..., :1] * z[..., 1:]], dim=-1)

    reference = weights[:, None] * features(plain)
    expected, error = reference.mean(0), reference.std(0) / 100_000**0.5
    guided = torch.einsum("bk,bkf->bf", out.log_weights.softmax(-1), features(out.samples))
    check_mean(out.log_z.exp()[:, None] * guided, expected, limit=4, slack=3 * error)
    assert (out.log_weights - out.rewards).std() > 0.05
    assert torch.allclose(out.log_z, out.log_weights.logsumexp(1) - math.log(16))


def test_without_scale_the_corrected_weights_are_the_rewards(case_a, mild, seeded):
    out = align.guide(case_a, mild, 20, 5, estimator="plugin", scale=0.0, eta=0.8, correct=True, generator=seeded())
    assert torch.allclose(out.log_weights, out.rewards, atol=1e-12)
    assert torch.allclose(out.ess[-1], ess(out.rewards))
    assert torch.allclose(out.log_z, out.rewards.exp().mean(1).log())


def test_guidance_makes_the_corrected_weights_even(case_a, mild, seeded):
    guided, plain = (
        align.guide(
            case_a, mild, 2000, 32, 16, estimator="score", scale=scale, eta=1.0, correct=True, generator=seeded()
        ).ess[-1]
        for scale in (1.0, 0.0)
    )
    assert float(guided) > 1.3 * float(plain)


UNUSED = {
    "no noise": ({"correct": True}, "^correct: got True with eta=0"),
    "no draws": ({"antithetic": True, "estimator": "plugin"}, "^antithetic: got True with estimator='plugin'"),
    "strength": ({"strength": "weak"}, "^strength: got 'weak', expected one of exact, constant, drift"),
    "interval": ({"interval": (0.7, 0.3)}, r"^interval: got \(0.7, 0.3\)"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_options_that_contradict_each_other_are_refused(case, case_a, mild):
    changed, message = UNUSED[case]
    with pytest.raises(ValueError, match=message):
        align.guide(case_a, mild, 4, 3, **changed)
