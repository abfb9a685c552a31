"""The bias of few draws: where it leads, what it is for one, and that it is told."""

import pytest
import torch

import align


def test_one_draw_overconcentrates(line, pull, seeded):
    """Following the mean gradient of r goes too far and becomes too narrow, to where an independent computation found
    it too; many draws do neither."""
    law = pull.law(line())
    assert [float(law.mean()), float(law.covariance().sqrt())] == pytest.approx([-1.130, 0.676], abs=1e-3)
    one = align.guide(line(), pull, 1500, 40, 1, generator=seeded()).samples[0, :, 0]
    assert [float(one.mean()), float(one.std())] == pytest.approx([-1.606, 0.414], abs=0.05)
    many = align.guide(line(), pull, 600, 24, 32, generator=seeded()).samples[0, :, 0]
    assert [float(many.mean()), float(many.std())] == pytest.approx([-1.130, 0.676], abs=0.11)


def test_one_draw_is_plugin_in_the_mean_for_a_quadratic_reward_on_a_gaussian(normal_law, quadratic, seeded, check_mean):
    """`E grad r(z) = grad r(E z)` for such a reward, and every step is affine in it."""
    model, reward = normal_law([0.5, -0.3], [[0.8, 0.3], [0.3, 0.5]]), quadratic([-0.5, 0.5], 0.5)
    one, plugin = (
        align.guide(model, reward, 1500, 24, 1, estimator=estimator, generator=seeded()).samples[0]
        for estimator in ("reparam", "plugin")
    )
    check_mean(one - plugin, torch.zeros(2, dtype=torch.float64), limit=4)
    law = reward.law(model)
    assert plugin.var(0).sum() < 0.8 * law.covariance().trace()


def test_it_says_which_law_it_follows(case_a, mild):
    def law(**options):
        return align.guide(case_a, mild, 2, 2, **options).law

    assert "bias of 4 draws" in law()
    assert "bias of 7 draws" in law(mc=7, estimator="score")
    assert "Jensen bias" in law(estimator="plugin")
    assert law(scale=2.0).startswith("none")


def test_more_scale_climbs_higher(case_a, mild, seeded):
    low, middle, high = (
        align.guide(case_a, mild, 400, 16, 4, scale=scale, generator=seeded()).rewards.mean() for scale in (0, 0.5, 1)
    )
    assert low < middle < high


@pytest.mark.parametrize(
    "mc, antithetic, share", [(2, False, 0.5), (4, False, 0.75), (16, False, 0.9375), (2, True, 1)]
)
def test_the_score_estimator_follows_a_share_of_a_mild_reward(mc, antithetic, share, normal_law, seeded, check_mean):
    """`1 - 1 / mc` of what the derivative of a linear reward does on a Gaussian, exactly to first order; the mean of
    mirror images is exact, and nothing is lost. All walks share their noise."""
    model = normal_law([0.3], [[1.0]])

    def walk(slope, **options):
        options = {"interval": (0.01, 1.0), "antithetic": antithetic, "generator": seeded(1), **options}
        return align.guide(model, lambda z: slope * z[:, 0], 4000, 5, mc, **options).samples[0]

    plain = walk(0.0, estimator="score")
    whole = walk(0.1) - walk(0.0)
    check_mean(walk(0.1, estimator="score") - plain, share * whole.mean(0), limit=4, slack=1e-4)
    assert float(whole.mean()) > 0.05
