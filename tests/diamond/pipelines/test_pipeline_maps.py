"""Few-step and two-time networks as flow maps, and networks that are told their guidance, or not."""

import diffusers
import pytest
import torch

import diamond

from diamond.randomness import seeded as drawn_from
from examples.tiny_pipelines import DIM, NOISE, unet


@pytest.fixture
def latent_consistency(fresh):
    """A pipeline whose U-Net is told its guidance scale."""
    pipe = fresh("stable-diffusion")
    with drawn_from(0):
        pipe.unet = unet(cross_attention_dim=DIM, attention_head_dim=4, time_cond_proj_dim=16)
    pipe.scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **NOISE)
    return pipe


@pytest.fixture
def unguided_flux(fresh):
    """A Flux without a guidance scale, as its distilled "schnell" is."""
    pipe = fresh("flux")
    with drawn_from(1):
        pipe.transformer = diffusers.FluxTransformer2DModel.from_config(
            {**pipe.transformer.config, "guidance_embeds": False}
        ).eval()
    return pipe


def test_a_latent_consistency_model_is_told_its_guidance(latent_consistency, model_of, own_call, seeded, close):
    options = {"guidance_scale": 7.5, "generator": seeded(1)}
    expected = own_call(latent_consistency, "stable-diffusion", "a cat", 3, **options)
    model = model_of("stable-diffusion", pipe=latent_consistency, guidance_scale=7.5)
    assert not model.network.guided and model.network.evaluations == 1
    close(model.sample(1, 3, generator=seeded(1)), expected)
    other = model_of("stable-diffusion", pipe=latent_consistency, guidance_scale=2.0)
    assert float((other.sample(1, 3, generator=seeded(1)) - expected).abs().max()) > 1e-3


def test_flux_without_guidance(unguided_flux, model_of, own_call, seeded, close):
    expected = own_call(unguided_flux, "flux", "a cat", 3, generator=seeded(1))
    model = model_of("flux", pipe=unguided_flux)
    close(model.sample(1, 3, generator=seeded(1)), expected)
    close(model_of("flux", pipe=unguided_flux, guidance_scale=1.0).sample(1, 3, generator=seeded(1)), expected)


def embedding_of(pipe, t, guidance, pooled):
    """The embedding of one noise level, guidance and text, written out."""
    parts = pipe.transformer.time_text_embed
    if guidance is None:
        return parts.timestep_embedder(parts.time_proj(1000 * (1 - t))) + parts.text_embedder(pooled)
    told = parts.guidance_embedder(parts.time_proj(1000 * torch.full_like(t, guidance)))
    return parts.timestep_embedder(parts.time_proj(1000 * (1 - t))) + told + parts.text_embedder(pooled)


class Given(torch.nn.Module):
    """An embedding that is what it was made with."""

    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding

    def forward(self, *told):
        return self.embedding


@pytest.mark.parametrize("guidance", [3.5, None])
def test_a_flow_map_is_told_two_times(guidance, fresh, unguided_flux, model_of, seeded, close):
    """`X_{t,r}(x) = x + (r - t) v(x, t, r)`, where the embeddings at t and r are averaged."""
    pipe = fresh("flux") if guidance else unguided_flux
    model = model_of("flux", pipe=pipe, kind="flow-map", guidance_scale=guidance)
    x = torch.randn(3, *model.event_shape, generator=seeded(1))
    t, r = torch.tensor([0.1, 0.4, 0.0]), torch.tensor([0.5, 1.0, 0.9])
    found = model.flow_map(x, t, r)

    pooled = pipe.encode_prompt("a cat", None, device="cpu", max_sequence_length=32)[1].expand(3, -1)
    both = [embedding_of(pipe, time, guidance, pooled) for time in (t, r)]
    diagonal = model_of("flux", pipe=pipe, guidance_scale=guidance)
    own, pipe.transformer.time_text_embed = pipe.transformer.time_text_embed, Given((both[0] + both[1]) / 2)
    averaged = diagonal.velocity(x, t)  # whatever time is told, the embedding is the given one
    pipe.transformer.time_text_embed = own
    close(found, x + (r - t).reshape(-1, 1, 1, 1) * averaged)
    assert float((averaged - diagonal.velocity(x, t)).abs().max()) > 1e-4


def test_a_flow_map_at_one_time_is_the_flow(fresh, model_of, seeded, close):
    pipe = fresh("flux")
    flow, two_times = model_of("flux", pipe=pipe), model_of("flux", pipe=pipe, kind="flow-map")
    x, t = torch.randn(2, *flow.event_shape, generator=seeded(1)), torch.tensor([0.2, 0.9])
    close(two_times.velocity(x, t), flow.velocity(x, t))
    close(two_times.denoise(x, t), flow.denoise(x, t))
    torch.testing.assert_close(two_times.flow_map(x, t, t), x)


def test_a_flow_map_leaves_the_transformer_as_it_is(fresh, model_of, seeded):
    """So that the pipeline can still be saved, and other models made of it."""
    pipe = fresh("flux")
    before = list(pipe.transformer.state_dict())
    model = model_of("flux", pipe=pipe, kind="flow-map")
    x = torch.randn(1, *model.event_shape, generator=seeded(1), requires_grad=True)
    model.flow_map(x, 0.2, 0.7).sum().backward()
    assert list(pipe.transformer.state_dict()) == before
    assert not pipe.transformer.time_text_embed._forward_hooks


def test_gradients_of_a_flow_map_recompute_both_times(fresh, model_of, seeded, close):
    pipe, slopes = fresh("flux"), []
    for checkpoint in (True, False):
        model = model_of("flux", pipe=pipe, kind="flow-map", checkpoint=checkpoint)
        x = torch.randn(2, *model.event_shape, generator=seeded(1), requires_grad=True)
        slopes.append(torch.autograd.grad(model.flow_map(x, 0.2, 0.9).square().sum(), x)[0])
    close(*slopes)


def test_samples_of_a_flow_map_jump_to_the_data(fresh, model_of, seeded, close):
    model = model_of("flux", pipe=fresh("flux"), kind="flow-map")
    start = torch.randn(2, *model.event_shape, generator=seeded(5))
    close(model.sample(2, 1, generator=seeded(5)), model.flow_map(start, 0.0, 1.0))


@pytest.mark.parametrize("name", ["sana-sprint", "stable-diffusion-xl-turbo"])
def test_few_step_models_are_weighted_maps(name, model_of, seeded, close):
    """Their jump to the data is the endpoint of their velocity, whatever the second time."""
    model = model_of(name, kind="few-step", snr=2.5, proposals=3)
    assert isinstance(model, diamond.WeightedDiamondMap) and (model.snr, model.proposals) == (2.5, 3)
    x, t = torch.randn(2, *model.event_shape, generator=seeded(1)), torch.tensor([0.1, 0.6])
    close(model.flow_map(x, t, 1.0), model.denoise(x, t))
    z, log_weights = model.weighted_posterior(x, t, 5, generator=seeded(2))
    assert z.shape == (5, 2, *model.event_shape) and log_weights.shape == (5, 2)
    assert z.isfinite().all() and log_weights.isfinite().all() and log_weights.dtype == torch.float32
    moved = model.transition(x, t, 0.8, generator=seeded(3))
    assert moved.shape == x.shape and moved.isfinite().all()


def test_one_proposal_that_outweighs_the_rest_is_warned_of(model_of, seeded):
    """As in latents of thousands of numbers, with as few proposals as there are by default."""
    import align

    from align.rewards import Brightness, Decoded

    model = model_of("sana-sprint")
    assert model.proposals == 4
    x = torch.randn(2, *model.event_shape, generator=seeded(1))
    with pytest.warns(diamond.DegenerateWeights, match="the largest effective sample size is 1 of 4 draws at snr=3"):
        model.posterior(x, 0.5, generator=seeded(2))
    with pytest.warns(diamond.DegenerateWeights, match="the largest effective sample size is 1 of 4 draws at snr=3"):
        align.smc(model, Decoded(Brightness(), model), 2, 2, mc=4, generator=seeded(3))


@pytest.mark.parametrize("name", ["flux", "stable-diffusion"])
def test_flows_draw_from_their_posterior(name, model_of, seeded):
    model = model_of(name, glass_steps=2)
    assert isinstance(model, diamond.GlassFlow) and model.steps == 2
    x = torch.randn(2, *model.event_shape, generator=seeded(1))
    draws = model.posterior(x, 0.3, 3, generator=seeded(2))
    assert draws.shape == (3, *x.shape) and draws.isfinite().all()
    assert float(draws.std(0).mean()) > 0.05
    moved = model.transition(x, 0.3, 0.4, generator=seeded(3))
    assert moved.shape == x.shape and moved.isfinite().all()
