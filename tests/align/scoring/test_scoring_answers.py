"""What a reward may answer, in which number type, and what is said of an answer that is no reward."""

import numpy
import pytest
import torch

from align.scoring import Scorer

BAD = {
    "a number": (lambda z: 1.0, "returned float"),
    "a list": (lambda z: [0.0] * len(z), "returned list"),
    "nothing": (lambda z: None, "returned NoneType"),
    "a numpy array": (lambda z: numpy.zeros(len(z)), "returned ndarray"),
    "a batch mean": (lambda z: z.mean(), r"returned shape \(\), expected a tensor of shape \(6,\)"),
    "a column": (lambda z: z[:, :1], r"returned shape \(6, 1\), expected a tensor of shape \(6,\)"),
    "too few": (lambda z: z[1:, 0], r"returned shape \(5,\), expected a tensor of shape \(6,\)"),
    "nan": (lambda z: z[:, 0] * torch.nan, "returned nan for 6 of 6 samples"),
    "one nan": (lambda z: torch.where(z[:, 0] > 0.7, torch.nan, 0.0), "returned nan for 1 of 6 samples"),
    "infinity": (lambda z: torch.where(z[:, 0] > 0, torch.inf, 0.0), "returned inf for 3 of 6 samples"),
    "half's overflow": (lambda z: (1e6 * z[:, 0].abs() + 1e6).half(), "returned inf for 6 of 6"),
    "complex": (lambda z: z[:, 0] + 0j, "returned torch.complex64, expected real numbers"),
    "another device": (lambda z: torch.zeros(len(z), device="meta"), "returned a tensor on meta, expected one on cpu"),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_are_no_rewards_are_refused(case, samples):
    reward, message = BAD[case]
    with pytest.raises(ValueError, match=f"^reward: it {message}"):
        Scorer(reward)(samples)


@pytest.mark.parametrize("case", BAD)
def test_every_algorithm_refuses_them(case, algorithm, case_a):
    reward, _ = BAD[case]
    with pytest.raises(ValueError, match="^reward: "):
        algorithm(case_a, reward)


def test_what_cannot_be_called_is_refused(algorithm, case_a):
    with pytest.raises(ValueError, match=r"^reward: got float, expected a callable reward\(z\)"):
        algorithm(case_a, 3.0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_rewards_of_any_real_number_type_are_computed_in_single_precision(dtype, samples):
    scores = Scorer(lambda z: (z[:, 0] > 0).to(dtype))(samples)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float32])
def test_rewards_of_double_precision_samples_are_computed_in_it(dtype, samples):
    assert Scorer(lambda z: (z[:, 0] > 0).to(dtype))(samples.double()).dtype == torch.float64


def test_minus_infinity_is_a_reward(samples):
    scores = Scorer(lambda z: torch.where(z[:, 0] > 0, -torch.inf, 1.5))(samples)
    assert scores.tolist() == [1.5] * 3 + [-torch.inf] * 3


def test_coarse_number_types_serve_every_algorithm(algorithm, differentiates, case_a, family):
    """Counts and votes are rewards where no derivative is asked for, and refused where one is."""
    if differentiates:
        with pytest.raises(ValueError, match="^reward: .*expected a differentiable reward"):
            algorithm(case_a, lambda z: z[:, 0] < 0)
        return
    for dtype in (torch.bool, torch.int32, torch.float16):
        coarse, fine = (
            algorithm(case_a, lambda z, kind=kind: (z[:, 0] < 0).to(kind), generator=family([3]))
            for kind in (dtype, torch.float64)
        )
        assert torch.equal(coarse.samples, fine.samples)
        assert torch.equal(coarse.rewards, fine.rewards)
