"""Weighted Diamond Maps, on flow maps that are exact.

On the line the only flow map is the monotone rearrangement, and for one Gaussian it is affine. Where the noise is put
on a fine grid, with its density added to the log-weights, estimates are integrals, and the closed forms of mixtures are
met to many digits; where it is drawn, they are met within the standard errors of the draws.
"""

import math
import warnings

import pytest
import torch

import diamond

from diamond.degeneracy import ALONE, DegenerateWeights, effective_size, warn_of_degeneracy
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine
from diamond.mixture import GaussianMixtureFlow
from diamond.model import Model
from diamond.nets import ResidualMLP
from diamond.randomness import SlicedNoise
from diamond.renoising import renoising
from diamond.weighted_map import WeightedDiamondMap

STATES = torch.tensor([[0.2], [-0.9], [1.3]], dtype=torch.float64)
LINEAR, PRECISION = torch.tensor([-2.0], dtype=torch.float64), 2.0  # r = -(z + 1)^2 / (2 * 0.5), but for a constant


def reward(z):
    return (z * LINEAR.to(z)).sum(-1) - PRECISION * z.square().sum(-1) / 2


class ExactMap(Model):
    """The flow map of a mixture, with its exact score and denoiser; counts as a network would."""

    def __init__(self, law, score_time=None):
        super().__init__(law.interpolant, law.event_shape)
        self.law, self.score_time = law, score_time

    def velocity(self, x_t, t, *, cond=None):
        return self.law.velocity(x_t, t)

    def denoise(self, x_t, t, *, cond=None):
        self.nfe += len(x_t)
        return self.law.denoise(x_t, t)

    def score(self, x_t, t, *, cond=None):
        assert not torch.is_grad_enabled()
        self.nfe += len(x_t)
        return self.law.score(x_t, t if self.score_time is None else self.score_time)

    def scales(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.interpolant.alpha(t), self.interpolant.sigma(t)


class LineMap(ExactMap):
    """On the line: to where the same share of the law lies below."""

    def share(self, x, t, side):
        """The log of the law's share below `x` `(N,)` at t where `side` `(N,)` is 1, and above where it is -1."""
        alpha, sigma = (scale.reshape(-1, 1) for scale in self.scales(t))
        gaps = (x[:, None] - alpha * self.law.means[:, 0]) / (alpha**2 * self.law.covariances + sigma**2).sqrt()
        return (self.law.weights.log() + torch.special.log_ndtr(side[:, None] * gaps)).logsumexp(-1)

    def forward(self, x, t, r, *, cond=None):
        self.nfe += len(x)
        start = x.detach()[:, 0]
        side = torch.where(
            self.share(start, t, torch.ones_like(start)) < math.log(0.5), 1.0, -1.0
        )  # the tail with more digits
        level, low, high = self.share(start, t, side), torch.full_like(start, -15.0), torch.full_like(start, 15.0)
        for _ in range(56):
            middle = (low + high) / 2
            below = side * (self.share(middle, r, side) - level) < 0
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        z = ((low + high) / 2)[:, None]
        slope = (self.law.log_prob(x, t) - self.law.log_prob(z, r)).detach().exp()[:, None]
        return z + slope * (x - x.detach())


class FloatMap(LineMap):
    """Computes in double precision whatever comes, and answers in kind."""

    def forward(self, x, t, r, *, cond=None):
        return super().forward(x.double(), t.double(), r).to(x.dtype)

    def score(self, x_t, t, *, cond=None):
        return super().score(x_t.double(), t.double()).to(x_t.dtype)


class GaussianMap(ExactMap):
    """For one Gaussian: keeps each principal direction's distance to the mean, in deviations."""

    def forward(self, x, t, r, *, cond=None):
        self.nfe += len(x)
        mean, (values, basis) = self.law.means[0], torch.linalg.eigh(self.law.covariances[0])
        (a, s), (a_r, s_r) = ((scale.reshape(-1, 1) for scale in self.scales(u)) for u in (t, r))
        ratio = ((a_r**2 * values + s_r**2) / (a**2 * values + s**2)).sqrt()
        return a_r * mean + ((x - a * mean) @ basis * ratio) @ basis.T


def gaussian(path=None, scale=1.0):
    covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]], dtype=torch.float64) * scale**2
    return GaussianMixtureFlow(torch.ones(1).double(), torch.tensor([[0.6, -0.3]]).double(), covariance, path)


def grid(size=2401, reach=12.0):
    """Noise `(size, 1, 1)` and the log of its density times the spacing `(size, 1)`."""
    noise = torch.linspace(-reach, reach, size, dtype=torch.float64)
    return noise[:, None, None], (-noise.square() / 2 + math.log(2 * reach / (size - 1) / math.sqrt(2 * math.pi)))[
        :, None
    ]


def quietly(function, *args, **kwargs):
    """What `function` gives, whatever it thinks of its weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateWeights)
        return function(*args, **kwargs)


def integrate(model, x, t, noise=None):
    """Proposals and log-weights on the grid of noise, the log-weights with the noise's density in them."""
    noise, log_density = noise or grid()
    z, log_weights = quietly(model.weighted_posterior, x, t, len(noise), noise=noise.expand(-1, *x.shape))
    return z, log_weights + log_density


def exact_gradient(law, x, t):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(law.value(x, t, LINEAR.expand(x.shape[1]), PRECISION).sum(), x)[0]


def check_value_and_gradient(model, law, x, t, noise=None, atol=1e-6):
    """Against the closed forms, for the estimator that needs no constants."""
    x = x.clone().requires_grad_()
    z, log_weights = integrate(model, x, t, noise)
    value = (reward(z) + log_weights).logsumexp(0) - log_weights.logsumexp(0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    exact = law.value(x, t, LINEAR.expand(x.shape[1]), PRECISION)
    torch.testing.assert_close(value, exact, rtol=0, atol=atol)
    torch.testing.assert_close(slope, exact_gradient(law, x.detach(), t), rtol=0, atol=atol)


# -------------------------------------------------------------------- the scales of the proposals


@pytest.mark.parametrize("snr", [1.1, 3.0, 50.0])
def test_noising_multiplies_the_noise_to_signal_ratio_and_keeps_the_marginal(path, snr):
    t = torch.tensor([0.05, 0.4, 0.9, 0.999], dtype=torch.float64)
    time, scale, noise = renoising(path, t, snr)
    torch.testing.assert_close(path.noise_to_signal(time), snr * path.noise_to_signal(t), rtol=1e-9, atol=0)
    torch.testing.assert_close(scale * path.alpha(t), path.alpha(time))
    torch.testing.assert_close((scale * path.sigma(t)).square() + noise.square(), path.sigma(time).square())
    assert (time < t).all()


def test_the_ends_of_time_stay_where_they_are(path):
    time, scale, noise = renoising(path, torch.tensor([0.0, 1.0]), 4.0)
    assert torch.allclose(time, torch.tensor([0.0, 1.0]).double(), atol=1e-12)
    assert torch.allclose(scale, torch.tensor([0.5, 1.0]).double())
    assert torch.allclose(noise, torch.tensor([0.75**0.5, 0.0]).double(), atol=1e-12)


@pytest.mark.parametrize("std", [0.3, 1.0, 20.0])
def test_matched_factor_is_two_and_the_noise_to_signal_ratio_of_the_data(path, std):
    t = torch.tensor([0.05, 0.4, 0.9, 0.999], dtype=torch.float64)
    matched = renoising(path, t, 3.0, std)
    factors = 2 + path.noise_to_signal(t) / std**2
    for i in range(len(t)):
        plain = renoising(path, t[i : i + 1], float(factors[i]))
        for found, expected in zip(matched, plain, strict=True):
            torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-9, atol=1e-12)


def test_matched_factor_makes_noise_of_noise_and_leaves_data(path):
    time, scale, noise = renoising(path, torch.tensor([0.0, 1.0]), 3.0, 0.5)
    for found, expected in zip((time, scale, noise), ([0.0, 1.0], [0.0, 1.0], [1.0, 0.0]), strict=True):
        torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_matched_proposals_of_isotropic_data_are_posterior_draws(path, std, seeded, posterior_law, moments, check_law):
    """In twelve dimensions, whatever the mean and the time, all weights are equal."""
    mean = torch.linspace(-2, 2, 12, dtype=torch.float64)[None]
    law = GaussianMixtureFlow(torch.ones(1).double(), mean, std**2 * torch.eye(12).double()[None], path)
    model, x = WeightedDiamondMap(GaussianMap(law), data_std=std), torch.randn(2, 12, generator=seeded(1)).double()
    for t in (0.0, 0.1, 0.6, 0.95):
        z, log_weights = model.weighted_posterior(x, t, 2000, generator=seeded())
        spread = log_weights - log_weights.mean(0)
        torch.testing.assert_close(spread, torch.zeros_like(spread), rtol=0, atol=1e-7)
        if t:
            check_law(z, *moments(*posterior_law(law, x, t)))


# -------------------------------------------------------------------- weights, as integrals


@pytest.mark.parametrize("snr", [1.7, 3.0, 10.0])
@pytest.mark.parametrize("t", [0.2, 0.6, 0.85])
def test_value_and_gradient_are_exact_on_the_line(path, t, snr, line):
    law = line(path)
    check_value_and_gradient(WeightedDiamondMap(LineMap(law), snr, quadrature=16), law, STATES, t)


@pytest.mark.parametrize("t", [0.0, 0.05, 0.6, 0.95])
def test_value_and_gradient_are_exact_with_a_matched_factor(path, t, line):
    law = line(path)
    check_value_and_gradient(WeightedDiamondMap(LineMap(law), quadrature=16, data_std=0.8), law, STATES, t)


@pytest.mark.parametrize("snr", [2.0, 5.0])
@pytest.mark.parametrize("t", [0.3, 0.7])
def test_value_and_gradient_of_a_gaussian_need_two_nodes_only(path, t, snr):
    law = gaussian(path)
    (axis, log_density), x = grid(141, 11.0), torch.tensor([[0.2, -0.5], [-0.9, 1.0]], dtype=torch.float64)
    noise = torch.cartesian_prod(axis.flatten(), axis.flatten())[:, None]
    plane = noise, (log_density + log_density.flatten()).reshape(-1, 1)
    check_value_and_gradient(WeightedDiamondMap(GaussianMap(law), snr), law, x, t, plane)


@pytest.mark.parametrize("t", [0.2, 0.6, 0.85])
def test_weighted_proposals_have_the_moments_of_the_posterior(path, t, line, posterior_law, moments):
    law = line(path)
    z, log_weights = integrate(WeightedDiamondMap(LineMap(law), 3.0, quadrature=16), STATES, t)
    weights = log_weights.softmax(0)[..., None]
    mean, covariance = moments(*posterior_law(law, STATES, t))
    torch.testing.assert_close((weights * z).sum(0), mean, rtol=0, atol=1e-7)
    torch.testing.assert_close((weights * (z - mean).square()).sum(0), covariance[..., 0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("snr", [2.0, 6.0])
@pytest.mark.parametrize("t", [0.15, 0.5, 0.8])
def test_constants_make_the_mean_weight_one(path, t, snr, line):
    """`log p_t'(x_t) - log p_t(x_t) + d log(s / sigma_t)`, with every term of the weights."""
    law = line(path)
    _, log_weights = integrate(WeightedDiamondMap(LineMap(law), snr, quadrature=16), STATES, t)
    time = torch.tensor([t], dtype=torch.float64)
    noisier, _, noise = renoising(path, time, snr)
    ratio = law.log_prob(STATES, noisier.item()) - law.log_prob(STATES, t)
    constant = ratio + (noise / path.sigma(time)).log()
    torch.testing.assert_close(log_weights.logsumexp(0) + constant, torch.zeros(3).double(), rtol=0, atol=1e-8)


def test_score_at_the_wrong_time_is_found_out(line):
    law = line()
    wrong = WeightedDiamondMap(LineMap(law, score_time=0.6), 3.0, quadrature=16)
    with pytest.raises(AssertionError, match="not close"):
        check_value_and_gradient(wrong, law, STATES, 0.6, atol=0.02)


def test_rules_of_few_nodes_come_near_in_turn(line):
    law, exact = line(), exact_gradient(line(), STATES, 0.5)
    errors = []
    for nodes in (2, 3, 5, 8):
        x = STATES.clone().requires_grad_()
        z, log_weights = integrate(WeightedDiamondMap(LineMap(law), 3.0, quadrature=nodes), x, 0.5)
        value = (reward(z) + log_weights).logsumexp(0) - log_weights.logsumexp(0)
        errors.append(float((torch.autograd.grad(value.sum(), x)[0] - exact).abs().max()))
    assert all(later < earlier / 3 for earlier, later in zip(errors[:-1], errors[1:], strict=True))


@pytest.mark.parametrize(("nodes", "published"), [(16, -2.888), (2, -2.863)])
def test_gradient_in_the_form_of_the_paper(nodes, published, line):
    """The terms averaged by the weights of values, without self-normalisation; figures computed elsewhere."""
    model, x = WeightedDiamondMap(LineMap(line()), 3.0, quadrature=nodes), STATES[:1].clone().requires_grad_()
    z, log_weights = integrate(model, x, 0.6)
    weights = (reward(z) + log_weights).softmax(0).detach()
    noise = grid()[0]
    terms = model.posterior_terms(x, 0.6, len(noise), noise=noise)
    torch.testing.assert_close(terms.z, z)
    assert not terms.score_difference.requires_grad
    (slope,) = torch.autograd.grad((weights * (reward(terms.z) + terms.recovery)).sum(), x)
    found = slope + (weights[..., None] * terms.score_difference).sum(0)
    assert float(found) == pytest.approx(published, abs=8e-3)  # of 200 000 draws
    if nodes == 16:
        torch.testing.assert_close(found, exact_gradient(line(), STATES[:1], 0.6), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("snr", "share"), [(2.0, 0.42), (2.5, 0.46), (3.0, 0.45), (4.0, 0.41), (10.0, 0.33), (20.0, 0.31)]
)
def test_share_of_effective_draws_under_a_reward(snr, share, line):
    """Figures computed elsewhere, for the weights with the reward in them."""
    z, log_weights = integrate(WeightedDiamondMap(LineMap(line()), snr, quadrature=16), STATES[:1], 0.6)
    tilted = log_weights + reward(z)
    found = (2 * tilted.logsumexp(0) - (2 * tilted - grid()[1]).logsumexp(0)).exp()
    assert float(found) == pytest.approx(share, abs=0.006)


def test_derivative_of_the_weights_is_that_of_their_exact_formula(line):
    """But for the constant of the state, whose derivative is the score's at `x_t`."""
    law, h = line(Cosine()), 1e-5
    model, noise = WeightedDiamondMap(LineMap(law), 3.0, quadrature=16), grid(9, 2.5)[0].expand(-1, 3, 1)

    def log_weights(x):
        return quietly(model.weighted_posterior, x, 0.5, 9, noise=noise)[1]

    x = STATES.clone().requires_grad_()
    ahead, behind = log_weights(STATES + h), log_weights(STATES - h)
    for i in range(9):
        (slope,) = torch.autograd.grad(log_weights(x)[i].sum(), x)
        torch.testing.assert_close(slope[:, 0], (ahead - behind)[i] / (2 * h), rtol=1e-6, atol=1e-6)


# -------------------------------------------------------------------- weights, as draws


def check_estimate(found, expected, influence, limit=4.5):
    """Within `limit` standard errors, which the delta method tells from what each draw adds, `(n, ...)`."""
    error = influence.std(0) / len(influence) ** 0.5
    assert ((found - expected).abs() <= limit * error).all(), ((found - expected) / error).tolist()
    assert (error < 0.1).all()


@pytest.mark.parametrize(("t", "snr"), [(0.3, 4.0), (0.6, 3.0), (0.8, 2.5)])
@pytest.mark.parametrize("interpolant", [None, Cosine()])
def test_value_and_gradient_are_consistent(interpolant, t, snr, line, seeded):
    """`V = logsumexp(r + lw) - logsumexp(lw)`, and its gradient as the difference of two weighted means."""
    law, n = line(interpolant), 20_000
    model = WeightedDiamondMap(LineMap(law), snr, quadrature=6)
    x = STATES[:1].expand(n, 1).clone().requires_grad_()  # a leaf for each draw
    z, log_weights = quietly(model.weighted_posterior, x, t, generator=seeded())
    r, lw = reward(z)[0], log_weights[0]
    tilted, plain = (r + lw).softmax(0).detach(), lw.softmax(0).detach()
    (of_both,) = torch.autograd.grad((r + lw).sum(), x, retain_graph=True)
    (of_weight,) = torch.autograd.grad(lw.sum(), x)
    value = (r + lw).logsumexp(0) - lw.logsumexp(0)
    means = (tilted[:, None] * of_both).sum(0), (plain[:, None] * of_weight).sum(0)
    influence = n * (tilted[:, None] * (of_both - means[0]) - plain[:, None] * (of_weight - means[1]))
    check_estimate(value, law.value(STATES[:1], t, LINEAR, PRECISION)[0], n * (tilted - plain))
    check_estimate(means[0] - means[1], exact_gradient(law, STATES[:1], t)[0], influence)
    # all draws of one state are these draws, and the derivative of the value is that difference
    one = STATES[:1].clone().requires_grad_()
    z_one, log_weights_one = quietly(model.weighted_posterior, one, t, n, generator=seeded())
    torch.testing.assert_close((z_one[:, 0], log_weights_one[:, 0]), (z[0], lw))
    v_one = (reward(z_one) + log_weights_one).logsumexp(0) - log_weights_one.logsumexp(0)
    torch.testing.assert_close(torch.autograd.grad(v_one.sum(), one)[0][0], means[0] - means[1])


def test_each_state_has_its_own_time_and_draws(line, seeded):
    model, t = WeightedDiamondMap(LineMap(line()), 3.0), torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)
    z, log_weights = quietly(model.weighted_posterior, STATES, t, 5, generator=[seeded(1), seeded(2), seeded(3)])
    for row in range(3):
        alone = quietly(model.weighted_posterior, STATES[row : row + 1], float(t[row]), 5, generator=[seeded(row + 1)])
        torch.testing.assert_close((z[:, row : row + 1], log_weights[:, row : row + 1]), alone)


@pytest.mark.parametrize("n", [1, 4])
def test_ends_of_time_are_finite(n, line, seeded):
    model = WeightedDiamondMap(LineMap(line()), 3.0)
    for t in (0.0, 1e-9, 1 - 1e-9, 1.0):
        x = STATES.clone().requires_grad_()
        z, log_weights = model.weighted_posterior(x, t, n, generator=seeded())
        (slope,) = torch.autograd.grad((z.sum(-1) * log_weights.softmax(0)).sum() + log_weights.sum(), x)
        assert z.isfinite().all() and log_weights.isfinite().all() and slope.isfinite().all()
    assert torch.equal(log_weights, torch.zeros(n, 3).double())
    torch.testing.assert_close(z, STATES.expand(n, 3, 1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("data_std", [None, 0.5])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_network_is_finite_at_the_ends_in_single_precision(scale, data_std, seeded):
    flow_map = FlowMap(lambda x, t, cond, times: scale * torch.sin(5 * x), None, (2, 3))
    model, x = WeightedDiamondMap(flow_map, proposals=4, data_std=data_std), torch.randn(4, 2, 3, generator=seeded())
    for t in (0.0, 1.0):
        x.requires_grad_()
        z, log_weights = quietly(model.weighted_posterior, x, t, 5, generator=seeded())
        slope = torch.autograd.grad(z.sum() + log_weights.sum(), x)[0]
        assert z.isfinite().all() and log_weights.isfinite().all() and slope.isfinite().all()
        assert model.posterior(x, t, 2, generator=seeded()).isfinite().all()


def test_weights_of_noise_lead_to_the_law_of_the_data(line):
    law = line()
    z, log_weights = integrate(WeightedDiamondMap(LineMap(law), 4.0), STATES, 0.0)
    mean = (log_weights.softmax(0)[..., None] * z).sum(0)
    torch.testing.assert_close(mean, law.mean().expand(3, 1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_single_precision_at_least(dtype, line, seeded):
    law = line()
    noise = torch.randn(6, 3, 1, dtype=torch.float64, generator=seeded())
    exact = WeightedDiamondMap(LineMap(law), 3.0).weighted_posterior(STATES, 0.5, 6, noise=noise)[1]
    model = WeightedDiamondMap(FloatMap(law), 3.0)
    found = model.weighted_posterior(STATES.to(dtype), 0.5, 6, noise=noise.to(dtype))[1]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-4 if dtype == torch.float32 else 0.5)


def test_conditioning_goes_with_its_state(seeded):
    def net(x, t, cond, times):
        return x + cond

    x, cond = torch.randn(4, 3, generator=seeded()), 10.0 * torch.arange(4.0)[:, None]
    model = WeightedDiamondMap(FlowMap(net, None, (3,)), 3.0, quadrature=4)
    z, log_weights = quietly(model.weighted_posterior, x, 0.3, 5, cond=cond, noise=torch.ones(5, 4, 3))
    for row in range(4):
        alone = (x[row : row + 1], 0.3, 1), {"cond": cond[row : row + 1], "noise": torch.ones(1, 1, 3)}
        z_alone, log_weights_alone = model.weighted_posterior(*alone[0], **alone[1])
        torch.testing.assert_close(z[:, row], z_alone[0].expand(5, 3))
        torch.testing.assert_close(log_weights[:, row], log_weights_alone[0].expand(5))


# -------------------------------------------------------------------- the posterior sampler


@pytest.mark.parametrize("t", [0.0, 0.4, 0.8])
def test_draws_have_the_law_of_the_posterior(t, line, posterior_law, moments, seeded, check_law):
    law, x = line(), STATES[:2]
    model = WeightedDiamondMap(LineMap(law), 4.0, proposals=150, quadrature=5)
    mean, covariance = moments(*posterior_law(law, x, t))
    check_law(model.posterior(x, t, 700, generator=seeded()), mean, covariance)


def test_few_proposals_fall_short_and_one_is_not_weighed(line, seeded):
    model, x = WeightedDiamondMap(LineMap(line()), 3.0, proposals=1), STATES.clone().requires_grad_()
    drawn = model.posterior(x, 0.6, 4, generator=seeded())
    proposed = model.weighted_posterior(x, 0.6, 4, generator=seeded())[0]
    torch.testing.assert_close(drawn, proposed)
    slopes = (torch.autograd.grad(z[2].sum(), x)[0] for z in (drawn, proposed))
    torch.testing.assert_close(*slopes)


def test_a_candidate_is_chosen_as_often_as_it_weighs(line, seeded, check_mean):
    """Candidates shared by every draw, by way of a noise that is read again and again."""
    model = WeightedDiamondMap(LineMap(line()), 3.0, proposals=3)
    noise = torch.tensor([-1.0, 0.2, 1.1], dtype=torch.float64)

    class Repeating(SlicedNoise):
        def take(self, draw, shape, batch_axis, device, dtype):
            if len(shape) == 2:
                return torch.rand(shape, generator=seeded(), dtype=dtype)
            return noise.reshape(1, 1, 3, 1).expand(shape)

    drawn = model.posterior(STATES, 0.6, 5000, generator=Repeating(seeded(), 3, 5000))
    z, log_weights = model.weighted_posterior(STATES, 0.6, 3, noise=noise.reshape(3, 1, 1).expand(3, 3, 1))
    share = (drawn[:, None] == z).squeeze(-1).double()  # (draws, candidates, states)
    assert (share.sum(1) == 1).all()
    check_mean(share, log_weights.softmax(0))


def test_draws_are_differentiable_through_the_chosen_and_the_same_with_and_without(line, seeded):
    law = line()
    model, x = WeightedDiamondMap(LineMap(law), 3.0, proposals=6), STATES.clone().requires_grad_()
    drawn = model.posterior(x, 0.5, 4, generator=seeded())
    torch.testing.assert_close(model.posterior(STATES, 0.5, 4, generator=seeded()), drawn)
    place = renoising(law.interpolant, torch.tensor([0.5]), 3.0)
    (slope,) = torch.autograd.grad(drawn[1].sum(), x)
    # dX/dx' = p_t'(x') / p_1(z), and x' is the place from which z is reached
    back = LineMap(law)(drawn[1].detach(), torch.ones(3).double(), float(place.time))
    expected = place.scale * (law.log_prob(back, float(place.time)) - law.log_prob(drawn[1].detach())).exp()
    torch.testing.assert_close(slope[:, 0], expected.detach(), rtol=1e-6, atol=1e-9)


def test_draws_do_not_depend_on_their_company(line, seeded):
    model, t = WeightedDiamondMap(LineMap(line()), 3.0, proposals=5), torch.tensor([0.2, 0.6, 0.9]).double()
    whole = model.posterior(STATES, t, 6, generator=SlicedNoise(seeded(), 3, 6))
    source = SlicedNoise(seeded(), 3, 6)
    for rows, draws in [(slice(0, 2), slice(0, 6)), (slice(2, 3), slice(0, 4)), (slice(2, 3), slice(4, 6))]:
        part = source.part(rows, draws)
        found = model.posterior(STATES[rows], t[rows], draws.stop - draws.start, generator=part)
        torch.testing.assert_close(found, whole[draws, rows])
    assert len(whole[:, 0].unique()) == 6


@pytest.mark.parametrize("rho", [None, 0.4])
def test_transitions_have_the_law_of_the_kernel(rho, line, kernel_moments, seeded, check_law):
    law = line(Cosine())
    model = WeightedDiamondMap(LineMap(law), 4.0, proposals=120, quadrature=5)
    found = model.transition(STATES[:1].expand(1500, 1), 0.4, 0.7, rho=rho, generator=seeded())
    mean, covariance = kernel_moments(law, STATES[:1], 0.4, 0.7, rho)
    check_law(found, mean[0], covariance[0])


def test_velocity_denoiser_and_score_are_the_flow_maps(line):
    flow_map = LineMap(line())
    model = WeightedDiamondMap(flow_map)
    with torch.no_grad():
        for name in ("velocity", "denoise", "score"):
            assert torch.equal(getattr(model, name)(STATES, 0.4), getattr(flow_map, name)(STATES, 0.4))
    assert isinstance(model, diamond.PosteriorSampler)
    assert diamond.WeightedDiamondMap is WeightedDiamondMap


@pytest.mark.parametrize("quadrature", [2, 3, 5])
def test_evaluations_are_counted_as_documented(quadrature, line):
    model = WeightedDiamondMap(LineMap(line()), 3.0, proposals=4, quadrature=quadrature)

    def cost(function, *args):
        model.nfe = 0
        function(*args)
        assert model.nfe == model.flow_map.nfe
        return model.nfe / len(STATES)

    assert cost(model.weighted_posterior, STATES, 0.5, 7) == quadrature * 7 + 1
    assert cost(model.posterior, STATES, 0.5, 3) == 3 * 4 * quadrature + 1
    assert cost(model.posterior, STATES.clone().requires_grad_(), 0.5, 3) == 3 * 4 * quadrature + 1 + 3
    assert cost(model.transition, STATES, 0.5, 0.7) == 4 * quadrature + 1
    assert cost(model.posterior_terms, STATES, 0.5, 7) == 2 * 7 + 1


# -------------------------------------------------------------------- degenerate weights, and the factor


def test_effective_size_of_known_weights():
    equal, single = torch.full((8,), -700.0), torch.tensor([0.0] + [-900.0] * 7)
    found = effective_size(torch.stack([equal, single, torch.tensor([2.0, 1, 0, 0, 0, 0, 0, 0]).log()], dim=1))
    torch.testing.assert_close(found, torch.tensor([8.0, 1.0, 9 / 5]))


@pytest.fixture
def many_axes():
    """The flow map of the standard normal law in twelve dimensions, where near factors leave few draws effective."""
    law = GaussianMixtureFlow(torch.ones(1).double(), torch.zeros(1, 12).double(), torch.eye(12).double()[None])
    return GaussianMap(law)


def test_weights_of_few_effective_draws_are_warned_of_once(many_axes, seeded):
    model = WeightedDiamondMap(many_axes, 1.1, proposals=40)
    t = torch.tensor([0.6, 0.6, 0.7], dtype=torch.float64)
    message = r"effective sample size is .* of 40 draws at snr=1.1 and t=0.6 to 0.7; diamond.choose_snr"
    for draw in (model.posterior, model.weighted_posterior):
        with pytest.warns(DegenerateWeights, match=message) as record:
            draw(torch.zeros(3, 12).double(), t, 40, generator=seeded())
        assert len(record) == 1
        assert record[0].filename == __file__


def test_weights_of_few_draws_or_good_ones_are_not_warned_of(many_axes, line, seeded):
    x = torch.zeros(3, 12).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WeightedDiamondMap(many_axes, 1.1).weighted_posterior(x, 0.6, 7, generator=seeded())
        WeightedDiamondMap(LineMap(line()), 3.0).weighted_posterior(STATES, 0.6, 200, generator=seeded())
        diamond.choose_snr(many_axes, x, 0.6, (1.01, 1.02), generator=seeded())


@pytest.mark.parametrize("draws", [4, 7])
def test_of_few_draws_one_that_outweighs_the_rest_in_every_state_is_warned_of(draws, seeded):
    t = torch.full((3,), 0.5)
    alone = torch.randn(draws, 3, generator=seeded())
    alone[1] += 20
    with pytest.warns(
        DegenerateWeights, match=f"largest effective sample size is 1 of {draws} draws at snr=3 and t=0.5"
    ):
        warn_of_degeneracy(alone, "snr=3", t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_degeneracy(alone[:3], "snr=3", t)
        alone[1, 2] -= 20
        warn_of_degeneracy(alone, "snr=3", t)


def test_false_alarms_of_four_draws_are_as_rare_as_is_said(seeded):
    """Of one state, whose weights are at the border of the rule for many draws: of 20000 numbers, 1 in 200."""
    border = math.log(5) ** 0.5 * torch.randn(4, 20000, generator=seeded()).double()
    rate = float((effective_size(border) < ALONE).double().mean())
    assert abs(rate - 0.005) < 4 * (0.005 / 20000) ** 0.5


def test_factor_of_broad_data_is_two(seeded):
    law = gaussian(scale=100.0)
    x = 50 * torch.randn(5, 2, dtype=torch.float64, generator=seeded(1))
    found = diamond.choose_snr(GaussianMap(law), x, 0.5, (1.2, 1.5, 2.0, 3.0, 10.0), generator=seeded())
    assert found == 2.0
    _, log_weights = WeightedDiamondMap(GaussianMap(law), 2.0).weighted_posterior(x, 0.5, 50, generator=seeded())
    assert (effective_size(log_weights) > 49).all()


def test_factor_is_the_one_of_most_effective_draws(line, seeded):
    flow_map, candidates = LineMap(line()), (1.1, 1.5, 3.0, 30.0)
    noise = torch.randn(40, 3, 1, dtype=torch.float64, generator=seeded())
    sizes = [
        effective_size(quietly(WeightedDiamondMap(flow_map, c).weighted_posterior, STATES, 0.6, 40, noise=noise)[1])
        for c in candidates
    ]
    best = max(range(4), key=lambda i: float(sizes[i].median()))
    assert diamond.choose_snr(flow_map, STATES, 0.6, candidates, 40, generator=seeded()) == candidates[best]
    assert diamond.choose_snr(flow_map, STATES, 0.0, (1.5, 3.0, 30.0), generator=seeded()) == 30.0


# -------------------------------------------------------------------- files, and what is refused


def test_what_is_saved_comes_back(tmp_path, seeded):
    net = ResidualMLP((1, 4, 4), width=8, depth=1, embedding=8, times=1)
    model = WeightedDiamondMap(FlowMap(net, Cosine()), 2.5, proposals=3, quadrature=4, data_std=0.7)
    model.metadata["data"] = "digits"
    model.save(tmp_path / "weighted.ckpt")
    found = diamond.load(tmp_path / "weighted.ckpt")
    assert (type(found), found.snr, found.proposals, found.quadrature) == (WeightedDiamondMap, 2.5, 3, 4)
    assert found.data_std == 0.7
    assert found.metadata == {"data": "digits"}
    x = torch.randn(2, 1, 4, 4, generator=seeded())
    drawn = [quietly(m.posterior, x, 0.5, 2, generator=seeded()) for m in (model, found)]
    torch.testing.assert_close(*drawn)


@pytest.mark.parametrize("snr", [1, 1.0, 0.5, -2.0, math.nan, math.inf, "3", True])
def test_factors_that_are_not_above_one_are_refused(snr, line):
    with pytest.raises(ValueError, match="^snr: got .*, expected a finite factor above 1"):
        WeightedDiamondMap(LineMap(line()), snr)


@pytest.mark.parametrize("data_std", [0.0, -1.0, math.nan, math.inf, "1"])
def test_standard_deviations_that_are_not_positive_are_refused(data_std, line):
    with pytest.raises(ValueError, match="^data_std: got .*, expected a positive standard deviation"):
        WeightedDiamondMap(LineMap(line()), data_std=data_std)


def test_what_is_no_flow_map_is_refused(line):
    flow = Flow(lambda x, t: x, event_shape=(1,))
    for other in (flow, GlassFlow(flow), line(), lambda x, t, r, cond=None: x, None):
        with pytest.raises(ValueError, match="^flow_map: got .* without .*, expected a flow map"):
            WeightedDiamondMap(other)


BAD_ARGUMENTS = {
    "n": ({"n": 0}, "^n: got 0"),
    "t": ({"t": 1.2}, "^t: got times from 1.2"),
    "x_t": ({"x_t": torch.zeros(3, 2)}, "^x_t: got shape"),
}


@pytest.mark.parametrize("method", ["weighted_posterior", "posterior", "posterior_terms"])
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_what_does_not_fit_is_refused_by_name(method, case, line):
    changed, message = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        getattr(WeightedDiamondMap(LineMap(line())), method)(**({"x_t": STATES, "t": 0.5, "n": 2} | changed))


def test_other_numbers_that_do_not_fit_are_refused_by_name(line):
    flow_map = LineMap(line())
    with pytest.raises(ValueError, match="^proposals: got 0"):
        WeightedDiamondMap(flow_map, proposals=0)
    with pytest.raises(ValueError, match="^quadrature: got 1, expected a whole number of at least 2"):
        WeightedDiamondMap(flow_map, quadrature=1)
    with pytest.raises(ValueError, match="^noise: got .*shape"):
        WeightedDiamondMap(flow_map).weighted_posterior(STATES, 0.5, 2, noise=torch.zeros(3, 3, 1))
    with pytest.raises(ValueError, match="^candidates: got none"):
        diamond.choose_snr(flow_map, STATES, 0.5, ())
    with pytest.raises(ValueError, match="^t_next: got 0.4"):
        WeightedDiamondMap(flow_map).transition(STATES, 0.5, 0.4)
