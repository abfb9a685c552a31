"""Numbers read off answers."""

import contextlib
import math
import time

import pytest

from align.rewards.vlm_answers import expected_number, read_number

READ = {  # on a scale from 1 to 10
    "7": 7, " 7. ": 7, "**7**": 7, "__7__": 7, "7.5": 7.5, "7,5": 7.5, "-> 7": 7, "- 7": 7, "10": 10, "(8)": 8,
    # shares
    "7/10": 7, "I'd say 8 / 10, as 2 cats are missing.": 8, "8 out of 10": 8, "First 3/10, no: 4/10.": 4,
    "Score: **8/10**": 8, "8.5/10.0": 8.5, "I'd give it 8 of 10": 8, "10 out of 10 for these 3 dogs": 10,
    "**8** out of 10, since 3 of 4 dogs are there": 8, "4 of 10 dogs are missing; score 7": 7,
    "Overall: 7/10 (composition 9/10, colours 3/10)": 7, "8 out of a possible 10": 8,
    # named
    "Score: 6": 6, "Score: 7.5": 7.5, "**Score:** 6 because of 3 flaws": 6, "My rating is 9.": 9, "Score = 9": 9,
    '{"score": 7}': 7, '{"score": 4.5, "cats": 2}': 4.5, "2 cats are shown. Final score: 7": 7,
    "The overall grade of 5 seems fair": 5, "A score of 8 is fair, as 2 of 3 dogs are there": 8,
    "My rating would be a 4. The prompt asks for 3 dogs": 4, "3 dogs are missing. I'd rate it 8.": 8,
    "The score would be 9 as the 2 dogs are there": 9, "I'd rate this image as a 6. There are 2 dogs.": 6,
    "Graded 6, 2 dogs": 6, "It shows 2 cats. I give it a 9": 9, "2 dogs and 3 cats; I'd say 9": 9,
    "Score:\n\n7\n\nReason: 2 dogs": 7, "1. Good colours\n2. Good shapes\nScore: 8": 8, "There are 3 dogs. Score: 3": 3,
    # at the beginning, or by themselves
    "8, since 2 cats are on the mat": 8, "6\n\nIt shows 2 dogs": 6, "7. It shows 3 dogs": 7, "I can see 3 dogs. 4": 4,
    "The 2 dogs are there.\n\n**9**": 9, "An 8.": 8, "The 3rd dog of GPT-4 is 2-headed: 6": 6,
    # the scale itself
    "I give 8 on a scale from 1 to 10": 8, "On a scale of 1-10: 3": 3, "Score (1 to 10): 4": 4, "Score out of 10: 8": 8,
    "an 8 on a scale of 10": 8, "7 on a 10-point scale": 7, "7 on a 10 point scale": 7, "Out of 10, a 7": 7,
    "I rate it 7, where 10 is best": 7, "7 (10 = perfect, 1 = worst)": 7, "Score of 8. The maximum score is 10.": 8,
    "From 1 (worst) to 10 (best), 7": 7,
    # denied, thought, and per cent
    "score of 10 is impossible here, so 4": 4, "I would not give it a 10, so 8": 8, "Not a 10. It is a 6": 6,
    "<think>3 dogs, score 2?</think>5": 5, "7 (80% of it is right)": 7,
}  # fmt: skip
UNREAD = [
    "", "I cannot judge this.", "0", "11", "-7", "Score: 12", "100/10", "from 1 to 10", "No score out of 10 given",
    "seven", "Seven out of ten", "80%", "8/100", "4/5", "Score: 4/5", "1e1", "7-8", "Between 6 and 7", "Score: 7 to 8",
    "A perfect score of 10 is impossible.", "I cannot rate this higher than 4", "10 dogs are asked for, 3 are there, 4",
    "Score: 3 dogs are missing, so 8", "10/10 for detail but 2/10 for the prompt", "2 of the 3 dogs, so 5 stars",
    "1. The dog is red. 2. It has 3 legs", "It would be a 7 if 2 dogs were there",
]  # fmt: skip
ELSEWHERE = {
    (0, 1): {"0.85": 0.85, ".85": 0.85, "0.85/1": 0.85, "from 0 to 1: 0.3": 0.3, "2": None, "80%": None},
    (0, 100): {"85/100": 85, "85%": 85, "Score: 85% of 100": 85, "85 (0 to 100)": 85, "8.5/10": None},
    (1, 5): {"4/5": 4, "3.0 out of 5.0": 3, "On a 5-point scale, 2": 2},
    (-5, 5): {
        "-2": -2, "\N{MINUS SIGN}2": -2, "Score: -2": -2, "Score -3 because of 2 dogs": -3, "-3/5": -3, "+4": 4,
        "I rate it -3 on a scale from -5 to 5": -3, "-5 to +5: -1": -1, "- 2": None, "\N{EN DASH}2": None, "-6": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("answer", READ)
def test_the_rule(answer):
    assert read_number(answer, (1, 10)) == READ[answer]


@pytest.mark.parametrize("answer", UNREAD)
def test_what_gives_no_number_on_the_scale_is_told(answer):
    with pytest.raises(ValueError, match="^the judge said '.*', expected a number from 1 to 10$"):
        read_number(answer, (1, 10))


@pytest.mark.parametrize(("scale", "answer"), [(scale, answer) for scale in ELSEWHERE for answer in ELSEWHERE[scale]])
def test_other_scales(scale, answer):
    if ELSEWHERE[scale][answer] is None:
        with pytest.raises(ValueError, match=f"expected a number from {scale[0]} to {scale[1]}$"):
            read_number(answer, scale)
    else:
        assert read_number(answer, scale) == ELSEWHERE[scale][answer]


def test_long_answers_are_read_at_once():
    start = time.perf_counter()
    for part in ("score of the image is a ", "not very good ", "1 to 10 ", " - - ", "<think>", "7 is too "):
        with contextlib.suppress(ValueError):
            read_number(part * 2000 + "and 3 and 4", (1, 10))
    assert time.perf_counter() - start < 5


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


def test_the_digit_is_that_of_the_number_that_is_read():
    """Not the first one that was written, which may count dogs."""

    def tokens(*texts):
        return [{"token": text, "top_logprobs": [{"token": text, "logprob": math.log(0.9)}]} for text in texts]

    answer = tokens("The", " ", "3", " dogs", ".", " **", "Score", ":**", " ", "4", " because", " 2")
    answer[9]["top_logprobs"].append({"token": "2", "logprob": math.log(0.1)})
    assert expected_number(answer, (1, 5)) == pytest.approx(0.9 * 4 + 0.1 * 2)
    assert expected_number(tokens("4", ".", "5"), (1, 5)) == 4
    for unread in (tokens("3", " dogs", " of", " 4"), tokens("Score", ": 4.5")):
        with pytest.raises(ValueError, match="has no logprobs of a digit of the scale"):
            expected_number(unread, (1, 5))
