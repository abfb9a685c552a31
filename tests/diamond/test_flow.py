"""A flow model: solvers of their order, samplers that end in the data's law, one network under three readings."""

import pytest
import torch

from diamond.flow import Flow, euler, heun
from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.transition import transition_scales

ORDERS = {"euler": (euler, 1), "heun": (heun, 2)}
PREDICTIONS = ["velocity", "denoiser", "noise"]


class Exact(torch.nn.Module):
    """The network that a flow would have if training were perfect: of a mixture, in any of the readings."""

    def __init__(self, model, prediction="velocity"):
        super().__init__()
        self.model, self.prediction, self.event_shape = model, prediction, model.event_shape

    def forward(self, x, t):
        if self.prediction == "velocity":
            return self.model.velocity(x, t)
        if self.prediction == "denoiser":
            return self.model.denoise(x, t)
        return -self.model.interpolant.sigma(t)[:, None] * self.model.score(x, t)


def exact_flow(model, prediction="velocity"):
    return Flow(Exact(model, prediction), model.interpolant, prediction=prediction)


def uniform_times(steps, start=0.0):
    return torch.linspace(start, 1, steps + 1, dtype=torch.float64)


def slope(steps, errors):
    """The exponent p of errors ~ steps^-p, by least squares."""
    x, y = torch.log(torch.tensor(steps, dtype=torch.float64)), torch.log(torch.tensor(errors, dtype=torch.float64))
    return -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


@pytest.fixture
def gaussian():
    """Makes one correlated Gaussian in the plane on a given path."""
    covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]], dtype=torch.float64)
    mean = torch.tensor([[0.6, -0.3]], dtype=torch.float64)
    return lambda path=None: GaussianMixtureFlow(torch.ones(1).double(), mean, covariance, path)


# ---------------------------------------------------------------- solvers


@pytest.mark.parametrize("solver", ORDERS)
def test_solver_has_its_order_of_convergence_on_a_mixture(path, solver, line, seeded, transport):
    """On the line the flow is the increasing map from noise to data, which is known."""
    model = line(path)
    noise = torch.randn(40, 1, dtype=torch.float64, generator=seeded())
    exact = transport(noise[:, 0], model.weights, model.means[:, 0], model.covariances.sqrt())
    integrate, order = ORDERS[solver]
    steps = [20, 40, 80, 160]
    errors = []
    for count in steps:
        end = integrate(lambda x, t: model.velocity(x, t), noise, uniform_times(count))
        errors.append(float((end[:, 0] - exact).square().mean().sqrt()))
    assert abs(slope(steps, errors) - order) < 0.12 * order
    assert errors[-1] < {1: 1e-2, 2: 4e-4}[order]


@pytest.mark.parametrize("start", [0.0, 0.2, 0.5, 0.8])
def test_solver_follows_the_map_of_gaussian_data_from_any_start(path, start, gaussian, seeded):
    """A Gaussian flow moves each state by the ratio of the marginals' square roots."""
    model = gaussian(path)
    flow = exact_flow(model)
    alpha, sigma = (scale(torch.tensor(start, dtype=torch.float64)) for scale in (path.alpha, path.sigma))
    values, basis = torch.linalg.eigh(model.covariances[0])
    x = torch.randn(20, 2, dtype=torch.float64, generator=seeded())
    ratio = (values / (alpha**2 * values + sigma**2)).sqrt()
    exact = model.means[0] + ((x - alpha * model.means[0]) @ basis * ratio) @ basis.T
    errors = [float((heun(flow.velocity, x, uniform_times(n, start)) - exact).abs().max()) for n in (16, 32)]
    assert errors[1] < 2e-3
    assert errors[0] / errors[1] > 3.2


def test_solvers_take_any_grid_and_either_direction(gaussian, seeded):
    velocity = gaussian().velocity
    x = torch.randn(20, 2, dtype=torch.float64, generator=seeded())
    there = heun(velocity, x, uniform_times(80) ** 1.3)
    torch.testing.assert_close(there, heun(velocity, x, uniform_times(80)), rtol=0, atol=1e-3)
    torch.testing.assert_close(heun(velocity, there, uniform_times(80).flip(0)), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("solver", ORDERS)
def test_solvers_are_exact_for_a_straight_path(solver, seeded):
    z, noise = torch.randn(2, 5, 3, dtype=torch.float64, generator=seeded())
    end = ORDERS[solver][0](lambda x, t: z - noise, noise, uniform_times(7))
    torch.testing.assert_close(end, z)


# ---------------------------------------------------------------- one network, three readings


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_gives_the_same_faces(path, prediction, correlated, seeded):
    model = correlated(path)
    flow = exact_flow(model, prediction)
    times = torch.linspace(0.02, 1, 30, dtype=torch.float64)
    x = torch.randn(30, 2, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(flow.denoise(x, times), model.denoise(x, times), rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.velocity(x, times), model.velocity(x, times), rtol=0, atol=1e-9)
    inside = times < 0.99
    score = flow.score(x, times)[inside]
    torch.testing.assert_close(score, model.score(x, times)[inside], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", ["velocity", "denoiser"])
def test_at_time_zero_the_denoiser_is_the_mean_of_the_data(path, prediction, correlated, seeded):
    model = correlated(path)
    x = torch.randn(5, 2, dtype=torch.float64, generator=seeded())
    flow = exact_flow(model, prediction)
    torch.testing.assert_close(flow.denoise(x, 0.0), model.mean().expand(5, 2))
    torch.testing.assert_close(flow.velocity(x, 0.0), model.velocity(x, 0.0))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_are_finite_with_their_gradients(path, prediction, t, seeded):
    """Whatever a network says there: this one says something arbitrary."""
    flow = Flow(lambda x, t: torch.sin(3 * x), path, (2,), prediction)
    x = torch.randn(5, 2, generator=seeded()).requires_grad_()
    for face in (flow.velocity, flow.denoise):
        found = face(x, t)
        assert found.isfinite().all()
        assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()


def test_clean_data_are_their_own_denoiser(path, seeded):
    x = torch.randn(5, 2, generator=seeded())
    for prediction in ("velocity", "noise"):
        flow = Flow(lambda x, t: torch.sin(3 * x), path, (2,), prediction)
        torch.testing.assert_close(flow.denoise(x, 1.0), x)


def test_conditioning_reaches_the_network_untouched(seeded):
    seen = []

    def net(x, t, *cond):
        seen.append(cond)
        return -x

    flow = Flow(net, event_shape=(2,))
    cond = {"label": torch.arange(4)}
    x = flow.prior(4, generator=seeded())
    flow.velocity(x, 0.5)
    flow.velocity(x, 0.5, cond=cond)
    flow.denoise(x, 0.5, cond=cond)
    flow.sample(4, steps=2, cond=cond, generator=seeded())
    assert seen[0] == ()
    assert len(seen) == 5
    assert all(got[0] is cond for got in seen[1:])


def test_every_sample_meets_the_network_at_its_own_time(seeded):
    flow = Flow(lambda x, t: t[:, None] * x, event_shape=(2,))
    x, t = torch.ones(3, 2, dtype=torch.float64), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(flow.velocity(x, t), t[:, None] * x)
    torch.testing.assert_close(flow.velocity(x, 0.7), 0.7 * x, rtol=0, atol=0)


# ---------------------------------------------------------------- samplers


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize("solver", ORDERS)
def test_ode_samples_have_the_law_of_the_data(solver, path, correlated, seeded, check_law):
    model = correlated(path)
    steps, slack = {"euler": (50, 0.02), "heun": (25, 0.004)}[solver]
    draws = exact_flow(model).sample(4_000, steps, solver=solver, generator=seeded())
    check_law(draws, model.mean(), model.covariance(), slack=slack)


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)
def test_ancestral_samples_have_the_law_of_the_data(path, correlated, seeded, check_law):
    model = correlated(path)
    draws = exact_flow(model).sample(4_000, 60, eta=1.0, generator=seeded())
    check_law(draws, model.mean(), model.covariance(), slack=0.02)


@pytest.mark.parametrize("eta", [0.2, 1.0])
def test_ancestral_step_has_its_formula(path, eta, correlated, seeded):
    """x' = a' D + sqrt(s'^2 - q^2) (x - a D) / s + q noise, with q the share eta of DDPM's noise."""
    model, generator = correlated(path), seeded()
    x = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    for t, t_next in uniform_times(4).unfold(0, 2, 1):
        (a, s), (a_next, s_next) = ((path.alpha(u), path.sigma(u)) for u in (t, t_next))
        added = eta * s_next * (1 - (a * s_next / (s * a_next)) ** 2).sqrt()
        mean, noise = model.denoise(x, t), torch.randn(5, 2, dtype=torch.float64, generator=generator)
        x = a_next * mean + (s_next**2 - added**2).sqrt() * (x - a * mean) / s + added * noise
    torch.testing.assert_close(exact_flow(model).sample(5, 4, eta=eta, generator=seeded()), x)


def chain_law(model, steps, eta):
    """Mean and covariance of the ancestral sampler of Gaussian data: each step is affine in the state."""
    path, eye = model.interpolant, torch.eye(2, dtype=torch.float64)
    mean, covariance = torch.zeros(2, dtype=torch.float64), eye
    data = model.covariances[0]
    for t, t_next in uniform_times(steps).unfold(0, 2, 1):
        alpha, sigma = path.alpha(t), path.sigma(t)
        gain = alpha * data @ torch.linalg.inv(alpha**2 * data + sigma**2 * eye)
        added = eta * transition_scales(path, t[None], t_next[None], None).sigma[0]
        kept = (path.sigma(t_next) ** 2 - added**2).clamp_min(0).sqrt() / sigma
        linear = path.alpha(t_next) * gain + kept * (eye - alpha * gain)
        offset = (path.alpha(t_next) - kept * alpha) * (model.means[0] - alpha * gain @ model.means[0])
        mean, covariance = linear @ mean + offset, linear @ covariance @ linear.T + added**2 * eye
    return mean, covariance


@pytest.mark.parametrize("eta", [0.6, 1.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_ancestral_sampler_of_gaussian_data_has_its_exact_law_at_any_number_of_steps(
    path, eta, steps, gaussian, seeded, check_law
):
    """No tolerance for discretisation: the chain's own law is known."""
    model = gaussian(path)
    check_law(exact_flow(model).sample(10_000, steps, eta=eta, generator=seeded()), *chain_law(model, steps, eta))


def test_ancestral_sampler_converges_to_the_data_at_first_order(path, gaussian):
    model = gaussian(path)
    steps = [32, 64, 128, 256]
    errors = [float((chain_law(model, n, 1.0)[1] - model.covariances[0]).norm()) for n in steps]
    assert abs(slope(steps, errors) - 1) < 0.15


def test_evaluations_are_counted_per_sample(correlated):
    flow = exact_flow(correlated())
    for call, cost in (
        (lambda: flow.sample(10, steps=3), 30),
        (lambda: flow.sample(10, steps=3, solver="heun"), 60),
        (lambda: flow.sample(10, steps=3, eta=1.0), 30),
        (lambda: flow.velocity(torch.zeros(7, 2).double(), 0.5), 7),
        (lambda: flow.denoise(torch.zeros(7, 2).double(), 0.5), 7),
    ):
        flow.nfe = 0
        call()
        assert flow.nfe == cost


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_follow_their_generators(eta, correlated):
    def draw(n, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return exact_flow(correlated()).sample(n, 4, eta=eta, generator=generators)

    together = draw(6, [1, 2, 3])
    torch.testing.assert_close(together[2:4], draw(2, [2]), rtol=0, atol=1e-12)
    assert not torch.equal(together[:2], together[2:4])


def test_samples_have_the_dtype_of_the_network(correlated):
    assert exact_flow(correlated()).sample(2, 2).dtype == torch.float64
    assert Flow(torch.nn.Bilinear(2, 1, 2), event_shape=(2,)).dtype == torch.float32


def test_the_path_is_linear_unless_told_otherwise():
    assert isinstance(Flow(lambda x, t: x, event_shape=(2,)).interpolant, Linear)
    assert isinstance(Flow(lambda x, t: x, Cosine(), (2,)).interpolant, Cosine)


def test_a_network_from_data_to_noise_is_adapted_as_the_docstring_says(seeded, check_law):
    """Of Gaussian data, `dx_s / ds = E[noise - data | x_s]` at `x_s = (1 - s) data + s noise`, with plain matrices."""
    mean = torch.tensor([0.6, -0.3], dtype=torch.float64)
    covariance, eye = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)

    def gain(s):
        return (1 - s) * covariance @ torch.linalg.inv((1 - s) ** 2 * covariance + s**2 * eye)

    def v(x, s):
        s = float(s[0])
        gap = x - (1 - s) * mean
        return s * gap @ torch.linalg.inv((1 - s) ** 2 * covariance + s**2 * eye) - mean - gap @ gain(s).T

    flow = Flow(lambda x, t: -v(x, 1 - t), event_shape=(2,))
    x = torch.randn(5, 2, dtype=torch.float64, generator=seeded())
    for t in (0.2, 0.7):
        expected = mean + (x - t * mean) @ gain(1 - t).T
        assert torch.allclose(flow.denoise(x, t), expected, rtol=1e-5, atol=1e-6)  # times in float32 or better
    noise = torch.randn(20_000, 2, dtype=torch.float64, generator=seeded())
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    check_law(heun(flow.velocity, noise, times), mean, covariance, slack=2e-3)
