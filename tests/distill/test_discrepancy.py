"""The discrepancy of laws: its expectation in closed form, no bias, where it looks, and what it adds to a training step."""

import math

import pytest
import torch

from scipy.stats import norm

import distill

from diamond.mixture import GaussianMixtureFlow
from distill.objectives import MapObjective
from distill.perceptual import Perceptual

BATCH, REPEATS = 24, 600


def as_they_are(z):
    return [z]


def distance_of_normals(mean):
    """`E|a - b|` of independent `a` of N(mean, 1) and `b` of N(0, 1): a folded normal of variance 2."""
    return 2 / math.pi**0.5 * math.exp(-(mean**2) / 4) + mean * (1 - 2 * norm.cdf(-mean / 2**0.5))


def draws(seed, **change):
    """Discrepancies of many batches, `b` of N(0, 1) on the line and `a` what `change` makes of them."""
    generator, values = torch.Generator().manual_seed(seed), []
    judge = Perceptual(as_they_are, law=1.0)
    for _ in range(REPEATS):
        b, other = torch.randn(2, BATCH, 1, generator=generator)
        t = torch.rand(BATCH, generator=generator)
        values.append(judge.discrepancy(change["a"](b, other, t), b, t))
    return torch.stack(values)


def test_it_is_the_energy_distance_of_two_normals():
    """In units of the root mean square of `b`, whose noise in a batch of 24 costs 1 / (4 * 24) of it to first order; and pairs
    of one noise tell it with a fraction of the error of independent draws."""
    expected = 2 * (distance_of_normals(0.5) - distance_of_normals(0.0))
    errors = {}
    for kind, a in {"paired": lambda b, other, t: b + 0.5, "apart": lambda b, other, t: other + 0.5}.items():
        values = draws(0, a=a)
        errors[kind] = float(values.std()) / REPEATS**0.5
        assert abs(float(values.mean()) - expected) < 4 * errors[kind] + 0.03 * expected
    assert errors["paired"] < 0.03 * expected and errors["paired"] < 0.3 * errors["apart"]


def test_equal_laws_have_none_in_the_mean_whatever_the_pairs_do():
    for a in (lambda b, other, t: other, lambda b, other, t: 0.8 * b + 0.6 * other, lambda b, other, t: -b):
        values = draws(1, a=a)
        assert abs(float(values.mean())) < 4 * float(values.std()) / REPEATS**0.5
    assert float(values.std()) > 0


def test_shifts_that_cancel_over_all_times_are_seen_at_each():
    values = draws(2, a=lambda b, other, t: b + 0.5 * torch.where(t > 0.5, 1.0, -1.0)[:, None])
    assert float(values.mean()) > 20 * float(values.std()) / REPEATS**0.5
    hidden = Perceptual(as_they_are, law=1.0)
    b = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    sign = torch.tensor([-1.0, 1.0]).repeat(256)[:, None]
    seen, unseen = (
        float(hidden.discrepancy(b + 0.5 * sign, b, t)) for t in (sign[:, 0].clamp_min(0), torch.zeros(512))
    )
    assert seen > 5 * unseen


def test_it_is_an_average_over_features_in_proportion_to_its_weight(seeded):
    b, noise = torch.randn(2, 16, 3, generator=seeded())
    t = torch.zeros(16)
    one, other = (
        Perceptual(features, law=1.0).discrepancy(b + 0.3, b, t) for features in (as_they_are, lambda z: [z.sin()])
    )
    both = Perceptual(lambda z: [1e3 * z, z.sin()], law=2.0).discrepancy(b + 0.3, b, t)
    torch.testing.assert_close(both, one + other)


def test_its_gradient_is_finite_where_samples_meet_and_reaches_them_alone(seeded):
    a = torch.zeros(6, 2, requires_grad=True)
    b = torch.zeros(6, 2, requires_grad=True)
    Perceptual(as_they_are, law=1.0).discrepancy(a, b, torch.zeros(6)).backward()
    assert torch.equal(a.grad, torch.zeros(6, 2)) and b.grad is None
    b = torch.randn(6, 2, generator=seeded())
    a = (b + 1).requires_grad_()
    Perceptual(as_they_are, law=1.0).discrepancy(a, b, torch.zeros(6)).backward()
    assert float(a.grad.sum()) > 0  # back towards `b`


def in_words(a, b, t):
    """The definition, pair by pair."""
    size, total, weights = b.square().sum(1).mean().sqrt(), 0.0, 0.0
    for i in range(len(a)):
        for j in range(len(a)):
            if i != j:
                near = torch.exp(-((t[i] - t[j]) ** 2) / (2 * 0.15**2))
                across = (a[i] - b[j]).norm() + (b[i] - a[j]).norm()
                total = total + near * (across - (a[i] - a[j]).norm() - (b[i] - b[j]).norm())
                weights = weights + near
    return total / weights / size


@pytest.mark.parametrize(("kind", "far", "error"), [(torch.float64, 0.0, 1e-11), (torch.float32, 100.0, 1e-4)])
def test_value_and_gradient_keep_their_digits_also_far_from_the_origin(kind, far, error, seeded):
    b = torch.randn(30, 8, dtype=torch.float64, generator=seeded()) + far
    t = torch.rand(30, dtype=torch.float64, generator=seeded(1))
    a, exact = (b + 0.1).to(kind).requires_grad_(), (b + 0.1).requires_grad_()
    found, expected = Perceptual(as_they_are, law=1.0).discrepancy(a, b.to(kind), t), in_words(exact, b, t)
    assert found.dtype == kind
    torch.testing.assert_close(found.double(), expected, rtol=error, atol=0)
    found.backward()
    expected.backward()
    assert (a.grad.double() - exact.grad).norm() < error * exact.grad.norm()


def test_half_precision_is_left_for_the_single_one(seeded):
    b, noise = torch.randn(2, 12, 3, generator=seeded()).bfloat16()
    t = torch.rand(12, generator=seeded(1))
    found = Perceptual(as_they_are, law=1.0).discrepancy(noise, b, t)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, in_words(noise.float(), b.float(), t), rtol=1e-4, atol=0)


@pytest.mark.parametrize("rows", [0, 1])
def test_of_less_than_two_pairs_there_is_none_and_features_are_not_asked(rows):
    def features(z):
        pytest.fail("features were asked")

    found = Perceptual(features, law=1.0).discrepancy(
        torch.ones(rows, 2, 2), torch.zeros(rows, 2, 2), torch.zeros(rows)
    )
    assert found == 0 and found.shape == ()


@pytest.fixture
def teacher():
    return GaussianMixtureFlow(torch.ones(1), torch.zeros(1, 2), torch.ones(1))


def terms_of(teacher, kind, perceptual):
    generator = torch.Generator().manual_seed(0)
    model = distill_one_step(teacher, kind)
    objective = MapObjective(teacher, perceptual=perceptual)
    prepared = objective.prepare(model, torch.randn(64, 2, generator=generator), None, generator)
    return objective(model, prepared, torch.Generator().manual_seed(1))


def distill_one_step(teacher, kind):
    return getattr(distill, kind)(teacher, steps=1, batch=8, progress=False)


@pytest.mark.parametrize("kind", ["distill", "distill_flow_map"])
def test_it_is_a_term_of_the_loss_that_leaves_the_others_as_they_are(kind, teacher):
    plain = terms_of(teacher, kind, Perceptual(as_they_are))
    both = terms_of(teacher, kind, Perceptual(as_they_are, law=3.0))
    assert set(both) - set(plain) == {"discrepancy"} and all(
        torch.equal(both[name], value) for name, value in plain.items()
    )
    assert both["discrepancy"].requires_grad and float(both["discrepancy"].detach()) != 0


def test_a_share_of_the_batch_starts_from_noise_alone(teacher):
    model = distill_one_step(teacher, "distill")
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.3, 1.0):
        objective = MapObjective(teacher, "lsd", from_noise=share)
        t = objective.prepare(model, z, None, torch.Generator().manual_seed(1)).problem.t
        count = int((t == 0).sum())
        assert abs(count - 4000 * share) <= 4.5 * (4000 * share * (1 - share)) ** 0.5
        assert MapObjective(teacher, "lsd").settings | {"from_noise": share} == objective.settings


def test_what_cannot_be_is_refused(teacher):
    for law in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="^law: got .*, expected 0 or a positive number"):
            Perceptual(as_they_are, law=law)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^from_noise: got .*, expected a share in \[0, 1\]"):
            distill.distill(teacher, from_noise=share, steps=1, progress=False)
    for loss in ("esd", "meanflow"):
        with pytest.raises(ValueError, match=f"^from_noise: got 0.2 with loss='{loss}', which differentiates in s"):
            distill.distill(teacher, loss=loss, from_noise=0.2, steps=1, progress=False)
