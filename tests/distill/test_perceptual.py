"""The perceptual distance: its formula, its zero, where it counts, and what a resumed run says of it."""

from functools import partial

import pytest
import torch

from torch import nn

import distill

from diamond.diamond_map import DiamondMap
from diamond.interpolant import Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP
from diamond.randomness import seeded as randomly
from distill.losses import endpoint
from distill.objectives import MapObjective
from distill.perceptual import Perceptual
from distill.problems import PosteriorProblem
from distill.times import uniform_times

WEIGHT = 0.7


class Linears(nn.Module):
    """Two linear features of vectors."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.maps = nn.ParameterList(
            nn.Parameter(torch.randn(n, 2, generator=generator, dtype=torch.float64), requires_grad=False)
            for n in (3, 1)
        )

    def forward(self, x):
        return [x @ matrix.T for matrix in self.maps]


def test_each_feature_counts_by_its_relative_error(seeded):
    features = Linears()
    one, other = torch.randn(2, 5, 2, dtype=torch.float64, generator=seeded())
    first, second = (
        ((one - other) @ matrix.T).square().sum(-1) / (other @ matrix.T).square().sum(-1) for matrix in features.maps
    )
    torch.testing.assert_close(Perceptual(features, WEIGHT)(one, other), WEIGHT * (first + second) / 2)
    scaled = Perceptual(lambda x: [1e3 * value for value in features(x)], WEIGHT)(one, other)
    torch.testing.assert_close(scaled, Perceptual(features, WEIGHT)(one, other))


def test_only_the_samples_are_differentiated(seeded):
    one, other = torch.randn(2, 5, 2, dtype=torch.float64, generator=seeded()).requires_grad_()
    (slope,) = torch.autograd.grad(Perceptual(Linears())(one, other).sum(), (one,))
    assert bool((slope != 0).any())
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(Perceptual(Linears())(one, other).sum(), (other,))


@pytest.fixture
def ends(students, gaussian):
    """Losses of a Diamond Map of Gaussian data at pairs that end at 1 in every other row, and the distance's share."""

    def at(theta, distance):
        generator, path = torch.Generator().manual_seed(3), Linear()
        z = gaussian(path).sample(64, generator=generator)
        t = uniform_times(64, generator, z.device, 0.95).double()
        outer, noise = torch.randn(2, *z.shape, generator=generator, dtype=z.dtype)
        x_t = path.interpolate(z, outer, t)
        student, exact = (
            PosteriorProblem(None, students["diamond map"](path, at), x_t, t) for at in (theta, (0.0,) * 3)
        )
        s, r = torch.zeros_like(t), torch.where(torch.arange(64) % 2 == 0, 1.0, 0.6).double()
        x = student.start(z, noise, s)
        target = exact.displace(x, s, r).detach()
        return endpoint(student.displace(x, s, r), student.weight, s, r, target, distance), student, x, target

    return at


def test_the_exact_map_is_a_zero_of_it_too(ends):
    assert float(ends((0.0, 0.0, 0.0), Perceptual(lambda x: [x, x.sin()]))[0].detach().amax()) < 1e-20


def test_it_counts_at_the_ends_alone_and_in_the_unit_of_the_square(ends):
    """The distance |a - b|^2 / 2 is what the mean square over two entries is: it doubles the loss where r = 1."""
    plain = ends((0.1, 0.2, 0.3), None)[0]
    both, *_ = ends((0.1, 0.2, 0.3), lambda a, b: (a - b).square().flatten(1).mean(1))
    expected = torch.where(torch.arange(64) % 2 == 0, 2.0, 1.0).double()
    torch.testing.assert_close(both / plain, expected)


def test_a_map_trained_with_it_finds_the_exact_posterior(seeded):
    """One Gaussian, whose posterior is in closed form: features that bend the plane move nothing."""
    teacher = GaussianMixtureFlow(torch.ones(1), torch.tensor([[0.5, -1.0]]), torch.tensor([0.64]))

    waves = torch.randn(2, 16, generator=seeded(2))

    def bent(z):
        return [torch.cat([(z @ waves).cos(), (z @ waves).sin()], dim=-1)]

    with randomly(0):
        net = ResidualMLP((2,), 64, 2, states=1, times=3)
    model = distill.distill(
        teacher, loss="trajectory", net=net, perceptual=Perceptual(bent, 1.0), steps=200, batch=256, points=12,
        learning_rate=4e-3, progress=False,
    )  # fmt: skip
    x = torch.tensor([[0.3, 0.4], [1.0, -1.0]])
    for t in (0.2, 0.7):
        draws = model.posterior(x, t, 4000, generator=seeded()).detach()
        precision = 1 / 0.64 + (t / (1 - t)) ** 2
        mean = (torch.tensor([0.5, -1.0]) / 0.64 + t * x / (1 - t) ** 2) / precision
        spread = precision**-0.5
        assert float((draws.mean(0) - mean).abs().amax()) < 0.12 * spread + 4 * spread / 4000**0.5
        assert float((draws.std(0) / spread - 1).abs().amax()) < 0.12


def test_a_run_is_known_by_its_features(seeded):
    teacher = GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1))

    def settings(perceptual):
        return MapObjective(teacher, perceptual=perceptual).settings

    assert "perceptual" not in settings(None)
    assert settings(Perceptual(Linears(0))) == settings(Perceptual(Linears(0)))
    others = [Perceptual(Linears(1)), Perceptual(Linears(0), 0.5), Perceptual(torch.sin), Perceptual(torch.cos)]
    known = [settings(Perceptual(Linears(0))), *map(settings, others)]
    assert all(one != other for i, one in enumerate(known) for other in known[:i])


def test_a_function_without_a_name_is_known_by_its_kind():
    assert Perceptual(partial(torch.mul, other=2)).settings["features"].startswith("partial ")


def test_features_are_a_sequence():
    ends = torch.ones(4, 1, 3, 3)
    for features, said in ((nn.Conv2d(1, 4, 3), "a tensor"), (lambda x: [], "nothing")):
        with pytest.raises(ValueError, match=f"^features: they returned {said}, expected a sequence of tensors"):
            Perceptual(features)(ends, ends)


def test_a_batch_without_ends_asks_no_features():
    """None of its trajectories ends at r = 1."""
    at_all = []
    loss = endpoint(torch.ones(3, 2), torch.ones_like, torch.zeros(3), torch.full((3,), 0.5),
                    torch.zeros(3, 2), lambda *_: at_all.append(1))  # fmt: skip
    assert torch.equal(loss, torch.full((3,), 4.0)) and not at_all


class One(Perceptual):
    """A distance of 1 between any two samples."""

    def __init__(self):
        super().__init__(lambda z: [z])
        self.rows = []

    def __call__(self, samples, targets):
        self.rows.append(len(samples))
        return torch.ones(len(samples))


def test_half_of_the_pairs_that_start_at_noise_are_compared(seeded):
    """At t = 0 and s = 0 the noise that is left has scale 1, so that a distance of 1 adds the share of rows that have it."""
    teacher = GaussianMixtureFlow(torch.ones(1), torch.tensor([[0.5, -1.0]]), torch.tensor([0.64]))
    with randomly(0):
        model = DiamondMap(ResidualMLP((2,), 16, 1, states=1, times=3))
    z, terms, one = teacher.sample(40, generator=seeded(0)).float(), [], One()
    for distance in (None, one):
        objective = MapObjective(
            teacher, off_diagonal=0.9, from_zero=0.8, from_noise=1.0, points=4, perceptual=distance
        )
        prepared = objective.prepare(model, z, None, seeded(1))
        terms.append(objective(model, prepared, seeded(2))["trajectory"])
    compared = 15  # 0.8 * 36 / 2, rounded up
    assert one.rows == [compared]
    torch.testing.assert_close(terms[1] - terms[0], torch.tensor(compared / 40))


def test_the_rows_that_are_compared_may_be_named():
    """Two of three ends, whose squares of 1 a distance of 2 is added to."""
    loss = endpoint(torch.ones(3, 2), torch.ones_like, torch.zeros(3), torch.ones(3), torch.zeros(3, 2),
                    lambda a, b: torch.full((len(a),), 2.0), torch.tensor([2, 0]))  # fmt: skip
    assert loss.tolist() == [3.0, 1.0, 3.0]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="^features: got int, expected a module or a function of samples"):
        Perceptual(3)
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="^weight: got .*, expected a positive number"):
            Perceptual(torch.sin, weight)
    for shares in ({"from_zero": 0.0}, {"off_diagonal": 0.0}):
        with pytest.raises(
            ValueError, match="^perceptual: got a distance with off_diagonal=.*, where no pair goes from"
        ):
            MapObjective(GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), **shares,
                         perceptual=Perceptual(lambda x: [x]))  # fmt: skip
    with pytest.raises(ValueError, match="^perceptual: got a distance with loss='lsd', expected it with loss='traj"):
        distill.distill(GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), loss="lsd",
                        perceptual=Perceptual(torch.sin), steps=1, progress=False)  # fmt: skip


@pytest.mark.parametrize(
    "features, came",
    [
        (lambda z: z, "they returned a tensor"),
        (lambda z: None, "they returned nothing"),
        (lambda z: [], "they returned nothing"),
        (lambda z: {"one": z}, "they returned a dict"),
        (lambda z: [z, 5], "they returned one of type int"),
        (lambda z: [z.sum()], r"they returned one of shape \(\)"),
        (lambda z: [z[:1]], r"they returned one of shape \(1, 2\)"),  # which would be compared with all
        (lambda z: [z.detach()], "no gradient passes through them to the samples"),  # and train nothing
    ],
)
def test_features_that_cannot_be_compared_are_refused(features, came, seeded):
    one, other = torch.randn(2, 5, 2, generator=seeded())
    for compared in (
        Perceptual(features),
        lambda *pair: Perceptual(features, law=1.0).discrepancy(*pair, torch.rand(5)),
    ):
        with pytest.raises(ValueError, match=f"features: {came}, expected"):
            compared(one.requires_grad_(), other)


def test_a_feature_may_be_a_number(seeded):
    one, other = torch.randn(2, 5, 2, dtype=torch.float64, generator=seeded())
    number, column = (Perceptual(lambda z, i=i: [z.sin().sum(1)[i]], law=1.0) for i in (..., (slice(None), None)))
    torch.testing.assert_close(number(one, other), column(one, other))
    t = torch.rand(5, generator=seeded())
    torch.testing.assert_close(number.discrepancy(one, other, t), column.discrepancy(one, other, t))


@pytest.mark.parametrize("name, value", [("weight", "much"), ("weight", None), ("law", "much"), ("law", True)])
def test_weights_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: got {value!r}, expected"):
        Perceptual(Linears(), **{name: value})
