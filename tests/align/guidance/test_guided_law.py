"""Guidance: the flow of the tilted law and its discretisation.

On the line the tilted law's flow is known: it is the increasing map from the noise to the tilted law. So one sample at
a time can be held against it, with gradients of any accuracy.
"""

import io
import math

import pytest
import torch

import align

from diamond.interpolant import Cosine


def images(model, reward, transport, noise):
    """Where the exact flow of the tilted law takes the noise."""
    law = reward.law(model)
    return transport(noise, law.weights, law.means[:, 0], law.covariances.sqrt())


@pytest.mark.parametrize("path", [None, Cosine()], ids=["linear", "cosine"])
def test_score_guidance_converges_to_the_flow_of_the_tilted_law(path, evenly, pull, transport, seeded):
    """Sample by sample, and at first order: half the step, half the error."""
    errors = []
    for steps in (32, 64, 128):
        model = evenly(path)
        noise = model.prior(60, generator=seeded())[:, 0]
        out = align.guide(model, pull, 60, steps, 256, estimator="score", generator=seeded())
        errors.append(float((out.samples[0, :, 0] - images(model, pull, transport, noise)).abs().mean()))
    assert errors[2] < 0.02
    assert 1.6 < errors[0] / errors[1] < 2.5
    assert 1.6 < errors[1] / errors[2] < 2.5


def test_reparametrised_guidance_converges_to_the_flow_of_the_tilted_law(normal_law, quadratic, seeded):
    """On a Gaussian with few draws missing: the limit is the affine map to the tilted Gaussian."""
    model, reward = normal_law([0.5, -0.3], torch.eye(2, dtype=torch.float64) * 0.6), quadratic([-0.5, 0.5], 1.0)
    law = reward.law(model)
    noise = model.prior(25, generator=seeded())
    exact = law.mean() + noise * law.covariance()[0, 0].sqrt()
    out = align.guide(model, reward, 25, 24, 64, generator=seeded())
    gap = out.samples[0] - exact
    assert float((exact - noise).abs().mean()) > 0.3
    assert float(gap.abs().mean()) < 0.04
    assert float(gap.mean(0).abs().max()) < 0.015


@pytest.mark.parametrize("estimator, particles, mc", [("score", 1500, 96), ("reparam", 400, 32)])
def test_guided_samples_follow_the_tilted_law(estimator, particles, mc, case_a, mild, seeded, check_mean):
    """In the plane, with random draws: what the steps and draws leave is forgiven in advance, chance is not."""
    out = align.guide(case_a, mild, particles, 40, mc, estimator=estimator, generator=seeded())
    law, base = mild.law(case_a), case_a
    gap = out.samples[0] - law.mean()
    check_mean(gap, torch.zeros(2, dtype=torch.float64), limit=4, slack=0.02)
    check_mean(gap[:, :, None] * gap[:, None], law.covariance(), limit=4, slack=0.03)
    assert (law.mean() - base.mean()).abs().max() > 1  # so that following the base law would not pass


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("path", [None, Cosine()], ids=["linear", "cosine"])
def test_guided_diffusions_follow_the_tilted_law(eta, path, evenly, pull, seeded, check_mean):
    out = align.guide(evenly(path), pull, 2500, 64, 64, estimator="score", eta=eta, generator=seeded())
    law = pull.law(evenly(path))
    gap = out.samples[0, :, 0] - law.mean()
    check_mean(gap, torch.zeros((), dtype=torch.float64), limit=4, slack=0.015)
    check_mean(gap.square(), law.covariance()[0, 0], limit=4, slack=0.02)


def test_a_single_step_lands_on_the_mean_of_the_tilted_law(case_a, mild, seeded):
    """At t = 0, where the gradient is zero and its factor infinite, their product is the shift of the mean."""
    for estimator in ("score", "reparam"):
        out = align.guide(case_a, mild, 3, 1, 6000, estimator=estimator, generator=seeded())
        assert (out.samples[0] - mild.law(case_a).mean()).abs().max() < 0.08


def test_black_box_rewards_guide_by_their_scores(case_a, mild, seeded):
    """Counts of bytes and votes of judges have no derivative, and the same guidance."""

    def black_box(z):
        return torch.tensor([float(line) for line in io.StringIO("\n".join(map(str, mild(z).tolist())))], dtype=z.dtype)

    black, white = (align.guide(case_a, r, 20, 6, 5, estimator="score", generator=seeded()) for r in (black_box, mild))
    assert torch.allclose(black.samples, white.samples, rtol=1e-10)
    for estimator in ("reparam", "plugin"):
        with pytest.raises(ValueError, match="^reward: .*for a black-box reward take estimator='score'"):
            align.guide(case_a, black_box, 4, 3, estimator=estimator)


def test_hard_constraints_guide_by_their_scores(line, seeded, check_mean):
    """The law of the allowed half of the line, whose indicator has no derivative anywhere."""
    out = align.guide(
        line(), lambda z: torch.where(z[:, 0] < 0, 0.0, -torch.inf), 1500, 48, 96, estimator="score", generator=seeded()
    )
    z, model = out.samples[0, :, 0], line()
    means, deviations = model.means[:, 0], model.covariances.sqrt()
    edges = -means / deviations
    tails = torch.special.ndtr(edges)
    ratios = (-edges.square() / 2).exp() / (2 * math.pi) ** 0.5 / tails  # of density to mass, by which means give way
    weights, centres = model.weights * tails / (model.weights @ tails), means - deviations * ratios
    variances = model.covariances * (1 - edges * ratios - ratios.square())
    mean = weights @ centres
    assert float((z < 0).double().mean()) > 0.98
    check_mean(z, mean, limit=4, slack=0.02)
    check_mean((z - mean).square(), weights @ (variances + (centres - mean).square()), limit=4, slack=0.03)
