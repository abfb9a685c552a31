"""The three tasks in the report: their pictures, their tables, and what is to be seen in them."""

from __future__ import annotations

import math

from typing import Any

from .alignments import BASE, METHODS, RIVALS
from .page import figure, paragraphs, section, table
from .settings import GLASS_STEPS
from .tasks import INPAINTING_NOISE, INPAINTING_SCALE, SYMMETRY_WEIGHT
from .wording import LABELS, amount, chosen, count, leaders, number, percent, ranked, scale

__all__ = ["task_story"]

MEASURES = {  # of each task: its measures, how the table calls them, with how many digits
    "class": [
        ("agrees", "judge agrees", 2),
        ("agrees, by weight", "judge agrees, by weight", 2),
        ("nearest", "to nearest digit", 2),
    ],
    "symmetry": [
        ("reward, by weight", "reward, by weight", 2),
        ("confidence", "judge\u2019s confidence", 2),
        ("nearest", "to nearest digit", 2),
    ],
    "inpainting": [
        ("error", "error, hidden half", 3),
        ("error of the mean", "error of the mean", 3),
        ("spread", "spread", 2),
    ],
}
REWARD_DIGITS = {"class": 2, "symmetry": 2, "inpainting": 1}


def task_story(report: dict[str, Any], task: str, png: bytes) -> str:
    """One task: its pictures, what to see in them, and the table."""
    rows = report["figures"]["tasks"][task][str(report["settings"]["shown_budget"])]
    tell = {"class": _class_story, "symmetry": _symmetry_story, "inpainting": _inpainting_story}[task]
    title, before, caption, after = tell(rows, report)
    return section(
        title,
        paragraphs(*before),
        figure(png, f"Pictures handed over by each method: {LABELS[task]}.", caption),
        _table(task, rows),
        paragraphs(*after),
        level=3,
    )


def _table(task: str, rows: dict[str, Any]) -> str:
    costs = ["NFE", "of these back\u00adward", "reward calls", "ms"]
    heads = ["method", "reward", *(head for _, head, _ in MEASURES[task]), *costs]
    cells = [
        [
            name,
            amount(row["reward"], REWARD_DIGITS[task]),
            *(amount(row["measures"][key], digits) for key, _, digits in MEASURES[task]),
            count(row["nfe"]),
            count(row["nfe backward"]),
            count(row["reward calls"]),
            number(1000 * row["seconds"], 1),
        ]
        for name, row in rows.items()
    ]
    return table(heads, cells, rivals=sum(name in RIVALS for name in rows))


def _class_story(rows: dict[str, Any], report: dict[str, Any]) -> tuple[str, list[str], str, list[str]]:
    agrees, by_weight = chosen(rows, "agrees"), chosen(rows, "agrees, by weight")
    real, nearest = report["figures"]["real digits"]["nearest"], chosen(rows, "nearest")
    far = max(nearest, key=lambda name: nearest[name]["mean"])
    drift = (
        f" The pictures of {far} have left the digits: a gradient from few draws also finds what pleases the "
        "classifier alone."
        if far == "guidance" and nearest[far]["mean"] > 1.2 * max(real, rows[BASE]["measures"]["nearest"]["mean"])
        else ""
    )
    smc_glass = rows[RIVALS[1]]["measures"]["agrees"]["mean"]
    solved = [name for name, figure in agrees.items() if figure["mean"] > 0.97]
    if len(solved) == len(agrees):
        ease = (
            f"At this price the wish is easy: one draw in ten is right by luck, so {rows['best-of-N']['nfe']} draws "
            "hold plenty to choose from, and the plainest method is as good as any."
        )
    else:
        ease = f"In order of the judge\u2019s agreement: {ranked(agrees)}."
    return (
        "A digit of your choice",
        [
            "The reward is a classifier\u2019s log-probability of the wanted digit. Then the target is, by "
            "Bayes\u2019 rule, just the digits of that class: a class-conditional generator, without ever having "
            "been trained as one."
        ],
        "One column for each digit asked for; in each row the pictures of one method\u2019s first populations, "
        "unselected. Base sampling does not listen; the others should read 0 to 9.",
        [
            f"The judge sees the wanted digit in {percent(rows[BASE]['measures']['agrees']['mean'])} of the base "
            "samples. " + ease,
            "The next column looks at all that a population holds, not only its best, and there the methods part: "
            f"{ranked(by_weight)}. Search climbs rather than samples, and a picture drawn in several steps is as a "
            "rule cleaner than one drawn in a single call.",
            "Does the classifier get digits, or what it takes for digits? The distance to the nearest training digit "
            f"is {number(real)} for real held-out digits, and for the methods: {ranked(nearest, 'low')}.{drift}",
            "With GLASS in place of the map SMC can afford "
            f"{max(1, rows['SMC']['settings']['particles'] // GLASS_STEPS)} particles instead of "
            f"{rows['SMC']['settings']['particles']}, and the judge agrees in {percent(smc_glass)} of the cases: this "
            "is what the one-call look-ahead buys.",
        ],
    )


def _symmetry_story(rows: dict[str, Any], report: dict[str, Any]) -> tuple[str, list[str], str, list[str]]:
    real, rewards = report["figures"]["real digits"], chosen(rows)
    first = leaders(rewards)[0]
    kinds = {name: _kinds(rows[name]["digits shown"]) for name in METHODS}
    favourite = max(range(10), key=lambda digit: rows[first]["digits shown"][digit])
    share = rows[first]["digits shown"][favourite] / max(sum(rows[first]["digits shown"]), 1)
    nearest = rows[first]["measures"]["nearest"]["mean"]
    if nearest <= real["nearest"]:
        hacked = (
            f"They do stay digits: the nearest training digit is {number(nearest)} away from the winner\u2019s "
            f"pictures, and {number(real['nearest'])} from a real held-out digit. So it is not their look that pays "
            "for the reward, it is their variety."
        )
    else:
        hacked = (
            f"And they drift from real digits: the nearest training digit is {number(nearest)} away from the "
            f"winner\u2019s pictures, and {number(real['nearest'])} from a real held-out one."
        )
    return (
        "Symmetry, from a black box",
        [
            f"The reward is minus {SYMMETRY_WEIGHT:g} times the mean square difference between a picture and its "
            "left-right mirror image, computed in numpy: there is no gradient to follow. Guidance uses its "
            "gradient-free form, which compares draws with a high reward to the others. Nothing here asks for a "
            "digit, only the model does, so this is where rewards get hacked."
        ],
        f"{report['settings']['targets']} populations of each method. Look for two things: how symmetric the pictures "
        "are, and how alike.",
        [
            f"Real digits score {number(real['symmetry'])} on average, base samples "
            f"{number(rows[BASE]['reward']['mean'])}. The methods reach: {ranked(rewards)}.",
            f"The honest price is in the pictures. {percent(share)} of what {first} hands over the judge reads as a "
            f"{favourite}. Counted by entropy, its pictures are worth {number(kinds[first], 1)} kinds of digit, those "
            f"of base sampling {number(kinds[BASE], 1)}. {hacked}",
            "The best of a population is a climber\u2019s pick, not a sample of the tilted law. Drawn by weight, the "
            f"pictures of SMC have a mean reward of {number(rows['SMC']['measures']['reward, by weight']['mean'])} "
            "and those of best-of-N, which is then importance sampling, "
            f"{number(rows['best-of-N']['measures']['reward, by weight']['mean'])}: more modest, and more varied.",
        ],
    )


def _inpainting_story(rows: dict[str, Any], report: dict[str, Any]) -> tuple[str, list[str], str, list[str]]:
    real, rewards = report["figures"]["real digits"], chosen(rows)
    errors, means = chosen(rows, "error"), chosen(rows, "error of the mean")
    best, plugin = leaders(means, "low")[0], rows.get(RIVALS[2])
    against = ""
    if plugin is not None:
        pair = {"the plug-in": plugin["measures"]["error of the mean"], "the map": means["guidance"]}
        ahead = leaders(pair, "low")
        verdict = "which is too close to call"
        if ahead == ["the plug-in"]:
            verdict = (
                "so here the map <b>loses</b>. The reward is quadratic and the mean a fair stand-in for the draws, "
                "and the cheap gradient buys more samples"
            )
        elif ahead == ["the map"]:
            verdict = "so here the draws are worth their price"
        against = (
            f"Guidance by the plug-in gradient has {number(pair['the plug-in']['mean'], 3)} for the same NFE, against "
            f"{number(pair['the map']['mean'], 3)} by the map\u2019s draws, {verdict}."
        )
    full = report["figures"]["full strength"]["mean"]
    if full < rows["guidance"]["reward"]["mean"]:
        strength = (
            "follow the exact law if it had the exact gradient. With a few draws it overshoots so steep a reward: "
            f"its pictures would score {scale(full)}."
        )
    else:
        strength = f"follow the exact law if it had the exact gradient; its pictures would score {scale(full)}."
    held = rows["SMC"]["samples held"]["mean"]
    return (
        "The other half of a real digit",
        [
            f"Of {report['settings']['targets']} held-out digits only the upper half is measured, with noise of "
            f"standard deviation {INPAINTING_NOISE:g}; the reward is the log-likelihood of that measurement. The "
            "lower half is the exam: no method sees it. The true digits themselves score "
            f"{number(real['inpainting reward'], 1)}: what exceeds that fits the noise.",
        ],
        "Above, the digit and what is seen of it. Below, one completion by each method. A good one continues the "
        "strokes; several continuations may be right.",
        [
            "This reward is steep, and blind draws hardly ever fit it: best-of-N reaches "
            f"{number(rows['best-of-N']['reward']['mean'], 1)}. In order: {ranked(rewards, digits=1)}. SMC\u2019s "
            f"weights fall on {number(held, 1)} of its {rows['SMC']['settings']['particles']} particles, so its "
            f"answer is {'one picture, with hardly any spread' if held < 3 else 'a small law of its own'}.",
            "The mean square error on the hidden half tells more than the reward. The mean training digit would have "
            f"{number(real['error of the mean digit'], 3)}, the training digit that fits the upper half best "
            f"{number(real['error of the nearest digit'], 3)}. The handed-over pictures have: "
            f"{ranked(errors, 'low', 3)}. The means of whole populations, which hedge where the half that is seen "
            f"leaves the other open: {ranked(means, 'low', 3)}, the best being {best}.",
            against,
            f"A word on the guidance: its gradient is scaled by {INPAINTING_SCALE:g}. At full strength it would "
            f"{strength}",
        ],
    )


def _kinds(counts: list[int]) -> float:
    """exp(entropy): how many digits, equally often, would be as varied."""
    total = max(sum(counts), 1)
    return math.exp(-sum(c / total * math.log(c / total) for c in counts if c))
