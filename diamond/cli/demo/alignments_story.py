"""What the report says of all three tasks together: the price, the budgets, the weights, and what to take away."""

from __future__ import annotations

from typing import Any

from .page import figure, paragraphs, section, table
from .settings import BRANCH, GLASS_STEPS, GUIDE_COST, WALK_COST, WALK_MC, WALK_STEPS
from .wording import CHOOSING, LABELS, chosen, count, joined, leaders, number, percent

__all__ = ["ess_story", "matched_cost", "rewards_story", "takeaways"]


def matched_cost(report: dict[str, Any]) -> str:
    """What the methods are and what is held equal among them."""
    budget = report["settings"]["shown_budget"]
    rows = _shown(report, "class")
    calls = joined(f"{name} {rows[name]['reward calls']}" for name in CHOOSING)
    return section(
        "Three wishes, four ways, one price",
        paragraphs(
            "Now the map is steered. Nothing is trained any more; a reward is all that is given. The target is the "
            "law of digits reweighted by exp(reward), or simply a high reward, and these are the ways:"
        ),
        "<ul><li><b>Base</b>: one draw from the map, the reward unasked.</li><li><b>Best-of-N</b>: draw N, keep the "
        f"best.</li><li><b>Search</b>: walk from noise to data in {WALK_STEPS} steps; at each, every state kept tries "
        f"{BRANCH} ways on, and those of the highest value (by {WALK_MC} draws) stay.</li><li><b>SMC</b>, sequential "
        "Monte Carlo: the same walk, but states are weighted and resampled rather than chosen, which keeps the law "
        "exact, on an exact model, however poor the value estimates are.</li><li><b>Guidance</b>: follow the flow, "
        "bent by the gradient of the value; by its gradient-free form where the reward is a black box.</li></ul>",
        paragraphs(
            f"In the tables each population spends <b>{budget} NFE</b> and hands over its best picture by the reward. "
            f"So best-of-N has N = {budget}; search and SMC keep {budget // WALK_COST // BRANCH} and "
            f"{budget // WALK_COST} states, at {WALK_COST} NFE a candidate; guidance makes {budget // GUIDE_COST} "
            f"samples at {GUIDE_COST} NFE. Not everything can be equal at once: the samples scored by the reward "
            f"differ (for the digit class: {calls}), and guidance differentiates through most of its evaluations, at "
            "about twice the cost of the evaluation itself. The tables count all three. \u00b1 is one standard "
            f"error, over {report['settings']['targets'] * report['settings']['populations']} populations.",
            "The grey rows spend the same NFE without a Diamond Map: on the teacher\u2019s GLASS flow with "
            f"{GLASS_STEPS} inner steps, and on the plug-in gradient (diffusion posterior sampling). Who steers never "
            "judges: the judge is a support vector machine, while a neural network steers. On held-out digits the "
            f"judge is right {percent(report['figures']['real digits']['judge accuracy'])} of the time, the steering "
            f"network {percent(report['figures']['real digits']['classifier accuracy'])}.",
        ),
    )


def rewards_story(report: dict[str, Any], png: bytes) -> str:
    """Reward against cost."""
    lines = []
    for budget in report["settings"]["budgets"]:
        won = {}
        for task, budgets in report["figures"]["tasks"].items():
            won[task] = joined(leaders(chosen(budgets[str(budget)])))
        listed = "; ".join(f"{LABELS[task]}: {names}" for task, names in won.items())
        lines.append(f"<li><b>{count(budget)} NFE</b> \u2014 {listed}.</li>")
    return section(
        "What a bigger budget buys",
        figure(
            png,
            "Reward and independent scores against network evaluations for every method on every task.",
            "Above, the reward of the picture handed over. Below, what those who did not steer say of it: for the "
            "digit class the share in which the judge agrees (higher is better), for the others the distance to the "
            "nearest real digit and the error on the hidden half (lower is better). Dashed: base sampling, which "
            "spends one call.",
        ),
        paragraphs(
            "Best-of-N grows like the logarithm of N: it is hard to beat where luck suffices, and stalls where it "
            "does not. Search and SMC need enough states to keep some variety; with few they can do worse than blind "
            "draws, as a value from two draws misleads them early. Guidance moves every sample, so it works from the "
            "first one on. The methods with the highest reward, with all that two standard errors do not tell apart:"
        ),
        "<ul>" + "\n".join(lines) + "</ul>",
        paragraphs(
            "Compare the two rows of plots. Where a higher reward goes with a worse score below, the method is "
            "pleasing the reward rather than doing what it was meant to ask for."
        ),
    )


def ess_story(report: dict[str, Any], png: bytes) -> str:
    """Effective sample sizes in SMC."""
    figures, settings = report["figures"]["ess"], report["settings"]
    heads = ["look-ahead", "NFE"]
    rows = [[name, count(run["nfe"])] for name, run in next(iter(figures.values())).items()]
    for task, runs in figures.items():
        heads += [f"{LABELS[task]}: ancestors", "sd of log Z"]
        for row, run in zip(rows, runs.values(), strict=True):
            deviation = run["log z deviation"]
            row += [number(run["ancestors"], 1), "\u2013" if deviation is None else number(deviation)]
    few, many, *_ = next(iter(figures.values()))
    shares = [sum(sum(runs[name]["share"]) for runs in figures.values()) for name in (few, many)]
    steadier = "more even" if shares[1] > 1.05 * shares[0] else "hardly more even"
    return section(
        "Weights that speak early",
        figure(
            png,
            "Effective share of SMC's particles over its steps, by look-ahead, one panel for each task.",
            f"SMC with {settings['ess_particles']} particles: the effective sample size after each step, as a share "
            "of the particles; it resamples before a step whenever the share is under one half (dotted). Bands: two "
            "standard errors.",
        ),
        paragraphs(
            "An SMC step weights its particles by how much the value has changed. If the value were exact, all news "
            "would come as early as it can, a little at a time, and the lines would stay high. Without a look-ahead "
            "(grey) no weight moves until the reward itself arrives at the last step, when it is too late to do "
            "anything but drop most particles: that is importance sampling.",
            f"Estimates from few draws ({few}) are noisy, and the noise looks like news: weights fall apart at the "
            f"first steps already. With more draws ({many}) the weights are {steadier}, at "
            f"{count(_nfe(figures, many))} NFE instead of {count(_nfe(figures, few))}. All four give unbiased "
            "estimates of Z, the mean of exp(reward); what differs is how widely they scatter. The table has the "
            "standard deviation of log Z over populations (lower is better), and how many of the first states have "
            "descendants at the end: where it is near one, a whole population has become one family.",
        ),
        table(heads, rows),
    )


def _shown(report: dict[str, Any], task: str) -> dict[str, Any]:
    """The rows of a task's table."""
    return report["figures"]["tasks"][task][str(report["settings"]["shown_budget"])]


def _nfe(figures: dict[str, Any], name: str) -> int:
    return next(iter(figures.values()))[name]["nfe"]


def takeaways(report: dict[str, Any]) -> str:
    """What to remember, and how to do all this oneself."""
    figures, settings = report["figures"], report["settings"]
    equal, fitted = (figures["distances"][name] for name in ("equivalent steps", "equivalent steps, fitted"))
    first, last = settings["budgets"][0], settings["budgets"][-1]
    lines = [
        f"One call of this map draws from the posterior about as well as {number(min(equal), 1)} to "
        f"{number(max(equal), 1)} steps of GLASS as published, depending on the time, or {number(min(fitted), 1)} to "
        f"{number(max(fitted), 1)} fitted ones.",
    ]
    for task, budgets in figures["tasks"].items():
        low, high = leaders(chosen(budgets[str(first)])), leaders(chosen(budgets[str(last)]))
        lines.append(
            f"Highest reward for {LABELS[task]}: with {count(first)} NFE {joined(low)}; with {count(last)} "
            f"{joined(high)}."
        )
    half = {name: row["measures"]["error of the mean"] for name, row in _shown(report, "inpainting").items()}
    lines.append(
        "Closest to the hidden halves of real digits, by the mean of a population, with and without the map: "
        f"{joined(leaders(half, 'low'))}."
    )
    lines.append(
        "A higher reward is not always a better picture. Score with something that did not steer, and look at the "
        "pictures."
    )
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items() if name != "total")
    command = f"diamond demo --seed {report['seed']}" + (" --quick" if report["quick"] else "")
    recipe = (
        "import align, diamond\n\n"
        'model = diamond.load("diamond.ckpt")\n'
        "out = align.smc(model, lambda z: -20 * (z - z.flip(-1)).square().flatten(1).mean(1))\nout.resample(16)  # "
        "sixteen digits of the tilted law\n"
    )
    return "\n".join(
        [
            section("To take away", "<ul>" + "\n".join(f"<li>{line}</li>" for line in lines) + "</ul>"),
            section(
                "How this was made",
                paragraphs(
                    f"<code>{command}</code> trains both models, makes every figure and writes this page, in "
                    f"{report['seconds']['total']:.0f} s on this machine: {parts}. Beside the page stand the models "
                    "(<code>glass.ckpt</code>, <code>diamond.ckpt</code>), the pictures, and all figures in "
                    "<code>report.json</code>. Training steps, states, draws and budgets are in there too. The same "
                    "seed on the same machine gives the same figures, but for the times.",
                    "The map obeys any function of pictures, yours too:",
                ),
                f"<pre><code>{recipe}</code></pre>",
                paragraphs(
                    "Diamond Maps: Holderrieth et al., arXiv 2602.05993. GLASS flows: Holderrieth et al., arXiv "
                    "2509.25170. The digits: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, by "
                    "way of scikit-learn."
                ),
            ),
        ]
    )
