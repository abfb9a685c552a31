"""A pipeline is used, and not changed: its scheduler, modes, hooks, own images, and the global random state."""

import copy

import pytest
import torch

from accelerate.hooks import ModelHook, add_hook_to_module

import align

from align.rewards import Brightness, Decoded

quiet = pytest.mark.filterwarnings("ignore::diamond.degeneracy.DegenerateWeights")
ONE_STEP = {"sana-sprint": {"intermediate_timesteps": None}}


class Watched(ModelHook):
    """An offloading hook in all but the moving: it notes that its module is called, and counts who is left to move."""

    def __init__(self):
        self.calls = 0

    def pre_forward(self, module, *args, **kwargs):
        self.calls += 1
        return args, kwargs


def used(model, seeded):
    """Some of everything that a model does."""
    align.guide(model, Decoded(Brightness(), model), 2, 2, mc=1, generator=seeded(1))
    align.best_of_n(model, Decoded(Brightness(), model), 2, generator=seeded(1))
    model.images(model.sample(1, 2, generator=seeded(1)))


@quiet
def test_the_pipelines_own_images_and_parts_stay_as_they_are(name, fresh, model_of, own_call, seeded):
    pipe, extra = fresh(name), ONE_STEP.get(name, {})
    for part in (pipe.vae, getattr(pipe, "transformer", None) or pipe.unet):
        part.train()
    pipe.vae.eval()
    pipe.scheduler.set_timesteps(3, **({"mu": 0.7} if name == "flux" else {}), **extra)
    before = own_call(pipe, name, "a cat", 1, "pt", generator=seeded(3), **extra)
    keep = {key: copy.deepcopy(value) for key, value in vars(pipe.scheduler).items()}
    modes = [module.training for part in pipe.components.values() if isinstance(part, torch.nn.Module)
             for module in part.modules()]  # fmt: skip
    weights = [value.clone() for part in (pipe.vae, pipe.text_encoder) for value in part.state_dict().values()]

    used(model_of(name, pipe=pipe, cheap=1), seeded)

    assert list(vars(pipe.scheduler)) == list(keep)
    for key, value in keep.items():
        now = getattr(pipe.scheduler, key)
        assert torch.equal(now, value) if isinstance(value, torch.Tensor) else str(now) == str(value), key
    after = [module.training for part in pipe.components.values() if isinstance(part, torch.nn.Module)
             for module in part.modules()]  # fmt: skip
    assert modes == after and any(modes) and not all(modes)
    now = [value for part in (pipe.vae, pipe.text_encoder) for value in part.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(weights, now, strict=True))
    torch.testing.assert_close(own_call(pipe, name, "a cat", 1, "pt", generator=seeded(3), **extra), before)


def test_weights_are_frozen_and_gradients_reach_states_alone(name, fresh, model_of, seeded):
    pipe = fresh(name)
    model = model_of(name, pipe=pipe)
    x = torch.randn(1, *model.event_shape, generator=seeded(1), requires_grad=True)
    model.decode(model.denoise(x, 0.5)).mean().backward()
    assert x.grad.isfinite().all() and float(x.grad.abs().max()) > 0
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert all(not p.requires_grad and p.grad is None for part in parts for p in part.parameters())
    assert not list(model.parameters())  # the pipeline is no part of the model


@pytest.mark.parametrize("name", ["flux", "sana", "stable-diffusion-xl-turbo"])
def test_hooks_of_offloading_are_called(name, fresh, model_of, seeded):
    """Modules are called as modules and the decoder through its own hook, as `enable_model_cpu_offload` needs it."""
    pipe = fresh(name)
    network = getattr(pipe, "transformer", None) or pipe.unet
    hooks = {part: Watched() for part in (pipe.text_encoder, network, pipe.vae)}
    for part, hook in hooks.items():
        add_hook_to_module(part, hook)
    model = model_of(name, pipe=pipe, chunk=1, decode_chunk=1)
    assert hooks[pipe.text_encoder].calls >= 1 and hooks[network].calls == hooks[pipe.vae].calls == 0
    z = model.sample(2, 1, generator=seeded(1))
    assert (hooks[network].calls, hooks[pipe.vae].calls) == (2, 0)
    model.decode(z)
    assert (hooks[network].calls, hooks[pipe.vae].calls) == (2, 2)
    x = z.requires_grad_()
    model.decode(model.denoise(x, 0.5)).sum().backward()  # forward, and again for the gradient
    assert (hooks[network].calls, hooks[pipe.vae].calls) == (6, 6)


def test_states_begin_where_the_pipeline_executes(fresh, model_of, monkeypatch):
    """An offloaded pipeline says where; its weights' own place is no guide."""
    pipe = fresh("stable-diffusion")
    model = model_of("stable-diffusion", pipe=pipe)
    assert model.prior(2).device == model.device == pipe._execution_device
    elsewhere = type(pipe)._execution_device
    monkeypatch.setattr(type(pipe), "_execution_device", property(lambda self: torch.device("meta")))
    with pytest.raises(Exception, match="meta"):
        model_of("stable-diffusion", pipe=pipe)
    monkeypatch.setattr(type(pipe), "_execution_device", elsewhere)


@pytest.mark.parametrize("name", ["flux", "stable-diffusion-xl-turbo"])
def test_a_model_follows_its_pipeline_and_does_not_move_by_itself(name, fresh, model_of, monkeypatch):
    pipe = fresh(name)
    model = model_of(name, pipe=pipe)
    here = model.prior(1)
    assert model.to("meta").half() is model
    assert model.device == here.device and model.dtype == model.prior(1).dtype == torch.float32
    assert model.velocity(here, 0.5).isfinite().all()
    (getattr(pipe, "transformer", None) or pipe.unet).to("meta")
    monkeypatch.setattr(type(pipe), "_execution_device", property(lambda self: torch.device("meta")))
    there = model.prior(2)
    assert model.device.type == there.device.type == "meta"
    assert model.network(there, torch.full((2,), 0.5, device="meta")).device.type == "meta"


@quiet
def test_the_global_random_state_is_neither_read_nor_moved(name, loaded, model_of, seeded):
    loaded(name)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    model = model_of(name, cheap=1)
    first = align.smc(model, Decoded(Brightness(), model), 2, 2, mc=1, generator=seeded(1)).samples
    used(model, seeded)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(321)
    again = align.smc(model, Decoded(Brightness(), model), 2, 2, mc=1, generator=seeded(1)).samples
    torch.testing.assert_close(again, first)


def test_tiling_is_the_autoencoders_own(fresh, model_of, seeded):
    pipe = fresh("flux")
    model = model_of("flux", pipe=pipe, height=128, width=128)
    z = torch.randn(1, *model.event_shape, generator=seeded(1))
    whole = model.decode(z)
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size, pipe.vae.tile_sample_min_size = 8, 64
    tiled = model.decode(z)
    assert tiled.shape == whole.shape and 0 < float((tiled - whole).abs().mean()) < 0.2
