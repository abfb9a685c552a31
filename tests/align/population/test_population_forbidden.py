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
    with pytest.raises(ValueError, match="^reward: it returned -inf for every particle of population 1"):
        algorithm(case_a, [mild, lambda z: mild(z) - torch.inf], batch=2, generator=family([1, 2]))


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
    with pytest.raises(ValueError, match="^reward: it returned -inf for every particle of population 0"):
        align.search(Branching(), reward, 1, 4, steps=1)
