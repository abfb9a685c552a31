"""Flow maps: for Gaussian data the exact two-time map is affine, and every law of a map can be checked on it."""

import pytest
import torch

from diamond.flow import heun
from diamond.flow_map import FlowMap
from diamond.mixture import GaussianMixtureFlow
from diamond.transition import gaussian_step

STATES = torch.tensor([[0.3, -0.4], [-1.0, 1.5], [0.8, 0.1]], dtype=torch.float64)
PAIRS = [(0.0, 1.0), (0.0, 0.4), (0.3, 0.8), (0.3, 1.0), (0.7, 0.72)]


def full(value):
    return torch.full((len(STATES),), value, dtype=torch.float64)


class ExactNet(torch.nn.Module):
    """The network that makes a flow map exact: it undoes the parametrisation around the affine map of Gaussian data,
    which keeps each direction's distance to the mean in marginal deviations."""

    def __init__(self, model):
        super().__init__()
        self.model, self.path, self.event_shape = model, model.interpolant, model.event_shape
        self.values, self.basis = torch.linalg.eigh(model.covariances[0])

    def map(self, x, t, r):
        (a, s), (a_r, s_r) = ((self.path.alpha(u)[:, None], self.path.sigma(u)[:, None]) for u in (t, r))
        ratio = ((a_r**2 * self.values + s_r**2) / (a**2 * self.values + s**2)).sqrt()
        return a_r * self.model.means[0] + ((x - a * self.model.means[0]) @ self.basis * ratio) @ self.basis.T

    def forward(self, x, t, cond, times):
        (r,) = times
        (a, s), (a_r, s_r) = ((self.path.alpha(u)[:, None], self.path.sigma(u)[:, None]) for u in (t, r))
        shrink = torch.where(s > 0, s_r / s, 1.0)
        later = (r > t)[:, None]
        gain = torch.where(later, a_r - shrink * a, 1.0)
        endpoint = torch.where(later, (self.map(x, t, r) - shrink * x) / gain, self.model.denoise(x, t))
        return self.path.velocity_from_denoiser(x, t, endpoint)


@pytest.fixture
def model(path):
    covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]], dtype=torch.float64)
    mean = torch.tensor([[0.6, -0.3]], dtype=torch.float64)
    return GaussianMixtureFlow(torch.ones(1).double(), mean, covariance, path)


@pytest.fixture
def flow_map(model):
    return FlowMap(ExactNet(model), model.interpolant)


@pytest.mark.parametrize(("t", "r"), PAIRS)
def test_map_is_the_exact_one_when_its_network_is(flow_map, t, r):
    expected = flow_map.net.map(STATES, full(t), full(r))
    torch.testing.assert_close(flow_map(STATES, t, r), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("t", "r"), PAIRS)
def test_map_goes_where_the_ode_goes(flow_map, model, t, r):
    end = heun(model.velocity, STATES, torch.linspace(t, r, 61, dtype=torch.float64))
    torch.testing.assert_close(flow_map(STATES, t, r), end, rtol=0, atol=1e-3)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_any_network_is_the_identity_where_the_times_meet(path, t):
    flow_map = FlowMap(lambda x, t, cond, times: torch.sin(5 * x), path, (2,))
    torch.testing.assert_close(flow_map(STATES, t, t), STATES, rtol=0, atol=1e-14)


def test_map_is_the_step_that_is_exact_for_a_constant_endpoint(path):
    """X = sigma_r / sigma_t x + (alpha_r - sigma_r / sigma_t alpha_t) Z."""
    seen = {}

    def net(x, t, cond, times):
        seen.update(t=t, cond=cond, r=times[0])
        return torch.sin(x)

    t, r, cond = full(0.3), full(0.8), torch.arange(3)
    found = FlowMap(net, path, (2,))(STATES, 0.3, 0.8, cond=cond)
    endpoint = path.denoiser_from_velocity(STATES, t, torch.sin(STATES))
    noise = path.noise_from_denoiser(STATES, t, endpoint)
    torch.testing.assert_close(found, path.interpolate(endpoint, noise, r))
    assert torch.equal(seen["t"], t)
    assert torch.equal(seen["r"], r)
    assert seen["cond"] is cond


def test_maps_compose(flow_map):
    halfway = flow_map(STATES, 0.1, 0.5)
    torch.testing.assert_close(flow_map(halfway, 0.5, 0.9), flow_map(STATES, 0.1, 0.9), rtol=0, atol=1e-10)


def test_map_moves_with_the_velocity_of_the_ode(flow_map, model):
    """The Lagrangian law d/dr X_{t,r} = u_r(X_{t,r}), and the Eulerian d/dt X_{t,r} = -u_t . grad X_{t,r}."""
    t, r = full(0.3), full(0.8)
    moved, speed = torch.func.jvp(lambda r: flow_map.displace(STATES, t, r), (r,), (torch.ones_like(r),))
    torch.testing.assert_close(speed, model.velocity(moved, r), rtol=1e-8, atol=1e-8)
    tangents = (model.velocity(STATES, t), torch.ones_like(t))
    still = torch.func.jvp(lambda x, t: flow_map.displace(x, t, r), (STATES, t), tangents)[1]
    torch.testing.assert_close(still, torch.zeros_like(still), rtol=0, atol=1e-8)


def test_on_the_diagonal_any_map_moves_with_its_own_velocity(path):
    flow_map = FlowMap(lambda x, t, cond, times: torch.sin(2 * x) + times[0][:, None], path, (2,))
    t = full(0.4)
    speed = torch.func.jvp(lambda r: flow_map.displace(STATES, t, r), (t,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(speed, flow_map.velocity(STATES, 0.4))
    torch.testing.assert_close(speed, torch.sin(2 * STATES) + 0.4)


@pytest.mark.parametrize("steps", [1, 3])
def test_samples_have_the_law_of_the_data(flow_map, model, steps, seeded, check_law):
    check_law(flow_map.sample(10_000, steps, generator=seeded()), model.mean(), model.covariance())


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_denoiser_and_velocity_are_those_of_the_data(flow_map, model, t):
    torch.testing.assert_close(flow_map.denoise(STATES, t), model.denoise(STATES, t), rtol=0, atol=1e-10)
    torch.testing.assert_close(flow_map.velocity(STATES, t), model.velocity(STATES, t), rtol=0, atol=1e-9)
    if t < 1:
        torch.testing.assert_close(flow_map.score(STATES, t), model.score(STATES, t), rtol=0, atol=1e-8)


def test_posterior_is_one_look_ahead_many_times(flow_map):
    draws = flow_map.posterior(STATES, 0.3, 4)
    torch.testing.assert_close(draws, flow_map(STATES, 0.3, 1.0).expand(4, 3, 2))
    assert flow_map.nfe == 2 * len(STATES)


@pytest.mark.parametrize("rho", [None, -0.5, 0.4])
def test_transition_is_a_gaussian_step_around_the_look_ahead(flow_map, path, rho, seeded):
    found = flow_map.transition(STATES, 0.3, 0.6, rho=rho, generator=seeded())
    noise = torch.randn(STATES.shape, dtype=torch.float64, generator=seeded())
    ahead = flow_map(STATES, 0.3, 1.0)
    torch.testing.assert_close(found, gaussian_step(path, STATES, ahead, full(0.3), full(0.6), rho, noise))
    torch.testing.assert_close(flow_map.transition(STATES, 0.3, 1.0, rho=rho), ahead)


def test_transitions_of_data_without_spread_keep_the_marginals(path, seeded, check_law):
    """Where the posterior is a point the look-ahead is the posterior: DDPM from noise to 0.6 of a single point."""
    point = torch.tensor([[0.6, -0.3]], dtype=torch.float64)
    flow_map = FlowMap(lambda x, t, cond, times: path.velocity_from_denoiser(x, t, point.expand_as(x)), path, (2,))
    x = torch.randn(10_000, 2, dtype=torch.float64, generator=seeded())
    x = flow_map.transition(x, 0.0, 0.4, generator=seeded(1))
    x = flow_map.transition(x, 0.4, 0.6, generator=seeded(2))
    alpha, sigma = path.alpha(full(0.6))[0], path.sigma(full(0.6))[0]
    check_law(x, alpha * point[0], sigma**2 * torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_are_finite_with_their_gradients(path, t):
    """Whatever a network says there: this one says something arbitrary."""
    flow_map = FlowMap(lambda x, t, cond, times: torch.sin(3 * x), path, (2,))
    x = STATES.clone().requires_grad_()
    for found in (flow_map.posterior(x, t, 2), flow_map.denoise(x, t), flow_map.velocity(x, t), flow_map(x, t, 1.0)):
        assert found.isfinite().all()
        assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()


def test_gradient_through_the_look_ahead_is_the_slope_of_the_affine_map(flow_map, model):
    x = STATES.clone().requires_grad_()
    slope = torch.autograd.grad(flow_map.posterior(x, 0.4)[0, :, 0].sum(), x)[0]
    net, path = flow_map.net, model.interpolant
    noisy = path.alpha(full(0.4))[0] ** 2 * net.values + path.sigma(full(0.4))[0] ** 2
    expected = (net.basis * (net.values / noisy).sqrt()) @ net.basis.T
    torch.testing.assert_close(slope, expected[0].expand(3, 2))


def test_rows_of_a_batch_may_stand_at_different_times(flow_map):
    t, r = torch.tensor([[0.0, 0.3, 0.8], [0.2, 1.0, 0.8]], dtype=torch.float64)
    together = flow_map(STATES, t, r)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], flow_map(STATES[i : i + 1], float(t[i]), float(r[i])))


def test_evaluations_are_counted_per_sample(flow_map):
    for call, cost in (
        (lambda: flow_map(STATES, 0.1, 0.4), 3),
        (lambda: flow_map.posterior(STATES, 0.4, 5), 3),
        (lambda: flow_map.transition(STATES, 0.4, 0.8), 3),
        (lambda: flow_map.denoise(STATES, 0.4), 3),
        (lambda: flow_map.sample(7, 4), 28),
    ):
        flow_map.nfe = 0
        call()
        assert flow_map.nfe == cost
