"""Distillation against exact posteriors: a Gaussian, whose map is known pointwise, and a mixture in the plane."""

import math

import pytest
import torch

import align
import distill

from diamond.evaluation import energy_distance
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.interpolant import Cosine
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, labels_of

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
QUICKLY = {"batch": 128, "learning_rate": 6e-3, "warmup": 40, "progress": False}  # thrice the usual rate: few steps do
SLOWLY = {"batch": 256, "learning_rate": 4e-3, "progress": False}  # of the semigroup, whose targets are the map's own


@pytest.mark.parametrize(("loss", "times", "steps"), [("trajectory", "early", 280), ("lsd", "uniform", 360)])
def test_a_distilled_gaussian_is_the_exact_map(loss, times, steps):
    """For Gaussian data the map is known, noise by noise: `mean(x_t) + sd(x_t) eps`, and early stops are DDPM's kernel.

    The network is not told that the data are Gaussian: a plain perceptron, without whitening.
    """
    mean, variance = torch.tensor([0.7, -0.3]), 0.4
    exact = GaussianMixtureFlow(torch.ones(1), mean[None], torch.tensor([variance]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResidualMLP((2,), width=64, depth=2, states=1, times=3)
    model = distill.distill(exact, net=net, loss=loss, times=times, steps=steps, **QUICKLY)
    generator = torch.Generator().manual_seed(1)
    for t in TIMES:
        z = exact.sample(64, generator=generator)
        x_t = exact.interpolant.interpolate(z, torch.randn(z.shape, generator=generator), torch.full((64,), t))
        total = t**2 * variance + (1 - t) ** 2
        spread = math.sqrt(variance * (1 - t) ** 2 / total)
        noise = torch.randn(50, 64, 2, generator=generator)
        expected = mean + t * variance / total * (x_t - t * mean) + spread * noise
        error = (model.posterior(x_t, t, 50, noise=noise) - expected).detach().square().mean().sqrt()
        assert float(error) < 0.2 * spread, (t, float(error) / spread)


@pytest.fixture(scope="module")
def plane():
    exact = GaussianMixtureFlow(
        torch.tensor([0.35, 0.65]), torch.tensor([[-1.5, 0.5], [1.0, -0.5]]), torch.tensor([0.16, 0.36])
    )
    return exact, distill.distill(exact, steps=400, **QUICKLY)


def test_the_usual_loss_is_the_one_that_the_supervision_allows(plane):
    options = {"data": torch.zeros(8, 2), "steps": 1, "batch": 4, "progress": False}
    alone = distill.distill(None, net=ResidualMLP((2,), 8, 1, states=1, times=3), supervision="data", **options)
    assert (plane[1].metadata["loss"], alone.metadata["loss"]) == ("trajectory", "lsd")


def test_one_call_is_closer_to_the_posterior_than_eight_glass_steps(plane):
    """By the energy distance to exact posterior draws, on the same states and from the same noises."""
    exact, model = plane
    generator = torch.Generator().manual_seed(2)
    mine, theirs = [], []
    with torch.no_grad():
        for t in TIMES:
            z = exact.sample(24, generator=generator)
            x_t = exact.interpolant.interpolate(z, torch.randn(z.shape, generator=generator), torch.full((24,), t))
            noise = torch.randn(400, 24, 2, generator=generator)
            truth = exact.posterior(x_t, t, 400, generator=generator)
            mine.append(energy_distance(model.posterior(x_t, t, noise=noise, n=400), truth).mean())
            theirs.append(energy_distance(GlassFlow(exact, 8).posterior(x_t, t, noise=noise, n=400), truth).mean())
    assert sum(mine) < sum(theirs), (mine, theirs)


def test_values_by_the_map_are_as_good_as_by_true_draws(plane):
    """Root mean square error at equal `mc` within 10 % of that with exact posterior draws."""
    exact, model = plane
    generator = torch.Generator().manual_seed(3)
    wanted, width = torch.tensor([-1.0, 0.0]), 0.5
    reward = lambda z: -(z - wanted).square().sum(-1) / (2 * width)  # noqa: E731
    errors = {"map": [], "exact": []}
    for t in TIMES:
        z = exact.sample(4000, generator=generator)
        x_t = exact.interpolant.interpolate(z, torch.randn(z.shape, generator=generator), torch.full((4000,), t))
        truth = exact.value(x_t, t, wanted / width, 1 / width) - wanted.square().sum() / (2 * width)
        for name, sampler in (("map", model), ("exact", exact)):
            estimate = align.value(sampler, reward, x_t, t, 16, generator=generator)
            errors[name].append((estimate - truth).square())
    mine, theirs = (float(torch.cat(errors[name]).mean().sqrt()) for name in ("map", "exact"))
    assert mine < 1.1 * theirs, (mine, theirs)


def test_early_stops_of_the_map_keep_the_marginals(plane):
    """Eight DDPM transitions, a call each, end in the data: by the energy distance to fresh samples, below that between
    the data and one of its components moved by a tenth."""
    exact, model = plane
    generator = torch.Generator().manual_seed(4)
    drawn = model.sample(3000, 8, generator=generator)
    data = exact.sample(3000, generator=generator)
    distance = float(energy_distance(drawn[:, None], data[:, None]))
    moved = float(
        energy_distance(data[:, None] + torch.tensor([0.1, 0.0]), exact.sample(3000, generator=generator)[:, None])
    )
    assert distance < moved, (distance, moved)


def test_a_distilled_flow_map_follows_the_ode():
    exact = GaussianMixtureFlow(torch.ones(1), torch.tensor([[0.7, -0.3]]), torch.tensor([0.4]))
    model = distill.distill_flow_map(exact, steps=200, loss="trajectory", **QUICKLY)
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(5))
    expected = exact.means + exact.covariances.sqrt() * x  # the affine map of a Gaussian's ODE, from 0 to 1
    error = (model(x, 0.0, 1.0) - expected).detach().square().mean().sqrt()
    assert float(error) < 0.05 * float(exact.covariances.sqrt()), float(error)


@pytest.mark.parametrize(
    ("loss", "supervision", "steps", "worth", "options"),
    [("psd", "teacher", 300, 3, SLOWLY), ("psd", "data", 240, 2, QUICKLY), ("lsd", "teacher", 220, 3, QUICKLY)],
)
def test_other_losses_come_close_to_the_posterior_too(loss, supervision, steps, worth, options, plane):
    """In less steps than above, and closer than three steps of GLASS; the semigroup's by data alone, which are noisier
    than a teacher, than two, of twice the error."""
    exact, _ = plane
    z = exact.sample(20_000, generator=torch.Generator().manual_seed(8))
    teacher = exact if supervision == "teacher" else None
    model = distill.distill(teacher, z, loss=loss, supervision=supervision, steps=steps, **options)
    assert model.metadata["loss"] == loss and model.metadata["supervision"] == supervision
    assert _distance(model, exact) < _distance(GlassFlow(exact, worth), exact)


def test_a_path_beside_a_teacher_is_refused(plane):
    with pytest.raises(ValueError, match="interpolant: got Cosine.* beside a teacher"):
        distill.distill(plane[0], interpolant=Cosine(), steps=2, progress=False)
    with pytest.raises(ValueError, match="data: got None"):
        distill.distill(None, supervision="data", steps=2, progress=False)


def test_a_map_notes_its_teachers_data_and_not_how_that_was_made():
    """Minutes, machines and plans of a teacher are not the map's."""
    teacher = GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1))
    teacher.metadata = {"data": "plane", "size": 8, "seed": 7, "minutes": 90, "machine": "another", "planned_steps": 9}
    model = distill.distill(teacher, metadata={"note": 1}, loss="psd", steps=2, batch=8, progress=False)
    assert model.metadata == {
        "data": "plane", "size": 8, "note": 1, "loss": "psd", "supervision": "teacher", "steps": 2, "seed": 0,
    }  # fmt: skip


def test_labels_are_left_out_as_the_network_says():
    """A network of another library may have another label for none than the one after its classes, or know none."""
    net = ResidualMLP((2,), width=8, depth=1, classes=4)
    z, labels = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.full((20,), 3)

    def train(no_label, dropout):
        net.conditioning.no_label, met = no_label, []
        hook = net.register_forward_pre_hook(lambda module, inputs: met.append(inputs[2]))
        distill.train_flow(z, net, labels=labels, label_dropout=dropout, steps=4, batch=64, progress=False)
        hook.remove()
        return torch.cat(met)

    met = train(0, 0.5)
    share = (met == 0).double()
    assert set(met.tolist()) == {0, 3} and abs(float(share.mean()) - 0.5) < 4 * 0.5 / len(met) ** 0.5
    assert set(train(None, 0.0).tolist()) == {3}
    with pytest.raises(ValueError, match="label_dropout: got 0.5, but the network knows no label for none, expected 0"):
        train(None, 0.5)


def test_labels_make_the_usual_network_conditional():
    """Two classes, at 2 and -2 of standard deviation 0.5, whose labels leave out a number: the mean of samples by label."""
    labels = torch.arange(400) % 2 * 2
    data = 2.0 - 2.0 * labels[:, None] + 0.5 * torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    options = {"labels": labels, "batch": 128, "learning_rate": 5e-3, "ema": 0.9, "progress": False}
    flow = distill.train_flow(data, steps=120, **options)
    model = distill.distill(None, data, supervision="data", loss="psd", steps=120, **options)
    for trained in (flow, model):
        assert labels_of(trained) == (3, 3)
        drawn = trained.sample(400, 8, cond=labels, generator=torch.Generator().manual_seed(1)).detach()
        means = [float(drawn[labels == label].mean()) for label in (0, 2)]
        assert means == pytest.approx([2, -2], abs=0.3)
    assert labels_of(distill.train_flow(data, steps=1, progress=False)) == (0, None)


@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.arange(4) - 1, "labels: got labels from -1 to 2, expected a tensor"),
        (torch.arange(4.0), "labels: got torch.float32, expected a tensor"),
        ([0, 1, 2, 3], "labels: got list, expected a tensor"),
        (torch.arange(5), r"labels: got shape \(5,\), expected \(4,\)"),
    ],
)
def test_labels_that_tell_no_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        distill.train_flow(torch.zeros(4, 2), labels=labels, steps=1, progress=False)


def test_labels_beside_what_knows_no_classes_are_refused(plane):
    """They were once left out without a word."""
    data, labels = torch.zeros(4, 2), torch.arange(4)
    net = ResidualMLP((2,), 8, 1)
    with pytest.raises(ValueError, match="labels: got some beside a network .*; make it with classes=4"):
        distill.train_flow(data, net, labels=labels, steps=1, progress=False)
    for teacher in (plane[0], Flow(net)):
        with pytest.raises(ValueError, match="labels: got some beside a teacher without classes; train the teacher"):
            distill.distill(teacher, data, labels=labels, steps=1, progress=False)
    with pytest.raises(ValueError, match="labels: got some beside a network made without classes"):
        distill.distill(Flow(net), data, supervision="data", labels=labels, steps=1, progress=False)


def test_networks_that_do_not_fit_are_refused_before_anything_is_written(plane, tmp_path):
    """By what is wrong with them."""
    data, out = torch.zeros(4, 2), tmp_path / "model.ckpt"
    options = {"steps": 1, "batch": 4, "out": out, "progress": False}
    net = lambda shape=(2,), **inputs: ResidualMLP(shape, 8, 1, **inputs)  # noqa: E731
    half, wide = (Flow(net().to(kind)) for kind in (torch.bfloat16, torch.float64))
    grown = {"states": 1, "times": 3}
    for recipe, arguments, message in (
        (distill.train_flow, (data, net(**grown)), "net: got .* states=1 and times=3, expected states=0 and times=0"),
        (distill.distill, (plane[0], data, net()), "net: got .* states=0 and times=0, expected states=1 and times=3"),
        (distill.distill_flow_map, (plane[0], data, net()), "times=0, expected states=0 and times=1"),
        (distill.train_flow, (data, net((3,))), r"data: got events of shape \(2,\), expected the network's, \(3,\)"),
        (distill.distill, (plane[0], data, net((3,), **grown)), r"data: got events of shape \(2,\), expected the net"),
        (distill.train_flow, (data, half.net), "net: got weights of torch.bfloat16, expected float32 or float64"),
        (
            distill.distill,
            (wide, data, net(**grown)),
            "teacher: got weights of torch.float64, expected .* torch.float32",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            recipe(*arguments, **options)
    assert not [*tmp_path.iterdir()]


def test_a_teacher_that_cannot_grow_is_told_what_its_map_needs():
    """The network that the sentence names does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow, data = Flow(ForeignNet(), event_shape=(2,)), torch.randn(8, 2)
    for recipe, inputs in ((distill.distill, {"states": 1, "times": 3}), (distill.distill_flow_map, {"times": 1})):
        told = ", ".join(f"{name}={count}" for name, count in ({"states": 0} | inputs).items())
        with pytest.raises(ValueError, match=rf"like diamond.nets.ResidualMLP\(\(2,\), {told}\) as net="):
            recipe(flow, data, steps=1, progress=False)
        recipe(flow, data, ResidualMLP((2,), **inputs), steps=1, batch=4, progress=False)


class ForeignNet(torch.nn.Module):
    def forward(self, x, t, cond=None):
        return -x


def _distance(sampler, exact):
    generator = torch.Generator().manual_seed(6)
    x_t, noise = torch.randn(24, 2, generator=generator) * 0.7, torch.randn(800, 24, 2, generator=generator)
    with torch.no_grad():
        truth = exact.posterior(x_t, 0.4, 800, generator=generator)
        return float(energy_distance(sampler.posterior(x_t, 0.4, 800, noise=noise), truth).mean())
