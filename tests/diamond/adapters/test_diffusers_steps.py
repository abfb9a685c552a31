"""Networks of diffusers as flows: steps of its own schedulers, finite ends, and the times that they are told."""

import pytest
import torch

from diamond.flow import Flow

diffusers = pytest.importorskip("diffusers")
ROWS = 3


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("step", [999, 500, 20])
def test_a_deterministic_step_is_that_of_the_scheduler(model, prediction, step, path, states):
    """From the mean that the flow gives, on any path, to where DDIM's scheduler goes from the model's output."""
    net, cond = model
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(50)
    later = step - 20
    x = states()
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


def test_a_step_of_a_flow_is_that_of_the_scheduler(model, path, states):
    """The flow-matching scheduler's Euler step, which is straight on the linear path."""
    net, cond = model
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(7)
    x = states()
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


def test_on_the_linear_path_the_velocity_of_a_flow_is_the_negative_output(sown, makers, states):
    net, x, t = sown(makers["unet"]).double(), states(), torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    found = Flow.from_diffusers(net, prediction="flow").velocity(x, t)
    torch.testing.assert_close(found, -net(x, 1000 * (1 - t), return_dict=False)[0])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_velocities_are_finite_and_consistent_with_the_mean_at_every_time(prediction, path, sown, makers, states):
    flow = Flow.from_diffusers(sown(makers["unet"]), prediction=prediction, interpolant=path)
    x = states().float()[:1].expand(9, -1, -1, -1)
    t = torch.tensor([0.0, 1e-6, 1e-3, 0.01, 0.5, 0.99, 0.999, 1 - 1e-6, 1.0])
    velocity, mean = flow.velocity(x, t), flow.denoise(x, t)
    assert velocity.isfinite().all()
    expected = path.velocity_from_denoiser(x, t, mean)
    torch.testing.assert_close(velocity[1:-2], expected[1:-2], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(mean[-1], x[-1])


def test_between_two_steps_the_time_told_lies_between_them(path, sown, makers, between):
    told = []
    net = sown(makers["unet"]).double()
    net.register_forward_pre_hook(lambda module, inputs: told.append(inputs[1]))
    flow = Flow.from_diffusers(net, interpolant=path)
    t = torch.cat([between(path, [0, 1, 500, 998]), torch.tensor([0.0, 1.0], dtype=torch.float64)])
    flow.velocity(torch.zeros(6, 2, 8, 8, dtype=torch.float64), t)
    torch.testing.assert_close(told[0].tolist(), [0.5, 1.5, 500.5, 998.5, 999.0, 0.0], rtol=0, atol=1e-6)


def test_a_schedule_that_ends_without_signal_is_taken(sown, makers, states):
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert float(scheduler.alphas_cumprod[-1]) == 0
    net, x = sown(makers["unet"]), states().float()
    flow = Flow.from_diffusers(net, scheduler=scheduler)
    output = net(x, 999, return_dict=False)[0]  # of noise alone v is -z, and the linear path leads from the noise to z
    torch.testing.assert_close(flow.velocity(x, 0.0), -output - x)
