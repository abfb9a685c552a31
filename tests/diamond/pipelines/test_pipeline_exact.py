"""Posteriors, transitions and evidence of pipelines whose network is known: Gaussian latents, seen through each prediction.

The network is asked in diffusers' own terms, at a step and a state of its own path, and answers with the exact mean of
what it was trained to predict. All that the adapter does to it, the change of path and of time, must then come out as the
GLASS flow of the same Gaussian in closed form, draw by draw, and the evidence as the Gaussian integral.
"""

import diffusers
import pytest
import torch

import align

from diamond.adapters.pipelines.stable_diffusion import StableDiffusionNetwork
from diamond.adapters.pipelines.stable_diffusion_3 import StableDiffusion3Network
from diamond.glass import GlassFlow
from diamond.mixture import GaussianMixtureFlow

MEAN, VARIANCE, STEPS = 0.7, 0.4, 6
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def means(x, a, s):
    """`E[z | x]` and `E[eps | x]` for `x = a z + s eps` and `z ~ N(MEAN, VARIANCE)`, by the rule of conditional Gaussians."""
    excess = (x - a * MEAN) / (a**2 * VARIANCE + s**2)
    return MEAN + a * VARIANCE * excess, s * excess


class ExactDiffusion(StableDiffusionNetwork):
    """The exact answer of a variance-preserving network, its schedule looked up in the scheduler's own table."""

    def _ask(self, x, step, embeddings, **more):
        kept = self.pipe.scheduler.alphas_cumprod.double()
        low = step.double().floor().clamp(0, len(kept) - 2).long()
        signal = torch.lerp(kept.logit()[low], kept.logit()[low + 1], step.double() - low).sigmoid().float()
        a, s = signal.sqrt().reshape(-1, 1, 1, 1), (1 - signal).sqrt().reshape(-1, 1, 1, 1)
        z, noise = means(x, a, s)
        kind = self.pipe.scheduler.config.prediction_type
        return {"epsilon": noise, "v_prediction": a * noise - s * z, "sample": z}[kind]


class ExactFlow(StableDiffusion3Network):
    """The exact answer of a flow network: noise less data, at the noise level of a thousandth of the step."""

    def _ask(self, x, step, embeddings):
        level = (step / 1000).reshape(-1, 1, 1, 1)
        z, noise = means(x, 1 - level, level)
        return noise - z


@pytest.fixture(params=["epsilon", "v_prediction", "sample", "flow"])
def pair(request, fresh):
    """A pipeline's model and the Gaussian itself, with as many inner steps."""
    import diamond

    options = {"height": 32, "width": 32, "glass_steps": STEPS, "guidance_scale": 1.0}
    if request.param == "flow":
        model = diamond.from_pipeline(fresh("stable-diffusion-3"), "", network=ExactFlow, **options)
    else:
        pipe = fresh("stable-diffusion")
        pipe.scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type=request.param, **NOISE)
        model = diamond.from_pipeline(pipe, "", network=ExactDiffusion, **options)
    size = torch.Size(model.event_shape).numel()
    exact = GaussianMixtureFlow(torch.ones(1), torch.full((1, size), MEAN), torch.tensor([VARIANCE]))
    return model, GlassFlow(exact, STEPS)


@pytest.mark.parametrize("t", [0.25, 0.5, 0.8])
def test_draws_are_those_of_the_gaussian(pair, t, seeded):
    """Posterior draws and transitions of two correlations, from the same noise. Later inner steps would meet the end of the
    diffusions' schedule, at an effective time of 0.97."""
    model, exact = pair
    x_t = t * MEAN + torch.randn(3, *model.event_shape, generator=seeded(0))
    flat = x_t.flatten(1)
    found = model.posterior(x_t, t, 4, generator=seeded(1)).flatten(2)
    torch.testing.assert_close(found, exact.posterior(flat, t, 4, generator=seeded(1)), rtol=0, atol=2e-4)
    for rho in (None, 0.3):
        found = model.transition(x_t, t, t + 0.08, rho=rho, generator=seeded(2)).flatten(1)
        expected = exact.transition(flat, t, t + 0.08, rho=rho, generator=seeded(2))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


def test_evidence_is_the_gaussian_integral(pair, seeded):
    """Of a linear reward: `log E exp(c . z) = c . m + |c|^2 v / 2`, through the adapter's transitions and values."""
    model, _ = pair
    slope = torch.randn(model.event_shape, generator=seeded(3)) / torch.Size(model.event_shape).numel() ** 0.5
    expected = MEAN * float(slope.sum()) + VARIANCE / 2 * float(slope.square().sum())

    def reward(z):
        return (z * slope).flatten(1).sum(1)

    out = align.smc(model, reward, particles=64, steps=4, mc=2, batch=32, generator=seeded(4))
    log_z, error = out.evidence()
    assert abs(log_z - expected) < 4 * error + 0.02, (log_z, expected, error)  # 0.02: six inner steps
