"""Samples of a reward of minus infinity, in every algorithm."""

import pytest
import torch

import align


def test_forbidden_samples_have_no_weight_and_break_nothing(algorithm, case_a, mild, family):
    def partly(z):
        return torch.where(z[:, 0] < 1.4, mild(z), -torch.inf)

    out = algorithm(case_a, partly, batch=3, generator=family([1, 2, 3]))
    assert out.samples.isfinite().all()
    assert torch.equal(out.rewards == -torch.inf, out.samples[..., 0] >= 1.4)
    assert not out.log_weights.isnan().any() and not out.ess.isnan().any()
    if out.log_z is not None:
        assert out.log_z.isfinite().all()
        assert not out.log_weights.softmax(-1)[out.rewards == -torch.inf].any()
    assert "nan" not in out.summary()


def test_populations_without_an_allowed_sample_are_refused(algorithm, case_a, mild, family):
    with pytest.raises(
        ValueError, match=r"^reward: it returned -inf for all \d+ samples of population 1 of 0 to 1, exp"
    ):
        algorithm(case_a, [mild, lambda z: mild(z) - torch.inf], batch=2, generator=family([1, 2]))


def test_all_populations_without_an_allowed_sample_are_named(case_a, mild):
    """By their numbers, as far as a sentence bears it; one population alone has none."""

    def never(z):
        return mild(z) - torch.inf

    with pytest.raises(
        ValueError, match="for all 3 samples of populations 0, 2 of 0 to 3, expected .* leave these popul"
    ):
        align.best_of_n(case_a, [never, mild, never, mild], 3, batch=4)
    with pytest.raises(
        ValueError, match=r"of populations 0, 1, 2, 3, 4, 5, 6, 7, \.\.\. \(20 in all\) of 0 to 19, exp"
    ):
        align.best_of_n(case_a, never, 3, batch=20)
    with pytest.raises(
        ValueError, match="^reward: it returned -inf for all 3 samples, expected .*; take more particles$"
    ):
        align.best_of_n(case_a, never, 3)


def test_one_allowed_candidate_of_a_last_step_is_enough(still):
    """Search is refused when all its candidates are forbidden, not when all but one are."""
    asked = []

    class Branching(type(still)):
        def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
            return torch.arange(len(x_t), dtype=x_t.dtype)[:, None]

    def reward(z):
        asked.append(len(z))
        return torch.where(z[:, 0] == 5, 0.0, -torch.inf)

    out = align.search(Branching(), reward, 2, 4, steps=1)
    assert asked == [8] and out.best().tolist() == [[5.0]]
    with pytest.raises(ValueError, match="^reward: it returned -inf for all 4 samples, expected one or more"):
        align.search(Branching(), reward, 1, 4, steps=1)
