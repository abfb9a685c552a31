"""The samples of a pipeline's model are those of the pipeline itself, from the same seed."""

import diffusers
import numpy as np
import pytest
import torch

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
