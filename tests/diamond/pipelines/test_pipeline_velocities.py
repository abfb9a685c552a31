"""Velocities against direct calls of each pipeline's network, back and forth, and the three faces of one network."""

import pytest
import torch

from diamond.adapters.diffusers_path import TrainedPath, log_snr_of
from examples.tiny_pipelines import CALLS, NOISE

PROMPTS, NEGATIVE = ["a cat", "two dogs"], ["blurry", ""]
ENCODING = ("max_sequence_length", "complex_human_instruction")
PREDICTIONS = ["epsilon", "v_prediction", "sample", "flow"]


def encoded(pipe, name, texts, **options):
    """The embeddings of texts without guidance, and for Sana their mask."""
    options |= {key: value for key, value in CALLS[name].items() if key in ENCODING}
    if name == "sana":
        return pipe.encode_prompt(texts, do_classifier_free_guidance=False, device="cpu", **options)[:2]
    if name.startswith("stable"):
        if name != "stable-diffusion":
            options |= {"prompt_2": None}
        if name == "stable-diffusion-3":
            options |= {"prompt_3": None}
        return pipe.encode_prompt(
            texts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, **options
        )
    if name == "flux":
        return pipe.encode_prompt(texts, None, device="cpu", **options)
    return pipe.encode_prompt(texts, device="cpu", **options)


def asked(pipe, name, x, step, scale, texts):
    """The network's own output for its own states and steps, as its pipeline asks it for texts."""
    words, *more = encoded(pipe, name, texts)
    rows = len(x)
    if name == "flux":
        packed = pipe._pack_latents(x, rows, 16, *x.shape[2:])
        out = pipe.transformer(
            packed, encoder_hidden_states=words, pooled_projections=more[0], timestep=step / 1000,
            guidance=torch.full((rows,), scale), txt_ids=more[1],
            img_ids=pipe._prepare_latent_image_ids(rows, x.shape[2] // 2, x.shape[3] // 2, "cpu", x.dtype),
        ).sample  # fmt: skip
        return pipe._unpack_latents(out, x.shape[2] * 8, x.shape[3] * 8, 8)
    if name == "stable-diffusion-3":
        return pipe.transformer(x, encoder_hidden_states=words, pooled_projections=more[1], timestep=step).sample
    if name == "sana":
        return pipe.transformer(x, encoder_hidden_states=words, encoder_attention_mask=more[0], timestep=step).sample
    if name == "sana-sprint":
        return pipe.transformer(
            x, encoder_hidden_states=words, encoder_attention_mask=more[0], timestep=step / 1000,
            guidance=torch.full((rows,), scale) * 0.1,
        ).sample  # fmt: skip
    extra = {}
    if name == "stable-diffusion-xl-turbo":
        ids = torch.tensor([64.0, 64, 0, 0, 64, 64]).expand(rows, -1)
        extra = {"added_cond_kwargs": {"text_embeds": more[1], "time_ids": ids}}
    return pipe.unet(x, step, encoder_hidden_states=words, **extra).sample


def places(name, pipe):
    """Times, and what they are to the network: its signal, noise and step, in float64. Steps of U-Nets are whole here."""
    if not name.startswith("stable-diffusion") or name == "stable-diffusion-3":
        t = torch.tensor([0.0, 0.2, 0.71, 1.0], dtype=torch.float64)
        return t, t, 1 - t, 1000 * (1 - t)
    step = torch.tensor([998, 500, 20, 1])
    bar = pipe.scheduler.alphas_cumprod[step].double()
    signal, noise = bar.sqrt(), (1 - bar).sqrt()
    return signal / (signal + noise), signal, noise, step.double()


def outputs(name, velocity, x, signal, noise):
    """The network's output from our velocity `E[z] - E[eps]` and the network's own state."""
    if name not in ("stable-diffusion", "stable-diffusion-xl-turbo"):
        return -velocity
    return (x - signal * velocity) / (signal + noise)


@pytest.mark.parametrize("scale", [None, 1.0, 6.0])
def test_velocities_are_outputs_of_the_network_and_back(name, scale, loaded, model_of, seeded, close):
    pipe = loaded(name)
    own = name in ("flux", "sana-sprint")  # they are told their guidance
    scale = scale if scale is not None else (CALLS[name]["guidance_scale"])
    guided = scale > 1 and not own
    model = model_of(name, PROMPTS, negative_prompt=NEGATIVE if guided else None, guidance_scale=scale)
    t, signal, noise, step = places(name, pipe)
    x = torch.randn(4, *model.event_shape, generator=seeded(1), requires_grad=True)
    numbers = torch.tensor([0, 1, 1, 0])
    expected = asked(pipe, name, x, step.float(), scale, [PROMPTS[i] for i in numbers])
    if guided:
        without = asked(pipe, name, x, step.float(), scale, [NEGATIVE[i] for i in numbers])
        expected = without + scale * (expected - without)
    signal, noise = (size.reshape(-1, 1, 1, 1) for size in (signal, noise))
    ours = (x / (signal + noise)).float()  # on the linear path signal and noise add up to 1
    velocity = model.network(ours, t.float(), numbers)
    close(model.velocity(ours, t.float(), cond=numbers)[t < 1], velocity[t < 1], 2e-5)
    close(outputs(name, velocity.double(), x.double(), signal, noise).float(), expected, 5e-5)
    assert float(expected.std()) > 0.01
    by_hand = -expected
    if name in ("stable-diffusion", "stable-diffusion-xl-turbo"):
        by_hand = ((x - noise * expected) / signal - expected).float()
    close(velocity, by_hand, 5e-5)
    weights = torch.randn(x.shape, generator=seeded(2))
    slopes = [torch.autograd.grad((weights * found).sum(), x)[0] for found in (velocity, by_hand)]
    close(*slopes, 2e-4)
    assert float(slopes[1].std()) > 0.01


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl-turbo"])
def test_means_of_pure_noise_are_those_of_the_noisiest_step(name, loaded, model_of, seeded, close):
    """Where the training has no step, at t = 0 and a little after, its last one stands for the signal in the quotient."""
    pipe = loaded(name)
    model = model_of(name, guidance_scale=1.0)
    held = pipe.scheduler.alphas_cumprod[999].double().sqrt()
    t = torch.tensor([0.0, 0.5 * float(held) / (1 + float(held))])
    x = torch.randn(2, *model.event_shape, generator=seeded(1))
    size = (t.square() + (1 - t).square()).sqrt().reshape(2, 1, 1, 1)
    output = asked(pipe, name, x / size, torch.tensor([999.0, 999.0]), 1.0, ["a cat"] * 2)
    mean = ((x / size).double() - (1 - held**2).sqrt() * output) / held
    close(model.denoise(x, t), mean.float(), 5e-5)
    assert float(mean.std()) > 1
    velocity = mean - x  # x at t = 0 is all noise
    close(model.velocity(x, t)[0], velocity[0].float(), 5e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_conversions_back_and_forth_in_double_precision(prediction, path, seeded):
    """From outputs to both means and back, on any path, where neither is divided by nothing."""
    import diffusers

    table = None if prediction == "flow" else log_snr_of(diffusers.DDPMScheduler(**NOISE))
    trained = TrainedPath(path, prediction, table)
    t = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    place = trained.place(t)
    x = torch.randn(7, 4, generator=seeded(0), dtype=torch.float64)
    output = torch.randn(7, 4, generator=seeded(1), dtype=torch.float64)
    mean, noise = trained.means(x, output, place)
    a, s, c = (size[:, None] for size in (place.signal, place.noise, place.size))
    back = {"epsilon": noise, "v_prediction": a * noise - s * mean, "sample": mean, "flow": noise - mean}[prediction]
    torch.testing.assert_close(back, output, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(a * mean + s * noise, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close((a + s if prediction == "flow" else a**2 + s**2), torch.ones_like(a))
    torch.testing.assert_close(c * a, path.alpha(t)[:, None], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(c * s, path.sigma(t)[:, None], rtol=1e-12, atol=1e-12)
    velocity = trained.velocity(x, output, t, place)
    torch.testing.assert_close(path.velocity_from_denoiser(c * x, t, mean), velocity, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(trained.time(place.step), t, rtol=0, atol=1e-10)


def test_velocities_are_finite_and_consistent_with_means_and_scores(name, model_of, seeded, close):
    model = model_of(name)
    t = torch.tensor([0.0, 1e-6, 1e-3, 0.03, 0.4, 0.9, 0.999, 1 - 1e-6, 1.0])
    x = torch.randn(9, *model.event_shape, generator=seeded(2))
    velocity, mean, score = model.velocity(x, t), model.denoise(x, t), model.score(x, t)
    assert velocity.isfinite().all() and mean.isfinite().all() and score[:-1].isfinite().all()
    sides = t.reshape(-1, 1, 1, 1)
    close(mean, x + (1 - sides) * velocity)
    close(((1 - sides) ** 2 * score)[:-1], (sides * mean - x)[:-1])
    torch.testing.assert_close(mean[-1], x[-1])
    assert velocity.dtype == mean.dtype == torch.float32
    double = model.velocity(x[3:6].double(), t[3:6].double())
    assert double.dtype == torch.float64  # of the states, though the network computes in its own type
    close(double.float(), velocity[3:6], 1e-4)
