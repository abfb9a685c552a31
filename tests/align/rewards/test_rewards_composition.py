"""Rewards add, scale, clip and temper, with each other and with any callable."""

import math

import pytest
import torch

import align

from align.rewards import Brightness, External, JPEGSize, RewardModule, Symmetry
from align.scoring import RewardFailure

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
    "tempered": (a.temper(4.0), lambda z: a(z) / 4),
    "tempered sum": ((2 * a + b).temper(0.5) - first, lambda z: 4 * a(z) + 2 * b(z) - first(z)),
    "clipped": ((a - first).clip(-0.5, 0.25) + b, lambda z: (a(z) - first(z)).clamp(-0.5, 0.25) + b(z)),
    "clipped below": (3 * b.clip(low=-0.4), lambda z: 3 * b(z).clamp(min=-0.4)),
    "clipped twice": (b.clip(high=-0.6).clip(low=-0.7), lambda z: b(z).clamp(-0.7, -0.6)),
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
    with pytest.raises(
        ValueError, match=r"^reward '<lambda>': it returned shape \(\), expected a tensor of shape \(2,\)"
    ):
        (a + (lambda z: z.mean()))(IMAGES)
    with pytest.raises(ValueError, match="^reward '<lambda>': it returned nan for 2 of 2 samples"):
        (a + (lambda z: first(z) * torch.nan))(IMAGES)
    with pytest.raises(ValueError, match="^reward: got 'blue', expected a callable"):
        a + "blue"
    with pytest.raises(ValueError, match="^reward: got int, expected a callable"):
        a + 3
    with pytest.raises(ValueError, match="^reward: got int, expected a callable"):
        3 + a


@pytest.mark.parametrize("factor", [math.nan, math.inf, "2", None, True, a])
def test_factors_are_finite_numbers(factor):
    with pytest.raises(ValueError, match="^factor: got .*, expected a finite number"):
        a * factor


def test_forbidden_samples_stay_forbidden_in_a_sum():
    reward = a + (lambda z: torch.where(first(z) < 0, -torch.inf, 0.0))
    assert reward(IMAGES).isinf().tolist() == (first(IMAGES) < 0).tolist()


def test_weight_zero_makes_nothing_even_of_a_forbidden_sample():
    reward = a + 0 * Forbidding()
    assert torch.equal(reward(IMAGES), a(IMAGES))


class Forbidding(RewardModule):
    def forward(self, z):
        return torch.where(first(z) < 0, -torch.inf, 0.0)


def test_a_clipped_reward_has_gradient_zero_outside():
    z = torch.tensor([[-2.0], [0.3], [2.0]], dtype=torch.float64, requires_grad=True)
    clipped = (5 * Brightness()).clip(-1, 1.7)
    values = clipped(z)
    assert values.tolist() == pytest.approx([-1.0, 1.5, 1.7])
    (slope,) = torch.autograd.grad(values.sum(), z)
    assert slope.flatten().tolist() == [0.0, 5.0, 0.0]
    assert Forbidding().clip(low=-3)(IMAGES).tolist() == [-3.0 if x < 0 else 0.0 for x in first(IMAGES)]


def test_clips_and_temperatures_that_are_none_are_refused():
    with pytest.raises(ValueError, match="^low, high: got None for both"):
        a.clip()
    with pytest.raises(ValueError, match="^low, high: got 1 and 0, expected low to be at most high"):
        a.clip(1, 0)
    for name, ends in [("low", (math.nan, 1)), ("high", (0, math.nan))]:
        with pytest.raises(ValueError, match=f"^{name}: got nan, expected a number, or None"):
            a.clip(*ends)
    for temperature in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="^temperature: got .*, expected a finite number above 0"):
            a.temper(temperature)


def test_a_clipped_reward_is_asked_once_and_given_its_conditioning():
    cond = torch.tensor([2.0, -1.0], dtype=torch.float64)
    calls = []

    class Counted(Tinted):
        def forward(self, z, cond):
            calls.append(len(z))
            return super().forward(z, cond)

    found = Counted().clip(high=0.01)(IMAGES, cond)
    assert torch.equal(found, Tinted()(IMAGES, cond).clamp(max=0.01)) and calls == [2]


scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
WITHOUT_DERIVATIVE = {
    "black box": (JPEGSize(), "JPEGSize"),
    "constant": (lambda z: torch.ones(len(z)), "<lambda>"),
    "detached": (lambda z: first(z.detach()), "<lambda>"),
    "weights alone": (lambda z: scale * first(z.detach()), "<lambda>"),
    "steps": (lambda z: (first(z) > 0).double(), "<lambda>"),
}


@pytest.mark.parametrize("case", WITHOUT_DERIVATIVE)
def test_a_part_that_would_lose_its_gradient_is_refused_by_name(case):
    part, name = WITHOUT_DERIVATIVE[case]
    z = IMAGES.clone().requires_grad_()
    for reward in (a + part, 3 * (part + a), (b - part).clip(-9, 9) + a, part + a.temper(2)):
        with pytest.raises(ValueError, match=f"^reward '{name}': it returned .*use estimator='score'"):
            reward(z)
        with torch.no_grad():
            assert torch.equal(reward(z), reward(IMAGES))
        assert torch.equal(reward(IMAGES), reward(z.detach()))
    assert (a + 0 * (a * 1 + first) + b)(z).requires_grad


def test_a_part_of_no_weight_has_no_gradient_to_lose():
    z = IMAGES.clone().requires_grad_()
    (found,) = torch.autograd.grad((a + 0 * JPEGSize())(z).sum(), z)
    assert torch.equal(found, torch.autograd.grad(a(z).sum(), z)[0])


def test_black_boxes_alone_add_up_and_have_no_gradient():
    z = IMAGES.clone().requires_grad_()
    assert not (2 * JPEGSize() + (lambda z: torch.ones(len(z))))(z).requires_grad


def test_guidance_refuses_what_would_lose_its_gradient_and_takes_its_advice(case_a, mild, seeded):
    class Quadratic(RewardModule):
        def forward(self, z):
            return mild(z)

    reward = Quadratic() + (lambda z: (z[:, 0] > 0).double())
    with pytest.raises(ValueError, match="^reward '<lambda>': .*use estimator='score'"):
        align.guide(case_a, reward, 2, 2, 3)
    out = align.guide(case_a, reward, 2, 2, 3, estimator="score", generator=seeded())
    assert out.samples.isfinite().all()


def test_a_derivative_is_found_through_checkpoints_and_function_transforms():
    def checkpointed(z):
        return torch.utils.checkpoint.checkpoint(first, z, use_reentrant=False)

    def reentrant(z):
        return torch.utils.checkpoint.checkpoint(first, z, use_reentrant=True)

    z = IMAGES.clone().requires_grad_()
    reward = a + checkpointed + reentrant
    reward(z).sum().backward()
    expected = torch.func.grad(lambda z: (a + first + first)(z).sum())(IMAGES)
    assert torch.allclose(z.grad, expected)


def test_a_failure_within_a_sum_keeps_the_rewards_of_the_sum():
    def ask(samples):
        if (samples.flatten(1)[:, 0] > 0).any():
            raise OSError("gone")
        return first(samples)

    images = torch.tensor([-1.0, -0.5, 0.5]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    judge = External(ask, batch=1, retries=0)
    for reward, expected in (
        (2 * judge - a, [-1.0, -0.5]),
        ((2 * judge - a).clip(low=-0.75), [-0.75, -0.5]),
        (a + (a - 3 * judge).temper(2.0), [0.0, 0.0]),
    ):
        with pytest.raises(RewardFailure, match="^reward: 1 of 3 samples have no answer.* OSError: gone") as caught:
            reward(images)
        assert caught.value.rewards[:2].tolist() == pytest.approx(expected)
        assert caught.value.rewards.isnan().tolist() == [False, False, True]


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
