"""Diamond Maps: for Gaussian data the exact map is affine, so every law that a map keeps can be checked on it."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.glass import glass_velocity
from diamond.interpolant import Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.observation import combine_looks

LOOKS = torch.tensor([[0.3, -0.4], [-1.0, 1.5], [0.8, 0.1]], dtype=torch.float64)
STEPS = [(0.0, 0.3), (0.2, 0.5), (0.5, 0.8), (0.9, 0.95), (0.4, 1.0), (0.0, 1.0)]


class Affine:
    """The posterior flow of `x_t` for Gaussian data, in the eigenbasis of their covariance: from N(0, 1) to
    N(m', v') on the straight path, whose map from s to r keeps the distance to the mean in marginal deviations."""

    def __init__(self, path, mean, covariance):
        self.path, self.mean = path, mean
        self.values, self.basis = torch.linalg.eigh(covariance)

    def posterior(self, x_t, t):
        """Mean in the eigenbasis, variances."""
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        mean = self.mean @ self.basis
        noisy = alpha**2 * self.values + sigma**2
        return mean + alpha * self.values / noisy * (x_t @ self.basis - alpha * mean), sigma**2 * self.values / noisy

    def map(self, x_bar, s, r, x_t, t):
        mean, variance = self.posterior(x_t, t)
        s, r = s[:, None], r[:, None]
        before, after = (time**2 * variance + (1 - time) ** 2 for time in (s, r))
        return (r * mean + (after / before).sqrt() * (x_bar @ self.basis - s * mean)) @ self.basis.T


class ExactNet(torch.nn.Module):
    """The network that makes a Diamond Map exact: it undoes the parametrisation around the affine map."""

    def __init__(self, path, mean, covariance):
        super().__init__()
        self.path, self.event_shape = path, mean.shape
        self.register_buffer("mean", mean)
        self.exact = Affine(path, mean, covariance)
        self.model = GaussianMixtureFlow(torch.ones(1).double(), mean[None], covariance[None], path)

    def forward(self, x, time, cond, states, times):
        (noise,), (s, r, t) = states, times
        share = torch.where(r > s, (r - s) / (1 - s).clamp_min(1e-300), 1.0)[:, None]
        # the two looks from the statistic and the ancillary noise: a 2 x 2 system a sample
        looks = combine_looks(self.path, (self.path.alpha(t), self.path.sigma(t)), (s, 1 - s))
        (a, b), (c, d) = ((v[:, None] for v in pair) for pair in (looks.weights, looks.ancillary))
        ancillary, determinant = noise / share, a * d - b * c
        safe = torch.where(determinant != 0, determinant, 1.0)
        x_t, x_bar = (d * x - b * ancillary) / safe, (a * ancillary - c * x) / safe
        moved = x_bar + (self.exact.map(x_bar, s, r, x_t, t) - x_bar) / share
        endpoint = torch.where((r > s)[:, None], moved, self.model.denoise(x, time))
        return self.path.velocity_from_denoiser(x, time, endpoint)


@pytest.fixture
def data():
    """Mean and covariance of correlated Gaussian data in the plane."""
    return torch.tensor([0.6, -0.3]).double(), torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double()


@pytest.fixture
def exact(path, data):
    return Affine(path, *data)


@pytest.fixture
def model(path, data):
    """The same data as a mixture of one, whose laws are known."""
    return GaussianMixtureFlow(torch.ones(1).double(), data[0][None], data[1][None], path)


@pytest.fixture
def diamond(path, data):
    return DiamondMap(ExactNet(path, *data), path)


def full(value, like=LOOKS):
    return torch.full((len(like),), value, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the map


@pytest.mark.parametrize("t", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize(("s", "r"), [(0.0, 1.0), (0.0, 0.4), (0.3, 0.8), (0.3, 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_map_is_the_exact_one_when_its_network_is(diamond, exact, t, s, r):
    x_bar = randn(3, 2)
    found = diamond(x_bar, s, r, LOOKS, t)
    expected = exact.map(x_bar, full(s), full(r), LOOKS, full(t)) if r > s else x_bar
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_any_network_is_the_identity_where_the_times_meet(path):
    diamond = DiamondMap(lambda x, t, cond, states, times: torch.sin(5 * x) + states[0], path, (2,))
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    for t in (0.0, 0.6, 1.0):
        torch.testing.assert_close(diamond(LOOKS, times, times, LOOKS, t), LOOKS, rtol=0, atol=1e-14)


def test_map_moves_a_share_of_the_way_to_the_endpoint(path):
    """X = x_bar + (r - s) / (1 - s) (Z - x_bar), with Z the denoiser that the network's velocity stands for."""
    seen = {}

    def net(x, time, cond, states, times):
        seen.update(x=x, time=time, cond=cond, noise=states[0], times=times)
        return torch.sin(x)

    x_bar, t, s, r, cond = randn(3, 2), full(0.6), full(0.2), full(0.7), torch.arange(3)
    moved = DiamondMap(net, path, (2,))(x_bar, s, r, LOOKS, t, cond=cond)
    looks = combine_looks(path, (path.alpha(t), path.sigma(t)), (s, 1 - s))
    share = 0.5 / 0.8
    torch.testing.assert_close(seen["x"], looks.statistic(LOOKS, x_bar))
    torch.testing.assert_close(seen["time"], looks.time)
    torch.testing.assert_close(seen["noise"], share * looks.noise(LOOKS, x_bar))
    assert seen["cond"] is cond
    assert [float(time[0]) for time in seen["times"]] == [0.2, 0.7, 0.6]
    endpoint = path.denoiser_from_velocity(seen["x"], seen["time"], torch.sin(seen["x"]))
    torch.testing.assert_close(moved, x_bar + share * (endpoint - x_bar))


@pytest.mark.parametrize("t", [0.0, 0.4, 0.9])
def test_maps_compose(diamond, t):
    x_bar = randn(3, 2)
    halfway = diamond(x_bar, 0.1, 0.5, LOOKS, t)
    once = diamond(x_bar, 0.1, 0.9, LOOKS, t)
    torch.testing.assert_close(diamond(halfway, 0.5, 0.9, LOOKS, t), once, rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.9])
def test_map_moves_with_the_glass_velocity(diamond, model, t):
    """The Lagrangian law d/dr X_{s,r} = u_r(X_{s,r}), and the Eulerian d/ds X_{s,r} = -u_s . grad X_{s,r}."""
    x_bar, s, r, t = randn(3, 2), full(0.2), full(0.7), full(t)
    moved, speed = torch.func.jvp(lambda r: diamond.displace(x_bar, s, r, LOOKS, t), (r,), (torch.ones_like(r),))
    velocity = glass_velocity(model.denoise, model.interpolant, moved, r, LOOKS, t)
    torch.testing.assert_close(speed, velocity, rtol=1e-7, atol=1e-7)
    velocity = glass_velocity(model.denoise, model.interpolant, x_bar, s, LOOKS, t)
    tangents = (velocity, torch.ones_like(s))
    still = torch.func.jvp(lambda x, s: diamond.displace(x, s, r, LOOKS, t), (x_bar, s), tangents)[1]
    torch.testing.assert_close(still, torch.zeros_like(still), rtol=0, atol=1e-7)


def test_on_the_diagonal_a_flow_network_is_its_own_glass_teacher(path, model):
    """Whatever the network, at r -> s the map moves with the GLASS velocity of the flow that it is at zero noise."""

    def net(x, time, cond=None, states=(), times=()):
        more = sum(state.sin() for state in states) + sum((r - s)[:, None] for s, r, _ in (times,) if times)
        return torch.sin(2 * x) + time[:, None] + more

    diamond = DiamondMap(net, path, (2,))

    def denoise(x, t, cond=None):
        return path.denoiser_from_velocity(x, t, torch.sin(2 * x) + t[:, None])

    x_bar, s, t = randn(3, 2), full(0.3), full(0.6)
    speed = torch.func.jvp(lambda r: diamond.displace(x_bar, s, r, LOOKS, t), (s,), (torch.ones_like(s),))[1]
    torch.testing.assert_close(speed, glass_velocity(denoise, path, x_bar, s, LOOKS, t), rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- posterior


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_one_call_carries_noise_to_the_posterior(diamond, exact, t):
    """z = m(x_t) + sqrt(v) noise, draw by draw."""
    noise = randn(5, 3, 2)
    mean, variance = exact.posterior(LOOKS, full(t))
    expected = (mean + variance.sqrt() * (noise @ exact.basis)) @ exact.basis.T
    torch.testing.assert_close(diamond.posterior(LOOKS, t, 5, noise=noise), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_posterior_draws_have_the_exact_mean_and_covariance(
    diamond, model, t, seeded, check_law, posterior_law, moments
):
    draws = diamond.posterior(LOOKS, t, 10_000, generator=seeded())
    check_law(draws, *moments(*posterior_law(model, LOOKS, t)))


def test_several_shorter_maps_lead_to_the_same_draws(diamond):
    noise = randn(5, 3, 2)
    once = diamond.posterior(LOOKS, 0.4, 5, noise=noise)
    torch.testing.assert_close(diamond.posterior(LOOKS, 0.4, 5, noise=noise, steps=3), once, rtol=0, atol=1e-9)


def test_noise_replaces_the_generator(diamond, seeded):
    noise = torch.randn(6, 3, 2, dtype=torch.float64, generator=seeded(3))
    given = diamond.posterior(LOOKS, 0.4, 6, noise=noise)
    assert torch.equal(given, diamond.posterior(LOOKS, 0.4, 6, generator=seeded(3)))
    assert not torch.equal(given, diamond.posterior(LOOKS, 0.4, 6, generator=seeded(4)))


@pytest.mark.parametrize("shape", [(5, 3, 2), (6, 2, 2), (6, 3, 1), (3, 6, 2), (18, 2)])
def test_noise_of_another_shape_is_refused(data, shape):
    diamond = DiamondMap(ExactNet(Linear(), *data))
    with pytest.raises(ValueError, match=r"^noise: got .* expected a floating tensor of shape \(6, 3, 2\)"):
        diamond.posterior(LOOKS, 0.4, 6, noise=torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_gradient_through_a_draw_is_the_posterior_gain(diamond, exact, t, axis):
    """dz / dx_t = alpha S (alpha^2 S + sigma^2)^-1 for every draw."""
    x = LOOKS.clone().requires_grad_()
    slope = torch.autograd.grad(diamond.posterior(x, t, noise=randn(1, 3, 2))[0, :, axis].sum(), x)[0]
    alpha, sigma = (float(scale(full(t)[0])) for scale in (exact.path.alpha, exact.path.sigma))
    gain = exact.basis * (alpha * exact.values / (alpha**2 * exact.values + sigma**2)) @ exact.basis.T
    torch.testing.assert_close(slope, gain[axis].expand(3, 2), rtol=0, atol=1e-8)


# ---------------------------------------------------------------- transitions


@pytest.mark.parametrize(("t", "t_next"), STEPS)
def test_stopping_early_is_the_ddpm_kernel_draw_by_draw(diamond, model, exact, t, t_next, seeded, kernel_moments):
    """The stopped map is affine in its noise with the kernel's mean and the root of its covariance."""
    mean, covariance = kernel_moments(model, LOOKS, t, t_next)
    deviations = (exact.basis.T @ covariance @ exact.basis).diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    noise = torch.randn(LOOKS.shape, dtype=torch.float64, generator=seeded())
    expected = mean + (deviations * (noise @ exact.basis)) @ exact.basis.T
    found = diamond.transition(LOOKS, t, t_next, generator=seeded())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("t", "t_next"), STEPS)
@pytest.mark.parametrize("rho", [None, -0.5, 0.0, 0.4, 1.0])
def test_transitions_have_the_mean_and_covariance_of_their_kernel(
    diamond, model, t, t_next, rho, seeded, check_law, kernel_moments
):
    draws = diamond.transition(LOOKS.repeat(4_000, 1), t, t_next, rho=rho, generator=seeded())
    check_law(draws.reshape(-1, 3, 2), *kernel_moments(model, LOOKS, t, t_next, rho), slack=1e-9)


def test_stopping_time_makes_the_pair_worth_a_look_at_the_next_time(path):
    t, t_next = (v.flatten() for v in torch.meshgrid(*2 * [torch.linspace(0, 1, 21).double()], indexing="ij"))
    later = t_next > t
    t, t_next = t[later], t_next[later]
    stop = DiamondMap(lambda x: x, path, (2,)).stopping_time(t, t_next)
    assert (stop > 0).all()
    assert (stop <= 1).all()
    looks = combine_looks(path, (path.alpha(t), path.sigma(t)), (stop, 1 - stop))
    torch.testing.assert_close(looks.time, t_next, rtol=0, atol=1e-12)
    inside = (t > 0) & (t_next < 1)
    total = 1 / path.noise_to_signal(t) + 1 / Linear().noise_to_signal(stop)
    torch.testing.assert_close(total[inside], 1 / path.noise_to_signal(t_next)[inside])


def test_stopping_time_at_the_ends(path):
    """From pure noise to t' it is t' up to the clock of the path, and to the data it is the whole way."""
    times = torch.linspace(0.05, 0.95, 10).double()
    map_of = DiamondMap(lambda x: x, path, (2,))
    from_noise = map_of.stopping_time(torch.zeros_like(times), times)
    torch.testing.assert_close(from_noise, path.alpha(times) / (path.alpha(times) + path.sigma(times)))
    assert (map_of.stopping_time(times, torch.ones_like(times)) == 1).all()


def test_rows_of_a_batch_may_stand_at_different_times(diamond, seeded):
    t, t_next = torch.tensor([[0.0, 0.3, 0.8], [0.2, 1.0, 0.9]], dtype=torch.float64)
    noise = randn(1, 3, 2)
    drawn = diamond.posterior(LOOKS, t, noise=noise)
    moved = diamond.transition(LOOKS, t, t_next, generator=[seeded(0), seeded(1), seeded(2)])
    for i in range(3):
        row = slice(i, i + 1)
        torch.testing.assert_close(drawn[:, row], diamond.posterior(LOOKS[row], float(t[i]), noise=noise[:, row]))
        alone = diamond.transition(LOOKS[row], float(t[i]), float(t_next[i]), generator=seeded(i))
        torch.testing.assert_close(moved[row], alone)


# ---------------------------------------------------------------- samples, denoiser, costs


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_step_samples_have_the_law_of_the_data(diamond, data, steps, seeded, check_law):
    check_law(diamond.sample(10_000, steps, generator=seeded()), *data)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_denoiser_and_velocity_are_those_of_the_data(diamond, model, t):
    torch.testing.assert_close(diamond.denoise(LOOKS, t), model.denoise(LOOKS, t), rtol=0, atol=1e-9)
    torch.testing.assert_close(diamond.velocity(LOOKS, t), model.velocity(LOOKS, t), rtol=0, atol=1e-9)
    if t < 1:
        torch.testing.assert_close(diamond.score(LOOKS, t), model.score(LOOKS, t), rtol=0, atol=1e-8)


def test_denoiser_is_the_diagonal_of_the_map_at_its_start(path):
    """x_bar + d/dr X at r = s = 0 is the mean of the posterior, whatever the inner noise."""

    def net(x, time, cond, states, times):
        s, r, t = times
        return torch.sin(2 * x) + states[0] + (time + 2 * s - 3 * r + t)[:, None]

    diamond = DiamondMap(net, path, (2,))
    x_bar, zero, t = randn(3, 2), full(0.0), full(0.6)
    speed = torch.func.jvp(lambda r: diamond.displace(x_bar, zero, r, LOOKS, t), (zero,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(x_bar + speed, diamond.denoise(LOOKS, t))


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_are_finite_with_their_gradients(path, t, seeded):
    """Whatever a network says there: this one says something arbitrary."""
    diamond = DiamondMap(lambda x, time, cond, states, times: torch.sin(3 * x) + states[0], path, (2,))
    x = LOOKS.clone().requires_grad_()
    calls = [diamond.posterior(x, t, 4, generator=seeded()), diamond.denoise(x, t), diamond.velocity(x, t)]
    if t == 0:
        calls += [diamond.transition(x, t, 1.0, generator=seeded()), diamond.transition(x, t, 0.5, rho=0.3)]
    for found in calls:
        assert found.isfinite().all()
        assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()


def test_clean_data_stay_what_they_are_whatever_the_network_says(path, seeded):
    diamond = DiamondMap(lambda x, time, cond, states, times: torch.sin(3 * x) + states[0], path, (2,))
    torch.testing.assert_close(diamond.posterior(LOOKS, 1.0, 4, generator=seeded()), LOOKS.expand(4, 3, 2))


def test_evaluations_are_counted_per_draw(diamond):
    for call, cost in (
        (lambda: diamond.posterior(LOOKS, 0.4, 5), 15),
        (lambda: diamond.posterior(LOOKS, 0.4, 5, steps=3), 45),
        (lambda: diamond.transition(LOOKS, 0.4, 0.8), 3),
        (lambda: diamond.transition(LOOKS, 0.4, 0.8, rho=0.0), 3),
        (lambda: diamond.sample(7, 4), 28),
        (lambda: diamond.denoise(LOOKS, 0.4), 3),
        (lambda: diamond.velocity(LOOKS, 0.4), 3),
        (lambda: diamond(LOOKS, 0.1, 0.4, LOOKS, 0.4), 3),
    ):
        diamond.nfe = 0
        call()
        assert diamond.nfe == cost


def test_every_draw_of_a_row_has_the_rows_conditioning(seeded):
    """A network that points at its label: from clean looks every draw ends on it."""

    def net(x, time, cond, states, times):
        return (cond[:, None] - x) / (1 - time[:, None]).clamp_min(1e-3)

    diamond = DiamondMap(net, event_shape=(2,))
    cond = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    expected = cond[:, None].expand(4, 3, 2)
    torch.testing.assert_close(diamond.posterior(LOOKS, 0.4, 4, cond=cond, generator=seeded()), expected)
    found = diamond.posterior(LOOKS, 0.4, 4, cond=cond, generator=seeded(), steps=2)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(diamond.transition(LOOKS, 0.4, 1.0, cond=cond), expected[0])


def test_draws_of_a_population_do_not_depend_on_the_others(diamond):
    x = randn(6, 2)

    def draw(rows, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = diamond.posterior(x[rows], 0.5, 3, generator=generators)
        return drawn, diamond.transition(x[rows], 0.5, 0.8, generator=generators)

    posterior, moved = draw(slice(0, 6), [1, 2, 3])
    alone_posterior, alone_moved = draw(slice(2, 4), [2])
    torch.testing.assert_close(posterior[:, 2:4], alone_posterior, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved[2:4], alone_moved, rtol=0, atol=1e-12)
