"""The figures of `diamond eval`, against a Gaussian for which every value is known."""

import pytest
import torch

import align

from diamond.cli.value_error import reference_values, standardised, value_errors
from diamond.evaluation import draw_references
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.labelled import Labelled
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP


@pytest.fixture
def gaussian():
    return GaussianMixtureFlow(torch.ones(1), torch.tensor([[0.5, -0.5]]), torch.tensor([0.25]))


def test_reference_values_are_those_of_the_gaussian(gaussian, seeded):
    slope = torch.tensor([1.0, 2.0])
    x, t = torch.randn(6, 2, generator=seeded(1)), 0.6
    draws = gaussian.posterior(x, t, 2000, generator=seeded(2))
    values, errors = reference_values([lambda z: z @ slope, lambda z: 0 * z[:, 0]], draws)
    shrink = t * 0.25 / (t**2 * 0.25 + (1 - t) ** 2)
    mean = gaussian.means + shrink * (x - t * gaussian.means)
    variance = 0.25 - shrink * t * 0.25
    exact = mean @ slope + 0.5 * variance * slope.square().sum()
    assert bool(((values[0] - exact).abs() < 4.5 * errors[0]).all())
    assert torch.allclose(values[1], torch.zeros(6).double()) and not errors[1].any()


def test_an_exact_sampler_errs_less_than_the_plug_in(gaussian, seeded):
    z = gaussian.sample(16, generator=seeded())
    reward = standardised(lambda z: z[:, 0], gaussian.sample(500, generator=seeded(1)), 2.0)
    references = draw_references(gaussian, z, (0.1, 0.9), draws=512, exact=True, generator=seeded(2))
    found = value_errors(gaussian, gaussian, {"first": reward}, references, steps=(1, 8))["rmse"]["first"]
    assert set(found) == {"map", "plug-in", "GLASS-1", "GLASS-8", "reference"}
    assert found["map"][0] < 0.7 * found["plug-in"][0]  # a Jensen gap of about two
    assert found["map"][1] < found["map"][0] and found["GLASS-1"] == pytest.approx(found["plug-in"], rel=1e-4)


def test_bias_and_rmse_are_those_of_the_estimates(gaussian, seeded):
    """For one draw a state the estimate is the reward itself: of a linear reward r = a z, the value is a m + a^2 v / 2,
    so the bias is -a^2 v / 2 and the variance a^2 v."""
    z = gaussian.sample(1000, generator=seeded())
    t, slope = 0.3, 1.5
    references = draw_references(gaussian, z, (t,), draws=1000, exact=True, generator=seeded(1))
    found = value_errors(gaussian, gaussian, {"first": lambda z: slope * z[:, 0]}, references, mc=1, steps=(), seed=5)
    variance = slope**2 * 0.25 * (1 - t) ** 2 / (t**2 * 0.25 + (1 - t) ** 2)
    assert set(found["bias"]["first"]) == {"map", "plug-in"}
    error = (variance / 8000) ** 0.5  # of a mean over states and repeats
    assert found["bias"]["first"]["map"][0] == pytest.approx(-variance / 2, abs=4.5 * error + 0.002)
    assert found["rmse"]["first"]["map"][0] ** 2 == pytest.approx(
        variance + variance**2 / 4, rel=4.5 * (3 / 8000) ** 0.5
    )
    assert found["bias"]["first"]["plug-in"][0] == pytest.approx(-variance / 2, abs=0.01)


def test_estimates_are_those_of_align_value(gaussian, seeded, monkeypatch):
    monkeypatch.setattr("diamond.cli.value_error.REPEATS", 1)
    z = gaussian.sample(5, generator=seeded())
    references = draw_references(gaussian, z, (0.4,), draws=100, exact=True, generator=seeded(1))
    found = value_errors(gaussian, gaussian, {"first": lambda z: z[:, 0]}, references, mc=6, steps=(), seed=3)
    truth = reference_values([lambda z: z[:, 0]], references[0].draws)[0][0]
    gaps = align.value(gaussian, lambda z: z[:, 0], references[0].x_t, 0.4, 6, generator=seeded(3)) - truth
    assert found["bias"]["first"]["map"][0] == pytest.approx(float(gaps.mean()), abs=1e-6)
    assert found["rmse"]["first"]["map"][0] == pytest.approx(float(gaps.square().mean().sqrt()), abs=1e-6)


def test_standardised_rewards_have_the_asked_spread():
    images = torch.randn(400, 1, 4, 4)
    rewards = standardised(lambda z: 3 * z.flatten(1).mean(1) + 7, images, 1.5)(images)
    assert float(rewards.mean()) == pytest.approx(0, abs=1e-4) and float(rewards.std()) == pytest.approx(1.5, rel=1e-4)
    with pytest.raises(ValueError, match="same reward"):
        standardised(lambda z: torch.zeros(len(z)), images, 1.0)


def test_a_labelled_model_is_the_model_with_those_labels(seeded):
    torch.manual_seed(0)
    net = ResidualMLP((3,), width=8, depth=1, classes=4)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    flow, labels = Flow(net), torch.tensor([2, 0, 3])
    x, t, fixed = torch.randn(3, 3), 0.4, Labelled(flow, labels)
    assert torch.equal(fixed.denoise(x, t), flow.denoise(x, t, cond=labels))
    assert torch.equal(fixed.velocity(x, t), flow.velocity(x, t, cond=labels))
    assert not torch.equal(fixed.denoise(x, t), flow.denoise(x, t, cond=labels.flip(0)))
    draws = GlassFlow(fixed, 3).posterior(x, t, 5, generator=seeded())
    assert torch.allclose(draws, GlassFlow(flow, 3).posterior(x, t, 5, cond=labels, generator=seeded()))
    inside = Labelled(GlassFlow(flow, 3), labels)
    assert torch.allclose(draws, inside.posterior(x, t, 5, generator=seeded()))
    step = inside.transition(x, t, 0.7, generator=seeded())
    assert torch.allclose(step, GlassFlow(flow, 3).transition(x, t, 0.7, cond=labels, generator=seeded()))
    with pytest.raises(ValueError, match="multiple of the 3 labelled"):
        fixed.denoise(torch.randn(4, 3), t)
