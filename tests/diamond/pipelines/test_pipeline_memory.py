"""Micro-batches change nothing but memory, which does not grow with the number of states or draws."""

import functools

import pytest
import torch

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

import align

from align.rewards import Brightness, Decoded

NAMES = ["flux", "sana", "sana-sprint", "stable-diffusion"]
quiet = pytest.mark.filterwarnings("ignore::diamond.degeneracy.DegenerateWeights")


def peak_bytes(call):
    """The most memory that tensors of a call held at once, beyond what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return float(sizes.cumsum(0).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 2])
def test_micro_batches_give_the_same_states_images_and_gradients(name, chunk, model_of, seeded, close):
    answers = []
    for size in (None, chunk):
        model = model_of(name, ["a cat", "a dog"], chunk=size, decode_chunk=size)
        x = torch.randn(3, *model.event_shape, generator=seeded(1), requires_grad=True)
        cond = torch.tensor([0, 1, 0])
        t = torch.tensor([0.1, 0.5, 0.9])
        velocity = model.velocity(x, t, cond=cond)
        images = model.decode(x + velocity)
        answers.append((velocity, images, torch.autograd.grad(images.square().sum(), x)[0]))
    for one, other in zip(*answers, strict=True):
        close(other, one, 5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_same_when_calls_are_made_again(name, model_of, seeded, close):
    slopes = []
    for checkpoint in (True, False):
        model = model_of(name, checkpoint=checkpoint, chunk=2, decode_chunk=1)
        x = torch.randn(3, *model.event_shape, generator=seeded(1), requires_grad=True)
        images = model.decode(model.denoise(x, 0.4))
        slopes.append(torch.autograd.grad(images.square().sum(), x)[0])
    close(*slopes)
    assert float(slopes[0].std()) > 1e-4


def test_second_derivatives_go_through_images(model_of, seeded, close):
    """As a guided flow asks for them that is itself guided; where attention has them."""
    slopes = []
    for checkpoint in (True, False):
        model = model_of("stable-diffusion", checkpoint=checkpoint, decode_chunk=1)
        x = torch.randn(2, *model.event_shape, generator=seeded(1), requires_grad=True)
        with sdpa_kernel(SDPBackend.MATH):
            slope = torch.autograd.grad(model.decode(x).square().mean(), x, create_graph=True)[0]
            slopes.append(torch.autograd.grad(slope.square().sum(), x)[0])
    close(*(1e4 * slope for slope in slopes))
    assert float(slopes[0].std()) > 1e-9


@quiet
@pytest.mark.parametrize("name", ["flux", "sana-sprint", "stable-diffusion"])
def test_chunks_of_the_algorithms_change_nothing(name, model_of, seeded, close):
    model = model_of(name, cheap=1)
    reward = Decoded(50.0 * Brightness(), model)
    whole, parts = (align.guide(model, reward, 3, 2, mc=2, generator=seeded(1), chunk=chunk) for chunk in (None, 1))
    close(parts.samples, whole.samples, 1e-4)
    whole, parts = (align.smc(model, reward, 3, 2, mc=2, generator=seeded(1), chunk=chunk) for chunk in (None, 1))
    close(parts.log_weights, whole.log_weights, 1e-4)


@pytest.mark.parametrize("many", [{"particles": 4, "mc": 1}, {"particles": 1, "mc": 4}])
def test_guidance_holds_no_more_for_many_particles_or_draws(many, model_of, seeded):
    """At 256 pixels, one at a time: no more than a few states for each. All at once takes several times as much."""
    model = model_of("flux", height=256, width=256, glass_steps=1)
    reward = Decoded(Brightness(), model)

    def peak(chunk, particles, mc):
        return peak_bytes(lambda: align.guide(model, reward, particles, 2, mc=mc, chunk=chunk, generator=seeded(1)))

    one, state = peak(1, 1, 1), 16 * 32 * 32 * 4
    assert peak(1, **many) - one < 3 * 12 * state < 0.1 * one
    assert peak(None, **many) > 2 * one


def test_micro_batches_of_the_model_hold_no_more_for_many_draws(model_of, seeded):
    """Forward and through a gradient, four latents hold little more than one does: their images, a few times."""
    model = model_of("flux", height=256, width=256, glass_steps=1, chunk=1, decode_chunk=1)
    whole = model_of("flux", height=256, width=256, glass_steps=1, checkpoint=False)

    def forward(model, rows):
        x = torch.zeros(rows, *model.event_shape)
        with torch.no_grad():
            model.decode(model.denoise(x, 0.5))

    def backward(model, rows):
        x = torch.zeros(1, *model.event_shape, requires_grad=True)
        images = model.decode(model.posterior(x, 0.5, rows, generator=seeded(1))[:, 0])
        images.square().flatten(1).mean().backward()

    image = 3 * 256 * 256 * 4
    for call in (forward, backward):
        cases = (model, 1), (model, 4), (whole, 4)
        one, four, at_once = (peak_bytes(functools.partial(call, *case)) for case in cases)
        assert four - one < 3 * 5 * image
        assert at_once > 2 * four
