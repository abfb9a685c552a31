"""Networks of diffusers as flows: agreement with its own schedulers' steps, forward derivatives, folders, bad input.

The models are tiny, random and made here.
"""

import json
import sys

from importlib.util import find_spec, module_from_spec

import pytest
import torch

from diamond.adapters.diffusers_network import DiffusersNetwork
from diamond.checkpoint import load
from diamond.classifier_free import ClassifierFree
from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow, glass_velocity
from diamond.interpolant import Cosine
from diamond.nets import ResidualMLP, grow

diffusers = pytest.importorskip("diffusers")

ROWS = 3


def unet(**options):
    arguments = {"sample_size": 8, "in_channels": 2, "out_channels": 2, "block_out_channels": (8, 16),
                 "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
                 "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                 "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}  # fmt: skip
    return diffusers.UNet2DModel(**{**arguments, **options})


def transformer(**options):
    arguments = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 2, "out_channels": 4,
                 "num_layers": 2, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 5}  # fmt: skip
    return diffusers.DiTTransformer2DModel(**{**arguments, **options})


def wake(model, noise):
    """Puts noise on every weight, so that nothing is silent."""
    with torch.no_grad():
        for weights in model.parameters():
            weights += noise * torch.randn(weights.shape, dtype=weights.dtype)
    return model


def sown(make, noise=0.1, **options):
    """The model with noise on every weight, the same in every test; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wake(make(**options), noise).eval()


MODELS = {
    "unet": (unet, {}),
    "labelled unet": (unet, {"num_class_embeds": 5}),
    "transformer": (transformer, {}),
}


@pytest.fixture(params=MODELS)
def model(request):
    """Each kind of model in turn, in double precision, with the labels that it takes."""
    make, options = MODELS[request.param]
    return sown(make, **options).double(), None if request.param == "unet" else torch.arange(ROWS) % 5


def states(seeded, seed=0):
    return torch.randn(ROWS, 2, 8, 8, dtype=torch.float64, generator=seeded(seed))


# ---------------------------------------------------------------- agreement with diffusers


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("step", [999, 500, 20])
def test_a_deterministic_step_is_that_of_the_scheduler(model, prediction, step, path, seeded):
    """From the mean that the flow gives, on any path, to where DDIM's scheduler goes from the model's output."""
    net, cond = model
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(50)
    later = step - 20
    x = states(seeded)
    output = net(x, torch.full((ROWS,), step), class_labels=cond, return_dict=False)[0][:, :2]
    expected = scheduler.step(output, step, x)

    flow = Flow.from_diffusers(net, scheduler=scheduler, interpolant=path)
    alphas = torch.cat([scheduler.alphas_cumprod.double(), torch.ones(1)])
    now, then = alphas[step], alphas[later]
    t, t_next = (path.time_of(bar.sqrt(), (1 - bar).sqrt()).expand(ROWS) for bar in (now, then))
    size, size_next = ((path.alpha(u).square() + path.sigma(u).square()).sqrt()[0] for u in (t, t_next))
    mean = flow.denoise(x * size, t, cond=cond)
    noise = flow.interpolant.noise_from_denoiser(x * size, t, mean)
    stepped = path.alpha(t_next)[0] * mean + path.sigma(t_next)[0] * noise
    torch.testing.assert_close(mean, expected.pred_original_sample, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stepped / size_next, expected.prev_sample, rtol=1e-5, atol=1e-5)
    assert float((expected.pred_original_sample - x).detach().abs().max()) > 0.1
    velocity = path.velocity_from_denoiser(x * size, t, mean)
    torch.testing.assert_close(flow.velocity(x * size, t, cond=cond), velocity, rtol=1e-6, atol=1e-6)


def test_a_step_of_a_flow_is_that_of_the_scheduler(model, path, seeded):
    """The flow-matching scheduler's Euler step, which is straight on the linear path."""
    net, cond = model
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(7)
    x = states(seeded)
    step, sigma, later = scheduler.timesteps[3], scheduler.sigmas[3].double(), scheduler.sigmas[4].double()
    output = net(x, step.expand(ROWS), class_labels=cond, return_dict=False)[0][:, :2]
    expected = scheduler.step(output, step, x, return_dict=False)[0]

    flow = Flow.from_diffusers(net, scheduler=scheduler, interpolant=path)
    t = path.time_of(1 - sigma, sigma).expand(ROWS)
    size = (path.alpha(t) + path.sigma(t))[0]
    mean = flow.denoise(x * size, t, cond=cond)
    noise = path.noise_from_denoiser(x * size, t, mean)
    torch.testing.assert_close((1 - later) * mean + later * noise, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean, x - sigma * output, rtol=1e-5, atol=1e-5)


def test_on_the_linear_path_the_velocity_of_a_flow_is_the_negative_output(seeded):
    net, x, t = sown(unet).double(), states(seeded), torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    found = Flow.from_diffusers(net, prediction="flow").velocity(x, t)
    torch.testing.assert_close(found, -net(x, 1000 * (1 - t), return_dict=False)[0])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_velocities_are_finite_and_consistent_with_the_mean_at_every_time(prediction, path, seeded):
    flow = Flow.from_diffusers(sown(unet), prediction=prediction, interpolant=path)
    x = states(seeded).float()[:1].expand(9, -1, -1, -1)
    t = torch.tensor([0.0, 1e-6, 1e-3, 0.01, 0.5, 0.99, 0.999, 1 - 1e-6, 1.0])
    velocity, mean = flow.velocity(x, t), flow.denoise(x, t)
    assert velocity.isfinite().all()
    expected = path.velocity_from_denoiser(x, t, mean)
    torch.testing.assert_close(velocity[1:-2], expected[1:-2], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(mean[-1], x[-1])


def test_between_two_steps_the_time_told_lies_between_them(path):
    told = []
    net = sown(unet).double()
    net.register_forward_pre_hook(lambda module, inputs: told.append(inputs[1]))
    flow = Flow.from_diffusers(net, interpolant=path)
    t = torch.cat([between(path, [0, 1, 500, 998]), torch.tensor([0.0, 1.0], dtype=torch.float64)])
    flow.velocity(torch.zeros(6, 2, 8, 8, dtype=torch.float64), t)
    torch.testing.assert_close(told[0].tolist(), [0.5, 1.5, 500.5, 998.5, 999.0, 0.0], rtol=0, atol=1e-6)


def test_a_schedule_that_ends_without_signal_is_taken(seeded):
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert float(scheduler.alphas_cumprod[-1]) == 0
    flow = Flow.from_diffusers(sown(unet), scheduler=scheduler)
    assert flow.velocity(states(seeded).float(), 0.0).isfinite().all()


# ---------------------------------------------------------------- what the flow can be used for


def between(path, steps):
    """Times half a step after these: there the time told is differentiable."""
    ratio = torch.logit(diffusers.DDPMScheduler().alphas_cumprod.double())
    middle = torch.sigmoid((ratio[steps] + ratio[[step + 1 for step in steps]]) / 2)
    return path.time_of(middle.sqrt(), (1 - middle).sqrt())


def test_forward_derivatives_pass(model, path, seeded):
    """Held against differences coarser than the single precision in which diffusers embeds its time."""
    net, cond = model
    flow = Flow.from_diffusers(net, interpolant=path)
    x, direction, t = states(seeded), states(seeded, 1), between(path, [150, 400, 650])

    def check(call, point, direction, step):
        _, slope = torch.func.jvp(call, (point,), (direction,))
        expected = (call(point + step * direction) - call(point - step * direction)) / (2 * step)
        torch.testing.assert_close(slope, expected, rtol=0, atol=0.03 * float(expected.detach().std()))

    check(lambda x: flow.velocity(x, t, cond=cond), x, direction, 1e-3)
    check(lambda t: flow.velocity(x, t, cond=cond), t, torch.ones_like(t), 5e-5)


def test_posterior_draws_of_a_view_run(model, seeded):
    net, cond = model
    flow = Flow.from_diffusers(net.float(), prediction="v_prediction")
    x = states(seeded).float()
    drawn = GlassFlow(flow, steps=4).posterior(x, 0.5, 2, cond=cond, generator=seeded())
    assert drawn.shape == (2, ROWS, 2, 8, 8)
    assert drawn.isfinite().all()
    assert flow.nfe == 2 * ROWS * 4
    assert flow.sample(2, 3, cond=None if cond is None else cond[:2], generator=seeded()).isfinite().all()


def test_a_transformer_knows_its_label_for_none_and_is_guided_by_it(seeded):
    net = sown(transformer).double()
    flow = Flow.from_diffusers(net)
    x, t, cond = states(seeded), 0.4, torch.arange(ROWS)
    torch.testing.assert_close(flow.velocity(x, t), flow.velocity(x, t, cond=torch.full((ROWS,), 5)))
    guided = ClassifierFree(flow, 3.0)
    assert guided.no_label == flow.net.classes == 5
    labelled, unlabelled = flow.velocity(x, t, cond=cond), flow.velocity(x, t)
    torch.testing.assert_close(guided.velocity(x, t, cond=cond), unlabelled + 3 * (labelled - unlabelled))


def test_a_labelled_unet_has_a_label_for_none_if_it_is_told_one(seeded):
    net, x = sown(unet, num_class_embeds=5).double(), states(seeded)
    with pytest.raises(ValueError, match=r"^cond: got NoneType, expected class labels \(3,\), whole numbers"):
        Flow.from_diffusers(net).velocity(x, 0.5)
    with pytest.raises(ValueError, match="^no_label: got None"):
        ClassifierFree(Flow.from_diffusers(net))
    flow = Flow.from_diffusers(net, no_label=4)
    assert (flow.net.classes, ClassifierFree(flow).no_label) == (4, 4)
    torch.testing.assert_close(flow.velocity(x, 0.5), flow.velocity(x, 0.5, cond=torch.full((ROWS,), 4)))


def test_a_transformer_stays_in_evaluation_mode(seeded):
    """In training mode it would leave labels out at random."""
    flow = Flow.from_diffusers(sown(transformer)).train()
    x, cond = states(seeded).float().repeat(20, 1, 1, 1), torch.arange(60) % 5
    assert flow.training
    assert torch.equal(flow.velocity(x, 0.5, cond=cond), flow.velocity(x, 0.5, cond=cond))


# ---------------------------------------------------------------- further inputs


def students(model, path=None):
    """The flow of a model, and the map that grew from it."""
    teacher = Flow.from_diffusers(model, prediction="v_prediction", interpolant=path)
    return teacher, DiamondMap(grow(teacher.net, 1, 3), teacher.interpolant)


def test_a_student_grown_from_its_teacher_is_the_teacher_on_the_diagonal(model, path, seeded):
    net, cond = model
    with torch.random.fork_rng(devices=[]):
        teacher, student = students(net, path)
        flow_map = FlowMap(grow(teacher.net, 0, 1), path)
    x, x_bar = states(seeded), states(seeded, 1)
    t, s = torch.rand(2, ROWS, dtype=torch.float64, generator=seeded(2))
    expected = teacher.net(x, t, cond)
    assert torch.equal(student.net(x, t, cond, (x_bar,), (s, s, t)), expected)
    torch.testing.assert_close(flow_map.velocity(x, t, cond=cond), teacher.velocity(x, t, cond=cond))
    inner = glass_velocity(teacher.denoise, path, x_bar, s, x, t, cond)
    torch.testing.assert_close(student.inner_velocity(x_bar, s, x, t, cond=cond), inner)
    assert torch.equal(teacher.net(x, t, cond), expected)  # it is left alone
    assert all(weights.requires_grad for weights in student.parameters())


def test_every_further_input_can_be_heard_and_differentiated_forward(model, seeded):
    net, cond = model
    student = sown(lambda: students(net)[1].net, noise=0.2)
    x, state, direction = (states(seeded, i) for i in range(3))
    t, s, r, outer = torch.tensor([[0.2, 0.5, 0.8], [0.1, 0.2, 0.3], [0.4, 0.6, 0.7], [0.3, 0.6, 0.9]]).double()

    def call(state, s, r, outer):
        return student(x, t, cond, (state,), (s, r, outer))

    point, step = (state, s, r, outer), 1e-6
    for i, change in enumerate([direction, *3 * [torch.ones_like(t)]]):
        tangents = tuple(change if i == j else torch.zeros_like(value) for j, value in enumerate(point))
        _, slope = torch.func.jvp(call, point, tangents)
        ahead, behind = (
            call(*(value + sign * step * tangent for value, tangent in zip(point, tangents, strict=True)))
            for sign in (1, -1)
        )
        torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-5)
        assert float(slope.detach().abs().max()) > 1e-3


def test_a_student_is_saved_and_loaded(model, tmp_path, seeded):
    net, cond = model
    student = sown(lambda: students(net)[1], noise=0.2)
    student.save(tmp_path / "map.ckpt")
    loaded, x = load(tmp_path / "map.ckpt"), states(seeded)
    drawn = (each.posterior(x, 0.3, 2, cond=cond, generator=seeded()) for each in (student, loaded))
    assert torch.equal(*drawn)


# ---------------------------------------------------------------- files and folders


def test_a_flow_of_diffusers_is_saved_and_loaded(model, tmp_path, seeded):
    net, cond = model
    scheduler = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    flow = Flow.from_diffusers(net, scheduler=scheduler, interpolant=Cosine())
    flow.save(tmp_path / "flow.ckpt")
    loaded, x = load(tmp_path / "flow.ckpt"), states(seeded)
    assert torch.equal(loaded.velocity(x, 0.3, cond=cond), flow.velocity(x, 0.3, cond=cond))


@pytest.mark.parametrize("make", [unet, transformer])
def test_a_folder_of_a_model_is_read(make, tmp_path, seeded):
    net, x = sown(make), states(seeded).float()
    net.save_pretrained(tmp_path / "model")
    flow = Flow.from_diffusers(tmp_path / "model")
    assert torch.equal(flow.velocity(x, 0.3), Flow.from_diffusers(net).velocity(x, 0.3))
    assert flow.event_shape == (2, 8, 8)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("scheduler", "prediction"),
    [(lambda: diffusers.DDIMScheduler(beta_end=0.01, prediction_type="v_prediction"), "v_prediction"),
     (lambda: diffusers.FlowMatchEulerDiscreteScheduler(), "flow")],
)  # fmt: skip
def test_a_pipeline_and_its_folder_are_read_with_their_scheduler(scheduler, prediction, flat, tmp_path, seeded):
    net, x, scheduler = sown(unet), states(seeded).float(), scheduler()
    net.save_pretrained(tmp_path / ("." if flat else "unet"))
    scheduler.save_pretrained(tmp_path / ("." if flat else "scheduler"))
    expected = Flow.from_diffusers(net, scheduler=scheduler)
    flow = Flow.from_diffusers(str(tmp_path))
    assert flow.net.path.prediction == expected.net.path.prediction == prediction
    assert torch.equal(flow.velocity(x, 0.3), expected.velocity(x, 0.3))
    if prediction == "v_prediction":
        pipeline = diffusers.DDIMPipeline(unet=net, scheduler=scheduler)
        pipeline.scheduler.register_to_config(prediction_type="v_prediction")
        assert torch.equal(Flow.from_diffusers(pipeline).velocity(x, 0.3), expected.velocity(x, 0.3))


def test_a_pickle_in_a_folder_is_never_loaded(tmp_path):
    net = sown(unet)
    net.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(net.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="its weights cannot be read, expected a whole safetensors file"):
        Flow.from_diffusers(tmp_path)


def test_folders_that_hold_something_else_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        Flow.from_diffusers(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="config.json: there is no such file"):
        Flow.from_diffusers(tmp_path)
    (tmp_path / "config.json").write_text("no JSON")
    with pytest.raises(ValueError, match="config.json: it is no JSON"):
        Flow.from_diffusers(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(ValueError, match="config.json: got 'AutoencoderKL', expected one of UNet2DModel"):
        Flow.from_diffusers(tmp_path)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [({}, {"prediction": "noise"}, "prediction: got 'noise', expected one of epsilon, v_prediction, sample, flow"),
     ({}, {"event_shape": (3, 8, 8)}, r"event_shape: got \(3, 8, 8\) for a model of 2 channels in"),
     ({"out_channels": 3}, {}, "event_shape: got .* and 3 out"),
     ({"sample_size": None}, {}, "event_shape: got None, but the model tells no sample_size"),
     ({"time_embedding_type": "fourier"}, {}, "model: got one with time_embedding_type='fourier'"),
     ({"class_embed_type": "timestep"}, {}, "model: got one with class_embed_type='timestep'"),
     ({}, {"scheduler": "flow", "prediction": "epsilon"}, "scheduler: got a FlowMatchEulerDiscreteScheduler")],
)  # fmt: skip
def test_models_that_are_no_flow_are_refused(options, arguments, message):
    if "scheduler" in arguments:
        arguments = {**arguments, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    with pytest.raises(ValueError, match=f"^{message}"):
        Flow.from_diffusers(unet(**options), **arguments)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="^model: got ResidualMLP, expected a folder, a pipeline of diffusers, or one"):
        Flow.from_diffusers(ResidualMLP((2,)))
    with pytest.raises(ValueError, match="^log_snr: got 2 steps, expected two or more finite numbers that decrease"):
        DiffusersNetwork(unet(), (2, 8, 8), log_snr=[0.0, 1.0])


def test_further_inputs_for_a_network_without_are_refused(seeded):
    net, x = DiffusersNetwork(sown(unet), (2, 8, 8), "flow"), states(seeded).float()
    t = torch.rand(ROWS, generator=seeded())
    with pytest.raises(ValueError, match="^states: got 1 states beside x, this network takes 0"):
        net(x, t, None, (x,))
    with pytest.raises(ValueError, match="^times: got 1 times beside t, this network takes 0"):
        net(x, t, None, (), (t,))
    with pytest.raises(ValueError, match="^cond: got a tensor, but this network was made without classes"):
        net(x, t, torch.zeros(ROWS).long())
    with pytest.raises(ValueError, match="^net: got a .* already, expected the network of a flow"):
        grow(grow(net, 0, 1), 1, 3)


@pytest.mark.parametrize("name", ["diffusers_inputs", "diffusers_network", "diffusers_loading"])
def test_diffusers_is_imported_only_when_asked_for(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # to import it is an error now
    spec = find_spec(f"diamond.adapters.{name}")
    spec.loader.exec_module(module_from_spec(spec))
