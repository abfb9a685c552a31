"""Weights of random proposals: consistent estimates, finite ends, precisions and conditioning."""

import pytest
import torch

from diamond.flow_map import FlowMap
from diamond.interpolant import Cosine
from diamond.mixture import GaussianMixtureFlow
from diamond.weighted_map import WeightedDiamondMap


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_matched_proposals_of_isotropic_data_are_posterior_draws(
    path, std, seeded, posterior_law, moments, check_law, gaussian_map
):
    """In twelve dimensions, whatever the mean and the time, all weights are equal."""
    mean = torch.linspace(-2, 2, 12, dtype=torch.float64)[None]
    law = GaussianMixtureFlow(torch.ones(1).double(), mean, std**2 * torch.eye(12).double()[None], path)
    model, x = WeightedDiamondMap(gaussian_map(law), data_std=std), torch.randn(2, 12, generator=seeded(1)).double()
    for t in (0.0, 0.1, 0.6, 0.95):
        z, log_weights = model.weighted_posterior(x, t, 2000, generator=seeded())
        spread = log_weights - log_weights.mean(0)
        torch.testing.assert_close(spread, torch.zeros_like(spread), rtol=0, atol=1e-7)
        if t:
            check_law(z, *moments(*posterior_law(law, x, t)))


def check_estimate(found, expected, influence, limit=4.5):
    """Within `limit` standard errors, which the delta method tells from what each draw adds, `(n, ...)`."""
    error = influence.std(0) / len(influence) ** 0.5
    assert ((found - expected).abs() <= limit * error).all(), ((found - expected) / error).tolist()
    assert (error < 0.1).all()


@pytest.mark.parametrize(("t", "snr"), [(0.3, 4.0), (0.6, 3.0), (0.8, 2.5)])
@pytest.mark.parametrize("interpolant", [None, Cosine()])
def test_value_and_gradient_are_consistent(interpolant, t, snr, line, seeded, line_map, states, quietly, reward):
    """`V = logsumexp(r + lw) - logsumexp(lw)`, and its gradient as the difference of two weighted means."""
    law, n = line(interpolant), 20_000
    model = WeightedDiamondMap(line_map(law), snr, quadrature=6)
    x = states[:1].expand(n, 1).clone().requires_grad_()  # a leaf for each draw
    z, log_weights = quietly(model.weighted_posterior, x, t, generator=seeded())
    r, lw = reward(z)[0], log_weights[0]
    tilted, plain = (r + lw).softmax(0).detach(), lw.softmax(0).detach()
    (of_both,) = torch.autograd.grad((r + lw).sum(), x, retain_graph=True)
    (of_weight,) = torch.autograd.grad(lw.sum(), x)
    value = (r + lw).logsumexp(0) - lw.logsumexp(0)
    means = (tilted[:, None] * of_both).sum(0), (plain[:, None] * of_weight).sum(0)
    influence = n * (tilted[:, None] * (of_both - means[0]) - plain[:, None] * (of_weight - means[1]))
    check_estimate(value, reward.value(law, states[:1], t)[0], n * (tilted - plain))
    check_estimate(means[0] - means[1], reward.gradient(law, states[:1], t)[0], influence)
    # all draws of one state are these draws, and the derivative of the value is that difference
    one = states[:1].clone().requires_grad_()
    z_one, log_weights_one = quietly(model.weighted_posterior, one, t, n, generator=seeded())
    torch.testing.assert_close((z_one[:, 0], log_weights_one[:, 0]), (z[0], lw))
    v_one = (reward(z_one) + log_weights_one).logsumexp(0) - log_weights_one.logsumexp(0)
    torch.testing.assert_close(torch.autograd.grad(v_one.sum(), one)[0][0], means[0] - means[1])


def test_each_state_has_its_own_time_and_draws(line, seeded, line_map, quietly, states):
    model, t = WeightedDiamondMap(line_map(line()), 3.0), torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)
    z, log_weights = quietly(model.weighted_posterior, states, t, 5, generator=[seeded(1), seeded(2), seeded(3)])
    for row in range(3):
        alone = quietly(model.weighted_posterior, states[row : row + 1], float(t[row]), 5, generator=[seeded(row + 1)])
        torch.testing.assert_close((z[:, row : row + 1], log_weights[:, row : row + 1]), alone)


@pytest.mark.parametrize("n", [1, 4])
def test_ends_of_time_are_finite(n, line, seeded, line_map, states):
    model = WeightedDiamondMap(line_map(line()), 3.0)
    for t in (0.0, 1e-9, 1 - 1e-9, 1.0):
        x = states.clone().requires_grad_()
        z, log_weights = model.weighted_posterior(x, t, n, generator=seeded())
        (slope,) = torch.autograd.grad((z.sum(-1) * log_weights.softmax(0)).sum() + log_weights.sum(), x)
        assert z.isfinite().all() and log_weights.isfinite().all() and slope.isfinite().all()
    assert torch.equal(log_weights, torch.zeros(n, 3).double())
    torch.testing.assert_close(z, states.expand(n, 3, 1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("data_std", [None, 0.5])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_network_is_finite_at_the_ends_in_single_precision(scale, data_std, seeded, quietly):
    flow_map = FlowMap(lambda x, t, cond, times: scale * torch.sin(5 * x), None, (2, 3))
    model, x = WeightedDiamondMap(flow_map, proposals=4, data_std=data_std), torch.randn(4, 2, 3, generator=seeded())
    for t in (0.0, 1.0):
        x.requires_grad_()
        z, log_weights = quietly(model.weighted_posterior, x, t, 5, generator=seeded())
        slope = torch.autograd.grad(z.sum() + log_weights.sum(), x)[0]
        assert z.isfinite().all() and log_weights.isfinite().all() and slope.isfinite().all()
        assert model.posterior(x, t, 2, generator=seeded()).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_single_precision_at_least(dtype, line, seeded, line_map, states):
    class FloatMap(line_map):
        """Computes in double precision whatever comes, and answers in kind."""

        def forward(self, x, t, r, *, cond=None):
            return super().forward(x.double(), t.double(), r).to(x.dtype)

        def score(self, x_t, t, *, cond=None):
            return super().score(x_t.double(), t.double()).to(x_t.dtype)

    law = line()
    noise = torch.randn(6, 3, 1, dtype=torch.float64, generator=seeded())
    exact = WeightedDiamondMap(line_map(law), 3.0).weighted_posterior(states, 0.5, 6, noise=noise)[1]
    model = WeightedDiamondMap(FloatMap(law), 3.0)
    found = model.weighted_posterior(states.to(dtype), 0.5, 6, noise=noise.to(dtype))[1]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-4 if dtype == torch.float32 else 0.5)


def test_conditioning_goes_with_its_state(seeded, quietly):
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
