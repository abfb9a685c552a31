"""Rewards add and scale, with each other and with any callable."""

import pytest
import torch

import align

from align.rewards import Brightness, RewardModule, Symmetry

IMAGES = torch.linspace(-1, 1, 2 * 3 * 4 * 4, dtype=torch.float64).sin().reshape(2, 3, 4, 4)


def first(z):
    return z.flatten(1)[:, 0]


class First(torch.nn.Module):
    """The same in a module that knows nothing of rewards."""

    def forward(self, z):
        return first(z)


class Tinted(RewardModule):
    """A reward with conditioning."""

    def forward(self, z, cond):
        return z.flatten(1).mean(1) * cond


class Learnt(RewardModule):
    """A reward with weights."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, z):
        return self.scale * z.flatten(1).mean(1)


a, b = Brightness(), Symmetry()
COMPOSED = {
    "sum": (a + b, lambda z: a(z) + b(z)),
    "factor left": (2.0 * a, lambda z: 2 * a(z)),
    "factor right": (a * 3, lambda z: 3 * a(z)),
    "factor and sum": (2.0 * a + b, lambda z: 2 * a(z) + b(z)),
    "difference": (a - b, lambda z: a(z) - b(z)),
    "minus": (-a, lambda z: -a(z)),
    "nested": (2 * (a - 3 * b) - 0.5 * (b - a), lambda z: 2.5 * a(z) - 6.5 * b(z)),
    "same twice": (a + a, lambda z: 2 * a(z)),
    "callable right": (a + first, lambda z: a(z) + first(z)),
    "callable left": (first + a, lambda z: a(z) + first(z)),
    "callable less": (first - a, lambda z: first(z) - a(z)),
    "less a callable": (2 * a - first, lambda z: 2 * a(z) - first(z)),
    "scaled after": (4 * (first + a), lambda z: 4 * a(z) + 4 * first(z)),
    "plain module left": (First() + b, lambda z: first(z) + b(z)),
    "plain module less": (First() - 2 * b, lambda z: first(z) - 2 * b(z)),
    "sum of a list": (sum([a, b, first]), lambda z: a(z) + b(z) + first(z)),
    "sum of one": (sum([a]), a),
    "sum from a reward": (sum([first, 2 * b], a), lambda z: a(z) + first(z) + 2 * b(z)),
    "no weight": (0 * a + b, b),
}


@pytest.mark.parametrize("case", COMPOSED)
def test_composed_rewards_are_composed_numbers(case):
    reward, expected = COMPOSED[case]
    assert isinstance(reward, RewardModule)
    found = reward(IMAGES)
    assert found.shape == (2,) and found.dtype == torch.float64
    assert torch.allclose(found, expected(IMAGES), rtol=1e-12)


@pytest.mark.parametrize("case", COMPOSED)
def test_composed_rewards_keep_their_derivative(case):
    reward, expected = COMPOSED[case]
    z = IMAGES.clone().requires_grad_()
    (found,) = torch.autograd.grad(reward(z).sum(), z)
    (by_hand,) = torch.autograd.grad(expected(z).sum(), z)
    assert torch.allclose(found, by_hand, rtol=1e-12)


def test_conditioning_reaches_the_terms_that_take_it():
    cond = torch.tensor([2.0, -1.0], dtype=torch.float64)
    for reward in (a + Tinted(), Tinted() + a, Tinted() + first, first + Tinted(), 1 * Tinted() + a):
        other = first if "first" in str(reward.terms) else a
        assert torch.allclose(reward(IMAGES, cond), other(IMAGES) + a(IMAGES) * cond)


def test_weights_of_a_term_are_weights_of_the_sum():
    reward = 2 * Learnt() + first
    assert [p.shape for p in reward.parameters()] == [()]
    assert reward.double()(IMAGES).dtype == torch.float64
    reward(IMAGES).sum().backward()
    assert float(next(reward.parameters()).grad) == pytest.approx(2 * float(a(IMAGES).sum()))


def test_a_sum_does_not_change_its_terms():
    total = a + b
    _ = total + first, -total, 3 * total
    assert torch.allclose(total(IMAGES), a(IMAGES) + b(IMAGES))


def test_each_term_is_checked_as_a_reward():
    with pytest.raises(ValueError, match=r"^reward: it returned shape \(\), expected a tensor of shape \(2,\)"):
        (a + (lambda z: z.mean()))(IMAGES)
    with pytest.raises(ValueError, match="^reward: it returned nan for 2 of 2 samples"):
        (a + (lambda z: first(z) * torch.nan))(IMAGES)
    with pytest.raises(ValueError, match="^reward: got str, expected a callable"):
        a + "blue"
    with pytest.raises(ValueError, match="^reward: got int, expected a callable"):
        a + 3


def test_forbidden_samples_stay_forbidden_in_a_sum():
    reward = a + (lambda z: torch.where(first(z) < 0, -torch.inf, 0.0))
    assert reward(IMAGES).isinf().tolist() == (first(IMAGES) < 0).tolist()


def test_composed_rewards_drive_an_algorithm(case_a, seeded, check_tilt):
    """Linear rewards add up to the tilt by the sum of their slopes."""

    class Coordinate(RewardModule):
        def __init__(self, axis):
            super().__init__()
            self.axis = axis

        def forward(self, z):
            return z[:, self.axis]

    reward = 0.5 * Coordinate(0) - Coordinate(1) + (lambda z: 0.25 * z[:, 1])
    out = align.best_of_n(case_a, reward, 50, batch=2000, generator=seeded())
    slope = torch.tensor([0.5, -0.75], dtype=torch.float64)
    check_tilt(out, case_a.tilt(slope), case_a.log_normaliser(slope))
