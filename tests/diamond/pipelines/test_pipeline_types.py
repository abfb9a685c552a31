"""Half precision: the network computes in its own type, and states, values and weights stay in single."""

import pytest
import torch

import align

from align.rewards import Brightness, Decoded
from diamond.adapters.pipelines.half_gradients import HalfGradients
from examples.tiny_pipelines import PIPELINES

quiet = pytest.mark.filterwarnings("ignore::diamond.degeneracy.DegenerateWeights")


def gap(found, expected):
    """The root mean square of what differs, relative to that of what is expected."""
    return float((found - expected).double().square().mean().sqrt() / expected.double().square().mean().sqrt())


@quiet
@pytest.mark.parametrize("name", PIPELINES)
def test_bfloat16_is_close_to_single_precision(name, fresh, model_of, seeded):
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        model = model_of(name, pipe=fresh(name).to(dtype), guidance_scale=3.0)
        assert model.network.network.dtype == dtype and model.dtype == torch.float32
        x = torch.randn(2, *model.event_shape, generator=seeded(1), requires_grad=True)
        velocity = model.velocity(x, torch.tensor([0.2, 0.7]))
        images = model.decode(x)
        slope = torch.autograd.grad(images.mean() + velocity.square().mean(), x)[0]
        assert all(part.dtype == torch.float32 and part.isfinite().all() for part in (velocity, images, slope))
        answers.append((velocity, images, slope))
    for single, half, limit in zip(*answers, (0.1, 0.1, 0.25), strict=True):
        assert 1e-5 < gap(half, single) < limit


@quiet
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("flux", torch.bfloat16), ("sana-sprint", torch.bfloat16), ("stable-diffusion", torch.float16)],
)
def test_algorithms_keep_states_values_and_weights_in_single_precision(name, dtype, fresh, model_of, seeded):
    model = model_of(name, pipe=fresh(name).to(dtype), cheap=1)
    reward = Decoded(20.0 * Brightness(), model)
    for out in (
        align.smc(model, reward, 3, 2, mc=2, generator=seeded(1)),
        align.guide(model, reward, 3, 2, mc=2, generator=seeded(1)),
    ):
        for part in (out.samples, out.rewards, out.log_weights):
            assert part.dtype == torch.float32 and part.isfinite().all()
    assert model.sample(1, 2, generator=seeded(1)).isfinite().all()
    x = torch.randn(1, *model.event_shape, generator=seeded(1)).double()
    assert model.velocity(x, 0.5).dtype == torch.float64


@pytest.mark.parametrize("checkpoint", [True, False])
def test_an_autoencoder_that_overflows_is_in_single_precision_for_the_call(checkpoint, fresh, model_of, seeded):
    """And in its own again behind it, so that the pipeline's own calls go on as before."""
    pipe = fresh("stable-diffusion").to(torch.float16)
    assert pipe.vae.config.force_upcast
    model = model_of("stable-diffusion", pipe=pipe, checkpoint=checkpoint)
    asked = []
    hook = pipe.vae.decoder.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0].dtype))
    weights = {name: value.clone() for name, value in pipe.vae.state_dict().items()}
    x = torch.randn(2, *model.event_shape, generator=seeded(1), requires_grad=True)
    slope = torch.autograd.grad(model.decode(x).mean(), x)[0]
    model.images(x.detach())
    hook.remove()
    assert set(asked) == {torch.float32} and pipe.vae.dtype == torch.float16
    for name, value in pipe.vae.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)

    plain = fresh("stable-diffusion")
    plain.vae.load_state_dict({name: value.float() for name, value in weights.items()})
    single = model_of("stable-diffusion", pipe=plain)
    expected = torch.autograd.grad(single.decode(x).mean(), x)[0]
    assert gap(slope, expected) < 1e-4
    torch.testing.assert_close(model.decode(x), single.decode(x), rtol=1e-4, atol=1e-4)


def test_an_autoencoder_that_does_not_overflow_stays_in_half_precision(fresh, model_of, seeded):
    pipe = fresh("stable-diffusion").to(torch.float16)
    pipe.vae.register_to_config(force_upcast=False)
    model, asked = model_of("stable-diffusion", pipe=pipe), []
    pipe.vae.decoder.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0].dtype))
    images = model.decode(torch.randn(1, *model.event_shape, generator=seeded(1)))
    assert asked == [torch.float16] and images.dtype == torch.float32


@pytest.mark.parametrize("name", ["flux", "stable-diffusion"])
def test_samples_in_half_precision_are_those_of_the_pipeline(name, fresh, model_of, own_call, seeded):
    """To half precision: we carry the states in single."""
    pipe = fresh(name).to(torch.bfloat16)
    noise = torch.randn(1, *model_of(name).event_shape, generator=seeded(1))
    given = pipe._pack_latents(noise, 1, *noise.shape[1:]) if name == "flux" else noise
    expected = own_call(pipe, name, "a cat", 3, latents=given.bfloat16())
    assert gap(model_of(name, pipe=pipe).sample(1, 3, generator=seeded(1)), expected.float()) < 0.05


@pytest.mark.parametrize(("name", "checkpoint"), [("flux", True), ("stable-diffusion", False)])
def test_gradients_in_float16_keep_their_digits_whatever_their_size(name, checkpoint, fresh, model_of, seeded):
    """Of the reward at any scale, and of a sample that counts for little beside its neighbour in the micro-batch."""
    side = 64 if name == "flux" else 16
    pipes = [fresh(name).to(torch.float16), fresh(name).to(torch.float16).to(torch.float32)]
    models = []
    for pipe in pipes:
        pipe.vae.register_to_config(force_upcast=False)
        models.append(model_of(name, pipe=pipe, checkpoint=checkpoint, chunk=2, height=side, width=side))
    start = torch.randn(3, *models[0].event_shape, generator=seeded(1))
    weights = torch.randn(3, 3, side, side, generator=seeded(2)) * torch.tensor([1.0, 1e-5, 0.0])[:, None, None, None]

    def gradient(model, scale):
        x = start.clone().requires_grad_()
        images = model.decode(model.denoise(x, torch.tensor([0.5, 0.7, 0.9])))
        return torch.autograd.grad(scale * (weights * images).mean(), x)[0]

    half, single = (gradient(model, 1.0) for model in models)
    for row in range(2):
        assert gap(half[row], single[row]) < 0.03
    assert half.isfinite().all() and bool((half[2] == 0).all())
    for scale in (2.0**-7, 2.0**13):
        assert torch.equal(gradient(models[0], scale), scale * half)  # powers of two, so that nothing is rounded


@pytest.mark.parametrize("size", [1.0, 2.0**-10, 1e-9])
def test_first_and_second_derivatives_of_a_cube_in_float16(size, seeded):
    x = torch.rand(3, 5, generator=seeded(1)).half().float().requires_grad_()
    gradients = HalfGradients(torch.float16)
    cube = size * gradients.leave((gradients.enter(x).half() ** 3).float()) + 0.0 * x
    (slope,) = torch.autograd.grad(cube.sum(), x, retain_graph=True)
    torch.testing.assert_close(slope, 3 * size * x.detach() ** 2, rtol=2e-3, atol=0)
    if size > 1e-4:  # there again it is what float16 holds
        (slope,) = torch.autograd.grad(cube.sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x)
        torch.testing.assert_close(bend, 6 * size * x.detach(), rtol=2e-3, atol=0)
