"""Numbers read off answers."""

import math

import pytest

from align.rewards.vlm_answers import expected_number, read_number

READ = {
    "7": 7, " 7. ": 7, "**7**": 7, "7.5": 7.5, "7,5": 7.5, "-> 7": 7, "10": 10,
    "7/10": 7, "I'd say 8 / 10, as 2 cats are missing.": 8, "8 out of 10": 8, "First 3/10, no: 4/10.": 4,
    "Score: 6": 6, "**Score:** 6 because of 3 flaws": 6, "My rating is 9.": 9, '{"score": 4.5, "cats": 2}': 4.5,
    "2 cats are shown. Final score: 7": 7, "The overall grade of 5 seems fair": 5,
    "8, since 2 cats are on the mat": 8, "It shows 2 cats. I give it a 9": 9,
    "I give 8 on a scale from 1 to 10": 8, "On a scale of 1-10: 3": 3, "Score (1 to 10): 4": 4,
}  # fmt: skip


@pytest.mark.parametrize("answer", READ)
def test_the_rule(answer):
    assert read_number(answer, (1, 10)) == READ[answer]


@pytest.mark.parametrize("answer", ["", "I cannot judge this.", "0", "11", "-7", "Score: 12", "100/10", "from 1 to 10"])
def test_what_gives_no_number_on_the_scale_is_told(answer):
    with pytest.raises(ValueError, match="^the judge said '.*', expected a number from 1 to 10$"):
        read_number(answer, (1, 10))


def test_other_scales():
    assert read_number("0.85", (0, 1)) == 0.85 and read_number("85/100", (0, 100)) == 85
    assert read_number("-2", (-5, 5)) == -2
    with pytest.raises(ValueError, match="expected a number from 0 to 1$"):
        read_number("2", (0, 1))


def test_the_expected_score_is_that_of_the_digits_on_the_scale():
    first = {"token": "Score", "logprob": 0.0, "top_logprobs": [{"token": "4", "logprob": -1.0}]}
    second = {"token": " 4", "logprob": -0.7, "top_logprobs": []}
    second["top_logprobs"] = [
        {"token": text, "logprob": math.log(p)}
        for text, p in ((" 4", 0.5), ("4", 0.1), ("2", 0.3), ("9", 0.05), ("a", 0.05))
    ]
    assert expected_number([first, second], (1, 5)) == pytest.approx((0.6 * 4 + 0.3 * 2) / 0.9)
    assert expected_number([{"token": "3", "logprob": -0.2}], (1, 5)) == pytest.approx(3)
    for tokens in (None, [], [first], [{"token": "9", "logprob": -0.1}]):
        with pytest.raises(ValueError, match="has no logprobs of a digit of the scale"):
            expected_number(tokens, (1, 5))
