"""Classifier-free guidance: its law in closed form, one doubled call, what it costs, and what it can be used for."""

import math

import pytest
import torch

from diamond.checkpoint import load
from diamond.classifier_free import ClassifierFree
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import Preconditioned, ResidualMLP, UNet

CLASSES, DEVIATION = 2, 0.5
MEANS = torch.tensor([[-1.0, 0.5], [1.5, -0.5]], dtype=torch.float64)
SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)


class Exact(torch.nn.Module):
    """The exact velocity of two Gaussian classes: with a label of that class, with label 2 of all the data."""

    event_shape, classes = (2,), CLASSES

    def __init__(self, path):
        super().__init__()
        spread = torch.full((1,), DEVIATION**2, dtype=torch.float64)
        self.flows = [GaussianMixtureFlow(torch.ones(1), MEANS[k : k + 1], spread, path) for k in range(CLASSES)]
        self.flows.append(GaussianMixtureFlow(SHARES, MEANS, spread.expand(2), path))
        self.calls = []

    def forward(self, x, t, cond=None):
        self.calls.append(len(x))
        cond = torch.full((len(x),), CLASSES) if cond is None else cond
        return torch.stack([flow.velocity(x, t) for flow in self.flows], 1)[torch.arange(len(x)), cond.long()]


@pytest.fixture
def exact(path):
    return Flow(Exact(path), path)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner = UNet((1, 4, 4), 8, (1, 2), classes=3, embedding=8)
        for weights in inner.parameters():
            weights.data += 0.2 * torch.randn_like(weights)
        return Flow(Preconditioned(inner, std=0.5).double())


def inputs(rows=6, shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, *shape, dtype=torch.float64, generator=generator)
    return x, torch.linspace(0.05, 0.95, rows, dtype=torch.float64), torch.arange(rows) % 3


# ---------------------------------------------------------------- the law


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, -1.0])
def test_guided_denoiser_of_two_classes_has_its_closed_form(exact, scale, seeded):
    """With classes of one covariance each class denoises to k x + c m_k, and without a label to k x + c E[m | x]."""
    x = 2 * torch.randn(8, 2, dtype=torch.float64, generator=seeded())
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    cond = torch.arange(8) % CLASSES
    alpha, sigma = exact.interpolant.alpha(t)[:, None], exact.interpolant.sigma(t)[:, None]
    total = (alpha * DEVIATION) ** 2 + sigma**2
    distances = (x[:, None] - alpha[..., None] * MEANS).square().sum(-1)
    mean = (SHARES.log() - distances / (2 * total)).softmax(-1) @ MEANS
    chosen = mean + scale * (MEANS[cond] - mean)
    expected = chosen + alpha * DEVIATION**2 / total * (x - alpha * chosen)
    guided = ClassifierFree(exact, scale)
    torch.testing.assert_close(guided.denoise(x, t, cond=cond), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(guided.score(x, t, cond=cond), (alpha * expected - x) / sigma**2, rtol=1e-8, atol=1e-8)
    velocity = exact.interpolant.velocity_from_denoiser(x, t, expected)
    torch.testing.assert_close(guided.velocity(x, t, cond=cond), velocity, rtol=1e-9, atol=1e-9)


def test_guided_samples_of_a_class_move_away_from_the_other(exact, seeded):
    """On the line through both means; at scale 1 they are of the class itself."""
    axis = (MEANS[1] - MEANS[0]) / (MEANS[1] - MEANS[0]).norm()
    cond = torch.ones(400, dtype=torch.long)
    places = [
        (ClassifierFree(exact, scale).sample(400, 40, cond=cond, generator=seeded()).double() - MEANS[1]) @ axis
        for scale in (0.0, 1.0, 3.0)
    ]
    assert float(places[0].mean()) < -0.3
    assert abs(float(places[1].mean())) < 4.5 * DEVIATION / 20
    assert float(places[2].mean()) > float(places[1].mean()) + 0.05


def test_glass_draws_of_a_guided_flow_have_its_denoiser_as_their_inner_start(exact, seeded):
    """One inner step draws the posterior mean itself."""
    guided = ClassifierFree(exact, 2.5)
    x, t, cond = torch.randn(5, 2, dtype=torch.float64, generator=seeded()), 0.4, torch.arange(5) % CLASSES
    drawn = GlassFlow(guided, steps=1).posterior(x, t, 3, cond=cond, generator=seeded())
    torch.testing.assert_close(drawn, guided.denoise(x, t, cond=cond).expand(3, 5, 2))
    assert GlassFlow(guided, steps=4).posterior(x, t, 3, cond=cond, generator=seeded()).std(0).min() > 0.01


# ---------------------------------------------------------------- the doubled call and what it costs


@pytest.mark.parametrize("prediction", ["velocity", "denoiser", "noise"])
@pytest.mark.parametrize("face", ["velocity", "denoise", "score"])
def test_one_doubled_call_is_two_calls(prediction, face):
    flow = network()
    flow.prediction = prediction
    x, t, cond = inputs()
    labelled, unlabelled = getattr(flow, face)(x, t, cond=cond), getattr(flow, face)(x, t)
    found = getattr(ClassifierFree(flow, 2.5), face)(x, t, cond=cond)
    torch.testing.assert_close(found, unlabelled + 2.5 * (labelled - unlabelled))
    assert float((found - labelled).detach().abs().max()) > 0.01


def test_guidance_is_limited_to_its_interval():
    flow = network()
    x, t, cond = inputs()
    guided = ClassifierFree(flow, 3.0, (0.3, 0.8))
    always, never = ClassifierFree(flow, 3.0).velocity(x, t, cond=cond), flow.velocity(x, t, cond=cond)
    inside = ((t >= 0.3) & (t <= 0.8))[:, None, None, None]
    torch.testing.assert_close(guided.velocity(x, t, cond=cond), torch.where(inside, always, never))
    nothing = ClassifierFree(flow, 0.0, (0.3, 0.8)).velocity(x, t, cond=cond)
    torch.testing.assert_close(nothing, torch.where(inside, flow.velocity(x, t), never))


@pytest.mark.parametrize("scale", [0.0, 3.0])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int32])
def test_labels_of_any_type_leave_room_for_the_label_of_none(scale, kind):
    flow = Flow(Exact(None))
    x, t, cond = inputs(shape=(2,))
    guided = ClassifierFree(flow, scale)
    expected = guided.velocity(x, t, cond=cond % CLASSES)
    torch.testing.assert_close(guided.velocity(x, t, cond=(cond % CLASSES).to(kind)), expected)


@pytest.mark.parametrize(
    ("scale", "interval", "labelled", "calls"),
    [(2.0, None, True, [12]), (2.0, (0.3, 0.8), True, [9]), (2.0, (0.0, 0.01), True, [6]), (1.0, None, True, [6]),
     (0.0, None, True, [6]), (2.0, None, False, [6])],
)  # fmt: skip
def test_every_evaluation_is_counted_and_one_call_is_made(scale, interval, labelled, calls):
    flow = Flow(Exact(None))
    guided = ClassifierFree(flow, scale, interval)
    x, t, cond = inputs(shape=(2,))
    guided.velocity(x, t, cond=cond % CLASSES if labelled else None)
    assert flow.net.calls == calls
    assert guided.nfe == sum(calls)
    assert flow.nfe == 0


def test_without_labels_or_with_scale_one_it_is_the_flow_itself():
    flow = network()
    x, t, cond = inputs()
    assert torch.equal(ClassifierFree(flow, 4.0).velocity(x, t), flow.velocity(x, t))
    assert torch.equal(ClassifierFree(flow, 1.0).velocity(x, t, cond=cond), flow.velocity(x, t, cond=cond))
    assert torch.equal(ClassifierFree(flow, 0.0).velocity(x, t, cond=cond), flow.velocity(x, t))


@pytest.mark.parametrize("interval", [None, (0.3, 0.8)])
def test_forward_derivatives_pass_through_guidance(interval):
    guided = ClassifierFree(network(), 2.5, interval)
    x, t, cond = inputs()
    direction, step = torch.ones_like(x), 1e-6
    _, slope = torch.func.jvp(lambda x, t: guided.velocity(x, t, cond=cond), (x, t), (direction, torch.ones_like(t)))
    ahead, behind = (guided.velocity(x + s * direction, t + s, cond=cond) for s in (step, -step))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- what it is made of


def test_the_network_is_shared_and_the_label_of_none_is_found():
    flow = network()
    guided = ClassifierFree(flow)
    assert guided.net is flow.net
    assert guided.no_label == 3
    assert ClassifierFree(flow, no_label=0).no_label == 0
    flow = Flow(network().net, Cosine(), prediction="noise")
    assert (ClassifierFree(flow).interpolant, ClassifierFree(flow).prediction) == (flow.interpolant, "noise")


@pytest.mark.parametrize("scale", [math.inf, math.nan])
def test_a_scale_that_is_not_finite_is_refused(scale):
    with pytest.raises(ValueError, match=f"^scale: got {scale}, expected a finite number"):
        ClassifierFree(network(), scale)


@pytest.mark.parametrize("interval", [(0.8, 0.3), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match=r"^interval: got \(.*\), expected two times in \[0, 1\], in order"):
        ClassifierFree(network(), 2.0, interval)


def test_what_cannot_be_guided_is_refused(exact):
    with pytest.raises(ValueError, match="^flow: got a ClassifierFree, expected a Flow without guidance"):
        ClassifierFree(ClassifierFree(exact))
    with pytest.raises(ValueError, match="^flow: got a GaussianMixtureFlow, expected a Flow"):
        ClassifierFree(exact.net.flows[0])
    with pytest.raises(ValueError, match="^no_label: got None, but the network tells neither it nor its classes"):
        ClassifierFree(Flow(ResidualMLP((2,), width=8)))


@pytest.mark.parametrize("cond", [torch.zeros(6), torch.zeros(5).long(), {"text": torch.zeros(6).long()}])
def test_labels_of_a_wrong_kind_are_refused(cond):
    x, t, _ = inputs()
    with pytest.raises(ValueError, match=r"^cond: got .*, expected class labels \(6,\), whole numbers"):
        ClassifierFree(network()).velocity(x, t, cond=cond)


@pytest.mark.parametrize("view", [False, True])
def test_a_guided_flow_is_saved_and_loaded(view, tmp_path):
    guided = ClassifierFree(Flow(network().net, Cosine(), prediction="noise"), 2.5, (0.3, 0.8), no_label=2)
    saved = GlassFlow(guided, steps=2) if view else guided
    saved.save(tmp_path / "guided.ckpt")
    loaded = load(tmp_path / "guided.ckpt")
    inner = loaded.flow if view else loaded
    assert type(inner) is ClassifierFree
    assert (inner.scale, inner.interval, inner.no_label) == (2.5, (0.3, 0.8), 2)
    x, t, cond = inputs()
    assert torch.equal(loaded.velocity(x, t, cond=cond), guided.velocity(x, t, cond=cond))
