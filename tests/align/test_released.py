"""The released recipe, against a computation by hand, and against the exact gradient that it does not estimate."""

import pytest
import torch

from align.released import released_gradient
from diamond.flow_map import FlowMap
from diamond.interpolant import Cosine
from diamond.model import Model
from diamond.weighted_map import WeightedDiamondMap

STATES = torch.tensor([[0.2, -0.1], [-0.9, 0.4], [1.3, -0.8], [-0.3, 0.2]], dtype=torch.float64)
TIMES = torch.tensor([0.4, 0.6, 0.8, 0.15], dtype=torch.float64)


def net(x, t, cond, times):
    return torch.tanh(2 * x.flip(-1)) - x * times[0][:, None] + (0 if cond is None else cond)


@pytest.fixture
def model():
    """A weighted map over some network, on the cosine path."""
    return WeightedDiamondMap(FlowMap(net, Cosine(), (2,)), 2.5)


def by_hand(model, x_t, t, reward, noise, temper=1.0):
    """One state `(D,)` at a time and one draw at a time, from the formulas; `temper` scales the reward in the weights."""
    path = model.interpolant
    earlier = path.noise_to_signal_inverse(model.snr * path.noise_to_signal(t))
    scale = path.alpha(earlier) / path.alpha(t)
    spread = (path.sigma(earlier) ** 2 - scale**2 * path.sigma(t) ** 2).sqrt()
    rewards, parts = [], []
    for eps in noise:
        x = x_t.clone().requires_grad_()
        renoised = scale * x + spread * eps
        z = model.flow_map(renoised[None], float(earlier), 1.0)[0]
        r, recovery = reward(z[None])[0], -(x - path.alpha(t) * z).square().sum() / (2 * path.sigma(t) ** 2)
        (of_reward,) = torch.autograd.grad(r, x, retain_graph=True)
        (of_likelihood,) = torch.autograd.grad(recovery, x)
        there = model.flow_map.score(renoised.detach()[None], float(earlier))[0]
        here = model.flow_map.score(x_t[None], float(t))[0]
        rewards.append(temper * float(r.detach()))
        parts.append(torch.stack([of_reward, of_likelihood, scale * there - here]))
    weights = torch.tensor(rewards, dtype=torch.float64).softmax(0)
    means = (weights[:, None, None] * torch.stack(parts)).sum(0)
    return (means / means.norm(dim=1, keepdim=True)).sum(0)


def test_it_is_what_a_computation_by_hand_gives(model, mild, seeded):
    noise = torch.randn(5, 4, 2, dtype=torch.float64, generator=seeded(3))
    found = released_gradient(model, mild, STATES, TIMES, 5, generator=seeded(3))
    expected = torch.stack([by_hand(model, STATES[i], TIMES[i], mild, noise[:, i]) for i in range(4)])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_a_multiple_of_the_reward_moves_the_weights_only(model, mild, seeded):
    noise = torch.randn(5, 4, 2, dtype=torch.float64, generator=seeded(3))
    found = released_gradient(model, lambda z: 250 * mild(z), STATES, TIMES, 5, generator=seeded(3))
    expected = torch.stack([by_hand(model, STATES[i], TIMES[i], mild, noise[:, i], 250.0) for i in range(4)])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    plain, more = (
        released_gradient(model, lambda z, k=k: k * mild(z), STATES, TIMES, 1, generator=seeded()) for k in (1, 250)
    )
    torch.testing.assert_close(plain, more)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 9, 1000])
def test_it_does_not_depend_on_the_chunk(chunk, model, mild, seeded, family):
    cond = torch.arange(8, dtype=torch.float64).reshape(4, 2) / 8

    def reward(z, cond):
        assert len(z) <= chunk or chunk_now is None
        return mild(z) - (z * cond).sum(-1)

    for source in (lambda: seeded(), lambda: family([1, 2])):
        results = []
        for chunk_now in (None, chunk):
            arguments = {"cond": cond, "generator": source(), "chunk": chunk_now}
            results.append(released_gradient(model, reward, STATES, TIMES, 7, **arguments))
        torch.testing.assert_close(results[1], results[0])


def test_forbidden_samples_and_ends_of_time_leave_it_finite(model, mild, seeded):
    def forbidding(z):
        return torch.where(z[:, 0] < 0, mild(z), -torch.inf)

    for t in (0.0, 0.5, 1.0):
        for reward in (mild, forbidding, lambda z: mild(z) - torch.inf):
            found = released_gradient(model, reward, STATES, t, 6, generator=seeded())
            assert found.isfinite().all()
            assert (found.norm(dim=1) <= 3 + 1e-12).all()


class PlaneMap(Model):
    """The exact flow map of a law whose two coordinates are independent, each the mixture `law` on the line."""

    def __init__(self, law, transport):
        super().__init__(law.interpolant, (2,))
        self.law, self.transport = law, transport

    def each(self, function, x, t):
        return function(x.reshape(-1, 1), t.repeat_interleave(2)).reshape(x.shape)

    def velocity(self, x_t, t, *, cond=None):
        return self.each(self.law.velocity, x_t, t)

    def denoise(self, x_t, t, *, cond=None):
        return self.each(self.law.denoise, x_t, t)

    def score(self, x_t, t, *, cond=None):
        return self.each(self.law.score, x_t, t)

    def forward(self, x, t, r, *, cond=None):
        means, variances, weights = self.law.means[:, 0], self.law.covariances, self.law.weights

        def carry(x, t):
            alpha, sigma = self.interpolant.alpha(t)[:, None], self.interpolant.sigma(t)[:, None]
            gaps = (x.detach() - alpha * means) / (alpha**2 * variances + sigma**2).sqrt()
            normal = torch.special.ndtri((weights * torch.special.ndtr(gaps)).sum(-1).clamp(1e-15, 1 - 1e-15))
            z = self.transport(normal, weights, means, variances.sqrt())[:, None]
            slope = (self.law.log_prob(x, t) - self.law.log_prob(z, r)).detach().exp()[:, None]
            return z + slope * (x - x.detach())

        return self.each(carry, x, t)


def test_more_proposals_do_not_bring_it_to_the_gradient(line, transport, mild, seeded):
    """At the last state it points nearly the other way. The same proposals come to the gradient, within their standard
    errors, where they are weighed as the theorem says."""
    law, t, mc = line(), 0.6, 8000
    model = WeightedDiamondMap(PlaneMap(law, transport), 3.0, quadrature=6)
    x = STATES[:3].clone().requires_grad_()
    value = sum(law.value(x[:, i : i + 1], t, mild.linear[i : i + 1], mild.precision) for i in range(2))
    (exact,) = torch.autograd.grad(value.sum(), x)

    leaves = STATES[:3].repeat(mc, 1).requires_grad_()  # one for each draw
    z, log_weights = model.weighted_posterior(leaves, t, generator=seeded())
    logits = log_weights[0] + mild(z[0]), log_weights[0]
    slopes = [torch.autograd.grad(part.sum(), leaves, retain_graph=True)[0].reshape(mc, 3, 2) for part in logits]
    weights = [part.detach().reshape(mc, 3, 1).softmax(0) for part in logits]
    means = [(w * slope).sum(0) for w, slope in zip(weights, slopes, strict=True)]
    influence = [mc * w * (slope - mean) for w, slope, mean in zip(weights, slopes, means, strict=True)]
    error = (influence[0] - influence[1]).std(0) / mc**0.5
    assert (error < 0.15).all()
    assert ((means[0] - means[1] - exact).abs() < 4.5 * error).all()

    def angle(a, b):
        return torch.cosine_similarity(a, b).clamp(-1, 1).arccos()

    first, second = (released_gradient(model, mild, STATES[:3], t, mc, generator=seeded(s)) for s in (1, 2))
    settled = angle(first, second)
    assert settled.max() < 0.25
    assert (angle(first, exact)[1:] > torch.tensor([0.15, 2.0])).all()
    assert (angle(first, exact)[2] - 5 * settled[2]) > 1
    assert first.norm(dim=1).max() < 0.5 * exact.norm(dim=1).max()


def test_rewards_and_models_that_do_not_fit_are_refused(model, mild, case_a):
    with pytest.raises(ValueError, match="^reward: .* expected a differentiable reward; .*align.value_gradient"):
        released_gradient(model, lambda z: mild(z.detach()), STATES, TIMES)
    with pytest.raises(ValueError, match="^model: got GaussianMixtureFlow, expected a diamond.WeightedDiamondMap"):
        released_gradient(case_a, mild, STATES, TIMES)
    for changed, message in [({"mc": 0}, "^mc: got 0"), ({"chunk": 0}, "^chunk: got 0"), ({"t": 2.0}, "^t: got times")]:
        with pytest.raises(ValueError, match=message):
            released_gradient(**({"model": model, "reward": mild, "x_t": STATES, "t": TIMES} | changed))
