"""The samples of a pipeline's model are those of the pipeline itself, from the same seed, where its sampler is a first-order
one; and near them where it is not."""

import diffusers
import numpy as np
import pytest
import torch

import diamond

from examples.tiny_pipelines import NOISE

PROMPTS = ["a cat", "two dogs, in the rain"]
NEGATIVE = ["blurry", "a house by the sea"]
GUIDED = {"stable-diffusion-3": 4.0, "sana": 3.0, "stable-diffusion": 5.0, "stable-diffusion-xl-turbo": 6.0}


def shifted(**options):
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **options)


SCHEDULERS = {
    "SD, v prediction": (
        "stable-diffusion",
        diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1, **NOISE),
    ),
    "SD, no signal at first": (
        "stable-diffusion",
        diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing",
                                rescale_betas_zero_snr=True, **NOISE),
    ),
    "SDXL, Euler": (
        "stable-diffusion-xl-turbo",
        diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **NOISE),
    ),
    "SDXL, Euler, v prediction": (
        "stable-diffusion-xl-turbo", diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", **NOISE)
    ),
    "SDXL, Euler, trailing": (
        "stable-diffusion-xl-turbo", diffusers.EulerDiscreteScheduler(timestep_spacing="trailing", **NOISE)
    ),
    "SDXL, DDIM": ("stable-diffusion-xl-turbo", diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **NOISE)),
    "SD3, dynamic shift": ("stable-diffusion-3", shifted(use_dynamic_shifting=True)),
    "Flux, fixed shift": ("flux", shifted()),
    "Sana, no shift": ("sana", diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)),
}  # fmt: skip


LIMITS = {"SD, no signal at first": 1e-4}  # where the first step has a little signal for us, to have a time


def steps_of(name):
    """As many as the family's own sampler draws no noise in between; Sana-Sprint's is drawn alike."""
    return 1 if name == "stable-diffusion-xl-turbo" else 3


def test_samples_and_images_are_those_of_the_pipeline(name, loaded, model_of, own_call, seeded, close):
    pipe, steps = loaded(name), steps_of(name)
    sides = {"height": 64, "width": 96}
    extra = {"intermediate_timesteps": None} if name == "sana-sprint" else {}
    latents = own_call(pipe, name, "a cat", steps, generator=seeded(5), **sides, **extra)
    images = own_call(pipe, name, "a cat", steps, "pt", generator=seeded(5), **sides, **extra)
    model = model_of(name, **sides)
    found = model.sample(1, steps, generator=seeded(5))
    assert found.shape == (1, *model.event_shape) and found.dtype == torch.float32
    close(found, latents)
    assert images.shape == (1, 3, 64, 96)
    close((model.decode(found) + 1) / 2, images)
    assert float(latents.std()) > 0.1 and float(images.std()) > 1e-3


def test_pictures_are_those_of_the_pipeline(name, loaded, model_of, own_call, seeded):
    model = model_of(name)
    extra = {"intermediate_timesteps": None} if name == "sana-sprint" else {}
    expected = own_call(loaded(name), name, "a cat", 1, "pil", generator=seeded(2), **extra)[0]
    (found,) = model.images(model.sample(1, 1, generator=seeded(2)))
    assert (found.mode, found.size) == (expected.mode, expected.size) == ("RGB", (64, 64))
    gap = np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int))
    assert gap.max() <= 1 and np.asarray(found).std() > 0.5


@pytest.mark.parametrize("name", GUIDED)
def test_prompts_with_negative_prompts_of_their_own(name, loaded, model_of, own_call, seeded, close):
    """Two prompts of different lengths, under classifier-free guidance, in one call."""
    steps, scale = steps_of(name), GUIDED[name]
    options = {"negative_prompt": NEGATIVE, "guidance_scale": scale, "generator": seeded(1)}
    expected = own_call(loaded(name), name, PROMPTS, steps, **options)
    model = model_of(name, PROMPTS, negative_prompt=NEGATIVE, guidance_scale=scale)
    assert model.network.guided and model.prompts == PROMPTS
    found = model.sample(2, steps, cond=model.cond, generator=seeded(1))
    close(found, expected)
    exchanged = model.sample(2, steps, cond=model.cond.flip(0), generator=seeded(1))
    assert float((exchanged - found).abs().max()) > 1e-3


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("negative", [None, "", "blurry"])
def test_one_negative_prompt_or_none(name, negative, loaded, model_of, own_call, seeded, close):
    given = {"guidance_scale": GUIDED[name]} | ({} if negative is None else {"negative_prompt": negative})
    expected = own_call(loaded(name), name, "a cat", 1, generator=seeded(1), **given)
    close(model_of(name, **given).sample(1, 1, generator=seeded(1)), expected)


@pytest.mark.parametrize("name", GUIDED)
def test_without_classifier_free_guidance(name, loaded, model_of, own_call, seeded, close):
    steps = steps_of(name)
    expected = own_call(loaded(name), name, PROMPTS, steps, guidance_scale=1.0, generator=seeded(1))
    model = model_of(name, PROMPTS, guidance_scale=1.0)
    assert not model.network.guided
    close(model.sample(2, steps, cond=model.cond, generator=seeded(1)), expected)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers(kind, fresh, model_of, own_call, seeded, close):
    name, scheduler = SCHEDULERS[kind]
    pipe = fresh(name)
    pipe.scheduler = scheduler
    scale = GUIDED.get(name, 3.5)
    model = model_of(name, pipe=pipe, guidance_scale=scale, width=128)
    expected = own_call(pipe, name, "a cat", 5, guidance_scale=scale, width=128, generator=seeded(3))
    close(model.sample(1, 5, generator=seeded(3)), expected, LIMITS.get(kind, 1e-5))


PUBLISHED = {  # with Stable Diffusion 1.5, and how far from its own samples ours are, relative to them
    "its scheduler, of fourth order": (
        diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, **NOISE), 1e-3, 0.05
    ),
    "DDIM, which stops a step before the data": (
        diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **NOISE), 1e-4, 2e-3
    ),
    "DPM-Solver of order 1": (
        diffusers.DPMSolverMultistepScheduler(solver_order=1, steps_offset=1, **NOISE), 0.0, 1e-5
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_samples_beside_other_samplers(kind, fresh, model_of, own_call, seeded):
    """Theirs are of the same model, but not the same: the gap is that of their order, or of the noise that they leave."""
    scheduler, least, most = PUBLISHED[kind]
    pipe = fresh("stable-diffusion")
    pipe.scheduler = scheduler
    expected = own_call(pipe, "stable-diffusion", "a cat", 10, guidance_scale=7.5, generator=seeded(3))
    found = model_of("stable-diffusion", pipe=pipe, guidance_scale=7.5).sample(1, 10, generator=seeded(3))
    assert least <= float((found - expected).norm() / expected.norm()) < most


def test_noise_that_a_scheduler_leaves(fresh, model_of, own_call, seeded, close):
    """With `set_alpha_to_one=False` the last state is that of the first step of the training, not the data."""
    pipe = fresh("stable-diffusion")
    pipe.scheduler = PUBLISHED["DDIM, which stops a step before the data"][0]
    theirs = own_call(pipe, "stable-diffusion", "a cat", 1, guidance_scale=7.5, generator=seeded(3))
    model = model_of("stable-diffusion", pipe=pipe, guidance_scale=7.5)
    found = model.sample(1, 1, generator=seeded(3))
    start = torch.randn(1, *model.event_shape, generator=seeded(3))
    at, end = (float(pipe.scheduler.alphas_cumprod[step]) for step in (1, 0))
    noise = (start - at**0.5 * found) / (1 - at) ** 0.5
    close(end**0.5 * found + (1 - end) ** 0.5 * noise, theirs, 1e-4)


def test_levels_of_a_flow_map_are_those_of_a_flow(fresh, model_of, seeded):
    pipe = fresh("flux")
    pipe.scheduler = diffusers.FlowMapEulerDiscreteScheduler(shift=3.0)
    model = model_of("flux", pipe=pipe, kind="flow-map")
    levels = np.linspace(1, 0, 5)
    np.testing.assert_allclose(model.times(4), 1 - 3 * levels / (1 + 2 * levels), rtol=0, atol=1e-12)
    assert model.sample(1, 2, generator=seeded(1)).isfinite().all()


def test_levels_of_a_flow_in_other_schedulers(fresh, model_of):
    """Sana's published scheduler, whose levels are a flow's, but which tells its network whole steps."""
    pipe = fresh("sana")
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    model = model_of("sana", pipe=pipe)
    levels = np.linspace(1 - 1e-3, 0, 7)[:-1]
    times = 1 - 3 * levels / (1 + 2 * levels)
    np.testing.assert_allclose(model.times(6)[1:-1], times[1:], rtol=0, atol=1e-3)
    assert model.times(6)[0] == 0 and model.times(6)[-1] == 1


@pytest.mark.parametrize("kind", ["PNDMScheduler", "HeunDiscreteScheduler", "LCMScheduler", "UniPCMultistepScheduler"])
def test_times_rise_with_schedulers_that_stand_at_some_twice(kind, fresh, model_of):
    pipe = fresh("stable-diffusion")
    options = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    pipe.scheduler = getattr(diffusers, kind)(**NOISE, **options)
    model = model_of("stable-diffusion", pipe=pipe)
    times = model.times(6)
    assert bool((times.diff() > 0).all()) and times[0] == 0 and times[-1] == 1 and 6 <= len(times) <= 7
    assert model.sample(1, 6).isfinite().all()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_sprint_takes_the_steps_of_its_own_sampler(steps, loaded, model_of, own_call, seeded, close):
    """Between two steps noise is drawn afresh, from the same generator in the same order."""
    extra = {} if steps == 2 else {"intermediate_timesteps": None}
    expected = own_call(loaded("sana-sprint"), "sana-sprint", PROMPTS, steps, generator=seeded(4), **extra)
    model = model_of("sana-sprint", PROMPTS)
    found = model.sample(2, steps, cond=model.cond, generator=seeded(4))
    close(found, expected)


@pytest.mark.parametrize("kind", ["flow", "few-step"])
def test_turbo_in_one_step_is_a_flow_and_a_map(kind, loaded, model_of, own_call, seeded, close):
    name = "stable-diffusion-xl-turbo"
    expected = own_call(loaded(name), name, "a cat", 1, generator=seeded(4))
    close(model_of(name, kind=kind).sample(1, 1, generator=seeded(4)), expected)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("flux", {"prompt_2": "a hat"}),
        ("stable-diffusion-3", {"prompt_2": "a hat", "prompt_3": "a bat", "negative_prompt_3": "a rat"}),
        ("stable-diffusion-xl-turbo", {"prompt_2": "a hat", "negative_prompt_2": "a rat", "guidance_scale": 3.0}),
    ],
)
def test_second_prompts_are_told_to_the_second_encoders(name, texts, loaded, model_of, own_call, seeded, close):
    """As in the pipeline's own call; and two prompts share them."""
    expected = own_call(loaded(name), name, "a cat", 1, generator=seeded(1), **texts)
    close(model_of(name, **texts).sample(1, 1, generator=seeded(1)), expected)
    several = model_of(name, ["two dogs", "a cat"], **texts)
    close(several.sample(1, 1, cond=torch.tensor([1]), generator=seeded(1)), expected)
    options = {key: value for key, value in texts.items() if key == "guidance_scale"}
    bare = model_of(name, **options).sample(1, 1, generator=seeded(1))
    assert float((bare - expected).abs().max()) > 1e-4


@pytest.mark.parametrize(("name", "steps"), [("sana", 1), ("sana-sprint", 2)])
def test_sana_instructs_its_text_encoder_as_the_pipeline_does(name, steps, loaded, seeded, close):
    """The pipelines' own default calls put an instruction before the prompt; nothing is given here."""
    sides = {"height": 64, "width": 64}
    own = {**sides, "num_inference_steps": steps, "output_type": "latent", "use_resolution_binning": False}
    expected = loaded(name)("a cat", generator=seeded(2), **own).images
    model = diamond.from_pipeline(loaded(name), "a cat", **sides)
    close(model.sample(1, steps, generator=seeded(2)), expected)
    bare = diamond.from_pipeline(loaded(name), "a cat", complex_human_instruction=None, **sides)
    assert float((bare.sample(1, steps, generator=seeded(2)) - expected).abs().max()) > 1e-3


def test_usual_sizes_and_guidance_are_the_pipelines(name, loaded, model_of, seeded):
    """What is not given is what the pipeline's own call takes."""
    import inspect

    pipe = loaded(name)
    model = model_of(name, height=None, width=None, guidance_scale=None)
    usual = inspect.signature(type(pipe).__call__).parameters["guidance_scale"].default
    assert model.network.guidance_scale == usual
    side = {"flux": 1024, "sana": 64, "sana-sprint": 64}.get(name, 64)
    assert model.event_shape[1] * pipe.vae_scale_factor == side
    assert model.event_shape[1] == model.event_shape[2]
