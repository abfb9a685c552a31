"""Rewards by name: their sum, what each says, and whose fault it is."""

import math

import pytest
import torch

import align

from align.rewards import Brightness, Combined, External, JPEGSize, RewardModule, Symmetry
from align.scoring import RewardFailure

IMAGES = torch.linspace(-1, 1, 2 * 3 * 4 * 4, dtype=torch.float64).sin().reshape(2, 3, 4, 4)
a, b = Brightness(), Symmetry()


def first(z):
    return z.flatten(1)[:, 0]


def tinted(z, cond):
    return z.flatten(1).mean(1) * cond


def test_it_is_the_weighted_sum_of_its_parts():
    reward = Combined({"light": a, "even": (b, 0.5), "corner": (first, -2)})
    assert torch.allclose(reward(IMAGES), a(IMAGES) + 0.5 * b(IMAGES) - 2 * first(IMAGES), rtol=1e-12)
    assert reward(IMAGES.float()).dtype == torch.float32


def test_components_are_unweighted_and_add_up_to_the_total():
    reward = Combined({"light": (a, 3.0), "even": (b, -0.5), "corner": first})
    parts = reward.components(IMAGES)
    assert list(parts) == ["light", "even", "corner"]
    for part, expected in zip(parts.values(), (a, b, first), strict=True):
        assert torch.equal(part, expected(IMAGES))
    assert torch.equal(reward.total(parts), reward(IMAGES))
    assert torch.equal(reward.total(dict(reversed(parts.items()))), reward(IMAGES))
    with pytest.raises(ValueError, match="^components: got light, expected light, even, corner"):
        reward.total({"light": parts["light"]})


def test_each_part_is_asked_once():
    calls = []
    reward = Combined({"counted": lambda z: calls.append(len(z)) or first(z), "light": a})
    reward.total(reward.components(IMAGES))
    assert calls == [2]


def test_conditioning_reaches_the_parts_that_take_it():
    cond = torch.tensor([2.0, -1.0], dtype=torch.float64)
    parts = Combined({"tint": tinted, "light": (a, 2)}).components(IMAGES, cond)
    assert torch.equal(parts["tint"], a(IMAGES) * cond) and torch.equal(parts["light"], a(IMAGES))


def test_compositions_nest():
    inner = Combined({"light": a, "even": (b, 2.0)})
    outer = Combined({"look": ((2 * inner + first).clip(-0.9, 0.4), 0.5), "corner": first - inner, "sum": a + b})
    by_hand = a(IMAGES) + 2 * b(IMAGES)
    look = (2 * by_hand + first(IMAGES)).clamp(-0.9, 0.4)
    expected = 0.5 * look + first(IMAGES) - by_hand + a(IMAGES) + b(IMAGES)
    assert torch.allclose(outer(IMAGES), expected, rtol=1e-12)
    assert torch.allclose(outer.temper(2)(IMAGES), expected / 2, rtol=1e-12)
    assert set(outer.components(IMAGES)) == {"look", "corner", "sum"}


def test_gradients_are_those_of_the_sum():
    reward = Combined({"light": (a, 3.0), "even": b}) * 2 + first
    z = IMAGES.clone().requires_grad_()
    (found,) = torch.autograd.grad(reward(z).sum(), z)
    (expected,) = torch.autograd.grad((6 * a(z) + 2 * b(z) + first(z)).sum(), z)
    assert torch.allclose(found, expected, rtol=1e-12)


def test_weights_of_a_part_are_weights_of_the_whole():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1), torch.nn.Flatten(0))
    assert len(list(Combined({"light": a, "net.1": net}).parameters())) == 2


def test_a_black_box_among_others_is_refused_by_name_unless_it_is_only_watched():
    z = IMAGES.clone().requires_grad_()
    with pytest.raises(ValueError, match="^reward 'small': .*use estimator='score'"):
        Combined({"light": a, "small": JPEGSize()})(z)
    with pytest.raises(ValueError, match="^reward 'whole': .*use estimator='score'"):
        Combined({"whole": Combined({"small": JPEGSize()}), "light": a})(z)
    watched = Combined({"light": a, "small": (JPEGSize(), 0)})
    (found,) = torch.autograd.grad(watched(z).sum(), z)
    assert torch.equal(found, torch.autograd.grad(a(z).sum(), z)[0])
    assert torch.equal(watched.components(z)["small"], JPEGSize()(IMAGES).double())


def test_bad_answers_are_named():
    for answer, message in (
        (lambda z: z.mean(), r"it returned shape \(\)"),
        (lambda z: first(z) * torch.nan, "it returned nan for 2 of 2 samples"),
        (lambda z: [0.0, 0.0], "it returned list"),
    ):
        with pytest.raises(ValueError, match=f"^reward 'odd': {message}"):
            Combined({"light": a, "odd": answer})(IMAGES)
        with pytest.raises(ValueError, match=f"^reward 'odd': {message}"):
            (2 * Combined({"in": Combined({"odd": answer})}) + a)(IMAGES)


def test_what_is_no_dictionary_of_rewards_is_refused():
    with pytest.raises(ValueError, match="^rewards: got an empty one, expected a dictionary"):
        Combined({})
    with pytest.raises(ValueError, match="^rewards: got list, expected a dictionary"):
        Combined([a, b])
    with pytest.raises(ValueError, match="^rewards: got the name 3, expected a text"):
        Combined({3: a})
    for part in ("blue", 2.0, None, ("blue", 1.0), (a, 1.0, 2.0)):
        with pytest.raises(ValueError, match="^reward 'odd': got .*, expected a callable"):
            Combined({"odd": part})
    for weight in (math.nan, -math.inf, "2", None, True, torch.zeros(2)):
        with pytest.raises(ValueError, match="^weight of 'odd': got .*, expected a finite number"):
            Combined({"odd": (a, weight)})


def test_a_failure_keeps_the_total_of_what_was_finished():
    def ask(samples):
        if (first(samples) > first(IMAGES)[0]).any():
            raise OSError("gone")
        return first(samples)

    reward = Combined({"judge": (External(ask, batch=1, retries=0), 2.0), "light": a})
    with pytest.raises(RewardFailure, match="OSError: gone") as caught:
        reward(IMAGES)
    assert float(caught.value.rewards[0]) == pytest.approx(float(2 * first(IMAGES)[0] + a(IMAGES)[0]))
    assert bool(caught.value.rewards[1].isnan())


def test_it_drives_an_algorithm(case_a, seeded, check_tilt):
    """Linear rewards add up to the tilt by the weighted sum of their slopes."""
    reward = Combined({"right": (lambda z: z[:, 0], 0.5), "up": (Upward(), -0.75)})
    out = align.best_of_n(case_a, reward, 50, batch=2000, generator=seeded())
    slope = torch.tensor([0.5, -0.75], dtype=torch.float64)
    check_tilt(out, case_a.tilt(slope), case_a.log_normaliser(slope))


class Upward(RewardModule):
    def forward(self, z):
        return z[:, 1]
