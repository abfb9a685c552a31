"""The first half of the report: what the models are, and how far one call of the map is to be trusted."""

from __future__ import annotations

import math

from typing import Any

from .page import figure, paragraphs, section
from .wording import count, joined, number, percent

__all__ = ["distances_story", "introduction", "posteriors_story", "samples_story", "values_story"]


def introduction(report: dict[str, Any]) -> str:
    """What this is about, and the words that it needs."""
    machine, settings = report["machine"], report["settings"]
    quick = (
        "This was a <b>quick</b> run: the models were hardly trained, so its figures show that everything works, not "
        "how well. Run it without <code>--quick</code> for those."
        if report["quick"]
        else ""
    )
    terms = {
        "t": "how clean a noisy digit is: 0 is pure noise, 1 is a clean digit.",
        "posterior": "all the clean digits that a noisy one could have come from, each as likely as it is.",
        "GLASS flow": "a way to draw from the posterior with any flow model, by an inner flow of many steps.",
        "reward, "
        "value": "a score of finished digits, and what an unfinished one promises: the logarithm of the posterior "
        "mean of exp(reward).",
        "NFE": "network evaluations, counted a sample: the cost of everything here.",
        "population": "one run of a method, which spends its NFE and hands over one picture.",
    }
    listed = "".join(f"<dt>{word}</dt><dd>{meaning}</dd>" for word, meaning in terms.items())
    return "\n".join(
        [
            "<h1>One call to see what noise could become</h1>",
            '<p class="lead">A small flow model learns to draw handwritten digits. A Diamond Map learns from it to '
            "look ahead, from any half-finished digit, in a single network call. Then three rewards ask for digits "
            "of their own, with no further training.</p>",
            f'<p class="facts">Seed {report["seed"]} \u00b7 {machine["cpus"]} CPUs, {machine["threads"]} threads, '
            f"{machine['processor']} \u00b7 torch {machine['torch']}, Python {machine['python']} \u00b7 "
            f"{report['seconds']['total']:.0f} s from start to report</p>",
            paragraphs(
                quick,
                "A flow model turns noise into pictures, in many small steps. Whoever wants to steer it, towards a "
                "digit, a shape, or a measurement, has to ask of unfinished pictures what they are going to be. The "
                "answer is not one picture but a whole law of them, the <b>posterior</b>, and drawing from it used "
                "to take a second flow inside the first. A <b>Diamond Map</b> is trained to make that draw at once: "
                "noise and a noisy picture go in, one clean picture that it may have been comes out.",
                f"Here both are made from {count(report['data']['train'])} of scikit-learn's handwritten digits, 8 by "
                f"8 pixels each; {report['data']['held out']} others are held out to test them. The teacher took "
                f"{count(settings['teacher_steps'])} training steps, the map {count(settings['map_steps'])}. Every "
                "number on this page was measured in this very run.",
            ),
            f'<dl class="terms">{listed}</dl>',
        ]
    )


def samples_story(figures: dict[str, Any], png: bytes) -> str:
    """The grids of samples."""
    energy, nearest = figures["energy distance"], figures["nearest"]
    one, four, teacher = "map, 1 step", "map, 4 steps", "teacher"
    if energy[one] <= 1.5 * max(energy[teacher], 1e-3):
        verdict = "So little is lost by going from many calls to one."
    else:
        verdict = (
            "So one call costs some sharpness: look for smudged strokes on the right. Four calls win "
            f"{'most of it' if energy[four] < 0.5 * energy[one] else 'some of it'} back."
        )
    copies = "Nor are these copies. " if min(nearest[teacher], nearest[one]) > figures["held-out nearest"] / 2 else ""
    return section(
        "Digits, in 64 calls and in one",
        figure(
            png,
            "Three grids of 64 digits: real ones, the teacher's, and the Diamond Map's.",
            "Left: digits that the models were trained on. Middle: the teacher, integrated in 64 steps. Right: the "
            "Diamond Map, one call each. Nothing here was selected.",
        ),
        paragraphs(
            "Before any steering: can the models draw at all? From pure noise the posterior is the whole law of "
            "digits, so one call of the map is a generator too.",
            "The energy distance to the held-out digits is zero for a perfect model. It is "
            f"{number(energy[teacher], 4)} for the teacher ({figures['calls a sample'][teacher]} calls a digit), "
            f"{number(energy[one], 4)} for the map in one call and {number(energy[four], 4)} in four; real training "
            f"digits score {number(energy['data'], 4)}, up to chance. {verdict}",
            f"{copies}The nearest training digit is on average {number(nearest[teacher])} away from a digit of the "
            f"teacher and {number(nearest[one])} from one of the map; from a real held-out digit it is "
            f"{number(figures['held-out nearest'])}.",
        ),
    )


def posteriors_story(figures: dict[str, Any], png: bytes) -> str:
    """The draws from one noisy digit."""
    times_shown = figures["times"]
    shares = [p / a for p, a in zip(figures["paired"], figures["apart"], strict=True)]
    listed = joined(f"{percent(share)} at t = {t:g}" for share, t in zip(shares, times_shown, strict=True))
    return section(
        "What could this have been?",
        figure(
            png,
            "Noisy digits at several noise levels, their posterior means, and draws by the map and by GLASS.",
            "One held-out 3 under less and less noise. The upper line of draws is the map's, the lower line GLASS's; "
            "draws above one another started from the same noise.",
        ),
        paragraphs(
            "This is what the map is for. In the first row the noise has left almost nothing: the posterior mean is "
            "a smudge, which is no digit, while the draws are digits of many kinds. Further down the noise lifts, "
            "and the draws agree more and more. Whatever scores finished digits can score these; a smudge it would "
            "misjudge.",
            f"The GLASS flow spends {figures['calls']} calls on each draw, and the map one. As both start from the "
            "same noise, they should end at the same digit: compare each column. The root mean square gap between "
            f"the two, as a share of the gap between draws from different noises, is {listed}.",
        ),
    )


def distances_story(figures: dict[str, Any], png: bytes) -> str:
    """The energy distances to the reference posterior."""
    equal = figures["equivalent steps"]
    listed = joined(f"{number(e, 1)} at t = {t:g}" for e, t in zip(equal, figures["times"], strict=True))
    mean = math.exp(sum(map(math.log, equal)) / len(equal))
    fitted = joined(number(e, 1) for e in figures["equivalent steps, fitted"])
    return section(
        "How many steps is one call worth?",
        figure(
            png,
            "Energy distance against the inner steps of GLASS at several times, with the level of the map.",
            f"Energy distance to the GLASS flow with {figures['reference steps']} inner steps, averaged over noisy "
            "digits (lower is better, both axes logarithmic). The diamond marks the number of GLASS steps that one "
            "call is worth.",
        ),
        paragraphs(
            "GLASS with few inner steps is quick and wrong, with many slow and right. The blue lines show how its "
            "draws approach the truth as the steps grow; the red line is where one call of the map stands. Where "
            f"they cross is the number of steps that one call equals: <b>{listed}</b>, and {number(mean, 1)} in the "
            "geometric mean.",
            "These are GLASS flows as published, with even steps. The dashed lines take steps fitted to the width of the "
            f"posterior, which late times reward: against them one call equals {fitted} steps. The toolkit takes these "
            "by default, here as the truth and wherever else GLASS is met on this page.",
        ),
    )


def values_story(figures: dict[str, Any], png: bytes) -> str:
    """The errors of value estimates."""
    lines = []
    most = str(figures["mc"][-1])
    for reward, by_time in figures["curves"].items():
        for t, curves in by_time.items():
            mine, plugin = curves["map"], curves["plug-in"]["rmse"][0]
            first = next((n for n, e in zip(mine["nfe"], mine["rmse"], strict=True) if e < plugin), None)
            name = "a digit class" if reward == "class" else "symmetry"
            least = min(
                (
                    nfe
                    for key, curve in curves.items()
                    if key.startswith("GLASS")
                    for nfe, error in zip(curve["nfe"], curve["rmse"], strict=True)
                    if error <= mine["rmse"][-1]
                ),
                default=None,
            )
            calls = f"at {first} call{'s' * (first > 1)}" if first else "at no number of calls shown"
            lines.append(
                f"<li>For {name} at t = {float(t):g} the plug-in is off by {number(plugin)}, the map by "
                f"{number(mine['rmse'][0])} with one draw and {number(mine['rmse'][-1])} with {most}; it overtakes "
                f"the plug-in {calls}"
                + (
                    f". GLASS needs at least {count(least)} calls to be as good as that."
                    if least
                    else ". No GLASS flow shown here gets as good."
                )
                + "</li>"
            )
    return section(
        "What does a noisy digit promise?",
        figure(
            png,
            "Root mean square errors of value estimates against network calls, for two rewards and several times.",
            "Errors of value estimates, against their cost in network calls. Each line goes through 1, 2, 4, \u2026 "
            "draws. The star is the plug-in: the reward of the posterior mean, one call. The dotted line is the "
            "reference's own error, below which nothing can be told.",
        ),
        paragraphs(
            "Steering needs the <b>value</b> of unfinished digits. It is estimated from posterior draws, by the "
            "logarithm of the mean of exp(reward). Two things go wrong. Few draws leave it to chance; that falls "
            "with every draw. And a sampler that draws from a somewhat wrong law has a bias that no number of draws "
            "mends: its line levels off. The plug-in is all bias and no chance (it is also what GLASS with a single "
            "step amounts to). The best line is the one that is low <i>and</i> far to the left.",
        ),
        "<ul>" + "\n".join(lines) + "</ul>",
        paragraphs(
            "With a draw or two the plug-in is often hard to beat, as the chance of a single draw outweighs its "
            "bias. Its advantage ends there: more calls do not make it better. (The rewards are scaled to a standard "
            "deviation of 1 over real digits, milder than where they steer below.)"
        ),
    )
