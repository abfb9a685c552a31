"""Each loss is zero on the exact map of Gaussian data, and on no other; its gradient leads there."""

import pytest
import torch

from diamond.flow import Flow
from diamond.interpolant import Cosine, Linear
from distill.losses import diagonal, endpoint, eulerian, flow_matching, lagrangian, mean_flow, two_hops
from distill.problems import FlowProblem, PosteriorProblem, trajectory
from distill.times import inner_grid, inner_pairs, uniform_times

PATHS = pytest.mark.parametrize("interpolant", [Linear(), Cosine()], ids=repr)
KINDS = pytest.mark.parametrize("kind", ["flow map", "diamond map"])
OFF_DIAGONAL = ("lagrangian", "eulerian", "mean flow", "progressive", "endpoint")


@pytest.fixture
def problem(students, gaussian):
    """Makes a student bound to a batch, and data and noise to start from."""

    def bound(kind, interpolant, theta=(0.0, 0.0, 0.0), n=64, source=True):
        generator = torch.Generator().manual_seed(3)
        teacher, student = gaussian(interpolant), students[kind](interpolant, theta)
        z = teacher.sample(n, generator=generator)
        t = uniform_times(n, generator, z.device, 0.95).double()
        outer, inner = torch.randn(2, *z.shape, generator=generator, dtype=z.dtype)
        teacher = teacher if source else None
        if kind == "flow map":
            return FlowProblem(teacher, student), z, inner, generator
        return PosteriorProblem(teacher, student, interpolant.interpolate(z, outer, t), t), z, inner, generator

    return bound


@pytest.fixture
def losses_of(problem):
    """Every loss `(B,)` by name, and the student."""

    def at(kind, interpolant, theta=(0.0, 0.0, 0.0), source=True):
        part, z, noise, generator = problem(kind, interpolant, theta, source=source)
        s, r = (times.double() for times in inner_pairs(len(z), 0.3, generator, z.device, to_one=0.2))
        early = r.clamp_max(1 - 1e-3)
        m = torch.lerp(s, r, torch.rand(len(z), generator=generator, dtype=z.dtype))
        x = part.start(z, noise, s)
        exact = problem(kind, interpolant)[0]
        velocity = part.velocity(x, s)
        return {
            "diagonal": diagonal(part.slope, part.weight, x, s, velocity),
            "lagrangian": lagrangian(part.displace, part.velocity, part.weight, x, s, early),
            "eulerian": eulerian(part.displace, part.weight, x, s, r, velocity),
            "mean flow": mean_flow(part.displace, part.weight, x, s, r, velocity),
            "progressive": endpoint(part.displace(x, s, r), part.weight, s, r, two_hops(part.displace, x, s, m, r)),
            "endpoint": endpoint(part.displace(x, s, r), part.weight, s, r, exact.displace(x, s, r).detach()),
        }, part.student

    return at


@KINDS
@PATHS
def test_losses_vanish_on_the_exact_map_alone(kind, interpolant, losses_of):
    for name, loss in losses_of(kind, interpolant)[0].items():
        assert loss.mean().item() < 1e-20, (name, loss.mean().item())
    for theta in ((0.2, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.2)):
        for name, loss in losses_of(kind, interpolant, theta)[0].items():
            blind = {"diagonal": theta[1] != 0, "progressive": theta[2] != 0 and not theta[1]}.get(name, False)
            if not blind:  # neither sees the map bend, nor which flow it is
                assert loss.mean().item() > 1e-7, (name, theta, loss.mean().item())


@KINDS
@PATHS
def test_without_a_teacher_the_same_map_is_the_zero(kind, interpolant, losses_of):
    """The student's own diagonal stands for the velocity, and is right where the student is."""
    for name, loss in losses_of(kind, interpolant, source=False)[0].items():
        assert loss.mean().item() < 1e-20, (name, loss.mean().item())
    for name, loss in losses_of(kind, interpolant, (0.0, 0.2, 0.0), source=False)[0].items():
        assert (loss.mean().item() > 1e-7) is (name != "diagonal"), (name, loss.mean().item())


@pytest.mark.parametrize("name", ["diagonal", "eulerian", "mean flow", "endpoint"])
def test_a_mean_velocity_off_by_a_constant_costs_its_square(name, losses_of):
    """All residuals have one unit, so that one weight serves them all."""
    loss = losses_of("flow map", Linear(), (0.0, 0.0, 0.3))[0][name]
    assert torch.allclose(loss, torch.full_like(loss, 0.3**2), rtol=1e-9)


@KINDS
@pytest.mark.parametrize("name", OFF_DIAGONAL)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_against_the_gradient_is_a_step_back(name, sign, kind, losses_of):
    """Of the two losses together: off the diagonal and on it. Each way of being wrong is undone."""
    for i in range(3):
        theta = [0.0, 0.0, 0.0]
        theta[i] = 0.1 * sign
        losses, student = losses_of(kind, Linear(), theta)
        (losses[name] + losses["diagonal"]).mean().backward()
        assert float(student.theta.grad[i]) * sign > 1e-5, (i, student.theta.grad)


@KINDS
@PATHS
def test_mean_flow_is_the_identity_of_the_mean_velocity(kind, interpolant, problem):
    """`U - u - (r - s) dU/ds`, the derivative along the path by differences, on a map that violates it."""
    part, z, noise, generator = problem(kind, interpolant, (0.3, -0.2, 0.1))
    s, r = (times.double() for times in inner_pairs(len(z), 0.0, generator, z.device))
    s, r = s * 0.8, s * 0.8 + (r - s) * 0.8 + 0.1
    x = part.start(z, noise, s)
    u = part.velocity(x, s)
    average = lambda h: (part.displace(x + h * u, s + h, r) - x - h * u) / (r - s - h)[:, None]  # noqa: E731
    with torch.no_grad():
        rate = (average(1e-5) - average(-1e-5)) / 2e-5
        residual = average(0.0) - u - (r - s)[:, None] * rate
        expected = (part.weight(s)[:, None] * residual).square().mean(1)
        found = mean_flow(part.displace, part.weight, x, s, r, u)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-12) and float(expected.mean()) > 1e-4


def test_mean_flow_regresses_on_what_the_eulerian_loss_differentiates(losses_of):
    """One value, two gradients: that of MeanFlow comes through the mean velocity alone."""
    losses, student = losses_of("diamond map", Linear(), (0.2, 0.1, -0.1))
    assert torch.allclose(losses["eulerian"], losses["mean flow"], rtol=1e-9)
    full, stopped = (
        torch.autograd.grad(losses[name].mean(), student.theta, retain_graph=True)[0]
        for name in ("eulerian", "mean flow")
    )
    assert float((full - stopped).abs().max()) > 1e-3


@KINDS
@PATHS
def test_data_alone_pull_the_diagonal_as_a_teacher_does(kind, interpolant, check_mean, problem):
    """Both losses differ by what no student can change: the differences at two students have equal means."""
    gaps = []
    for theta in ((0.0, 0.0, 0.0), (0.4, 0.0, -0.3)):
        part, z, noise, generator = problem(kind, interpolant, theta, n=40_000)
        s = uniform_times(len(z), generator, z.device, 1 - 1e-3).double()
        x = part.start(z, noise, s)
        with torch.no_grad():
            by_data = diagonal(part.slope, part.weight, x, s, part.conditional(z, noise, s))
            gaps.append(by_data - diagonal(part.slope, part.weight, x, s, part.velocity(x, s)))
    assert float(gaps[0].mean()) > 0.05  # the variance that data leave
    assert float((gaps[1] - gaps[0]).std()) > 0.05
    check_mean(gaps[1] - gaps[0], torch.zeros(()))


@KINDS
def test_data_alone_pull_mean_flow_as_a_teacher_does(kind, check_mean, problem):
    """The gradients with the velocity of a path given its data have the mean of those with the mean velocity."""
    pulls = []
    for by_data in (True, False):
        part, z, noise, generator = problem(kind, Linear(), (0.3, -0.2, 0.1), n=20_000)
        s, r = (times.double() for times in inner_pairs(len(z), 0.0, generator, z.device, to_one=0.5))
        x = part.start(z, noise, s)
        velocity = part.conditional(z, noise, s) if by_data else part.velocity(x, s)
        losses = mean_flow(part.displace, part.weight, x, s, r, velocity).unflatten(0, (100, -1)).mean(1)
        each = torch.eye(len(losses), dtype=z.dtype)
        pulls.append(torch.autograd.grad(losses, part.student.theta, each, is_grads_batched=True)[0])
    assert float((pulls[0] - pulls[1]).std()) > 0.01 and float(pulls[1].mean(0).abs().max()) > 0.05
    check_mean(pulls[0] - pulls[1], torch.zeros(3, dtype=torch.float64))


def test_trajectories_end_where_the_exact_map_does(problem):
    """Twice the steps leave a quarter of the error, but for the last step, whose length falls with their number."""
    errors = []
    for points in (8, 16, 32):
        part, _, x, _ = problem("diamond map", Linear())
        grid = inner_grid(len(x), points, torch.Generator().manual_seed(0), x.device).double()
        states = trajectory(part, x, grid)
        zeros, ones = torch.zeros_like(part.t), torch.ones_like(part.t)
        errors.append((states[-1] - part.displace(x, zeros, ones)).square().mean().sqrt().item())
    assert errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5, errors


@pytest.mark.parametrize("prediction", ["velocity", "denoiser", "noise"])
@PATHS
def test_flow_matching_is_least_at_the_exact_network(prediction, interpolant, gaussian):
    """The minimiser is the conditional mean: the exact network beats any other by the square of their difference."""
    generator = torch.Generator().manual_seed(0)
    exact = gaussian(interpolant)
    z = exact.sample(40_000, generator=generator)
    noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
    t = uniform_times(len(z), generator, z.device).double()

    def network(x, t):
        denoised = exact.denoise(x, t)
        return {
            "velocity": lambda: interpolant.velocity_from_denoiser(x, t, denoised),
            "denoiser": lambda: denoised,
            "noise": lambda: interpolant.noise_from_denoiser(x, t, denoised),
        }[prediction]()

    best = flow_matching(Flow(network, interpolant, (2,), prediction), z, noise, t)
    shift = 0.3
    other = flow_matching(Flow(lambda x, t: network(x, t) + shift, interpolant, (2,), prediction), z, noise, t)
    gap = other - best
    assert abs(float(gap.mean()) - shift**2) < 4 * float(gap.std()) / len(gap) ** 0.5
