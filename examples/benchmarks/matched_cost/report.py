"""The tables, in Markdown, and a line a row while they are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .settings import Settings

__all__ = ["COLUMNS", "line", "tables"]

Row = dict[str, Any]

LAW = {
    "log z": "log Z, error",
    "log z, median": "its median",
    "log z, root mean square": "log Z, RMSE",
    "mean": "mean, RMSE",
    "covariance": "covariance, error",
    "covariance, median": "its median",
    "ess": "ESS",
}
JUDGED = {
    "reward": "reward",
    "agrees": "judge agrees",
    "diversity": "diversity",
    "frechet": "Frechet distance",
}
COLUMNS = {**LAW, **JUDGED}
COST = {"particles": "particles", "nfe": "NFE", "nfe_backward": "backward", "reward_calls": "reward calls"}
RANKED = ("mean", "covariance", "log z, root mean square", "frechet")  # smaller is better
CURRENCY = {"nfe": "equal NFE", "reward_calls": "equal reward calls"}
YARDSTICK = "exact"
SHOWN = {
    "mean": "Error of the mean",
    "covariance": "Error of the covariance",
    "log z, root mean square": "RMSE of log Z",
    "agrees": "Judge agrees",
    "frechet": "Frechet distance",
    "diversity": "Diversity",
}  # a table each

HOW_TO_READ = """\
Written by `python -m examples.benchmarks.matched_cost --docs docs` ({machine}; {minutes:.0f} minutes, training included
where no models were kept).

NFE are network evaluations, counted per sample, and backward those of them that were differentiated through; costs are
of one population. A method has as many particles as the budget allows. Figures are means over {populations} independent
populations, with standard errors. Medians stand beside what has heavy tails: an unbiased estimate of Z whose mean hangs
on rare large weights is almost always too small, and one gradient gone astray can be all of a covariance's error. In each
table of methods by models the least is bold, "exact" aside.

**Models.** "exact" charges one evaluation for a draw of the true posterior: what a perfect map would do, and no contender.
GLASS has the exact denoiser of the mixtures as its teacher, where the maps have what they learnt from it: their distance
to "exact" is what distillation cost. Its steps are even, as published.
"plug-in" is the teacher as it is: its mean for every draw, and a Gaussian step around it for every move. This is the
setting of the field's own methods, so that on it SMC is Feynman-Kac steering (FKS), SMC along the gradient DAS, search SVDD
with a beam, and guidance diffusion posterior sampling (DPS). Where these are named, they take the denoiser and the moves of
the model at hand; DPS its denoiser alone. The values of FMTT are the flow map's on every model. Flow map and plug-in have
one draw a state, and are charged for one.

**A dash** is where there is no such method, or not one particle for that budget. Look-aheads choose among draws by their
rewards, and the weighted map's draws have weights of their own. A gradient without a derivative is a difference between
draws, and flow map and plug-in have one. One call of the plug-in is the mean of all data. GLASS value guidance is a
GLASS flow.

**Figures.** On mixtures the mean's error is in units of the tilted standard deviation, root mean square over coordinates;
the covariance's is in Frobenius norm relative to the truth. {floor} independent draws of the tilted law itself score what
the first row of all figures says. ESS is that of the last weights: it knows nothing of what earlier resampling cost, and
is 1 where nothing is weighed. Search follows no law and is there to be measured, not blamed.
"""


def tables(rows: list[Row], settings: Settings, machine: str, seconds: float) -> str:
    """All tables as one Markdown page."""
    floor = next((row["particles"] for row in rows if "truth" in row), 0)
    parts = [
        "# Matched cost: every method on every model\n",
        HOW_TO_READ.format(machine=machine, minutes=seconds / 60, populations=settings.populations, floor=floor),
        "![Errors against network evaluations](figures/matched_cost.png)\n",
    ]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        mine = [row for row in rows if row["problem"] == problem]
        parts.append(f"## {problem}\n\n{_about(mine, settings)}\n")
        for currency, title in CURRENCY.items():
            budget = max((row["budget"] for row in mine if row["currency"] == currency), default=None)
            held = [row for row in mine if row["currency"] in (None, currency) and row["budget"] in (None, budget)]
            if budget is not None:
                parts.append(f"### {problem}, {title}: {budget}\n\n{_winners(held)}\n")
                parts += [f"{SHOWN[key]}:\n\n{_square(held, key)}\n" for key in SHOWN if _has(held, key)]
                parts.append(f"<details><summary>All figures</summary>\n\n{_table(held)}\n\n</details>\n")
    return "\n".join(parts)


def _about(rows: list[Row], settings: Settings) -> str:
    truth: dict[str, Any] = next((row["truth"] for row in rows if "truth" in row), {})
    if "log z" in truth:
        masses = ", ".join(f"{mass:.2f}" for mass in truth["masses"])
        return (
            f"log Z = {truth['log z']:.3f}; importance sampling from the data's law needs {truth['draws needed']:.3g} "
            f"draws for one effective sample; the components hold {masses} of the tilted mass. The maps were distilled "
            f"in {settings.mixture_steps} steps."
        )
    return (
        f"Digits {', '.join(map(str, settings.classes))}, {settings.class_populations} populations each, of which 16 "
        f"particles drawn by weight are looked at. The network whose features measure the Frechet distance names "
        f"{truth['accuracy']:.1%} of held-out digits; of real digits, one half "
        "is measured against the other."
    )


def _winners(rows: list[Row]) -> str:
    """One sentence a figure: the least, and what is within two standard errors of the difference."""
    sentences = []
    for key in RANKED:
        found = [row for row in _contenders(rows) if key in row["figures"]]
        if not found:
            continue
        best = min(found, key=lambda row: row["figures"][key]["mean"])
        least = best["figures"][key]
        near = [
            row
            for row in sorted(found, key=lambda row: row["figures"][key]["mean"])
            if row is not best
            and row["figures"][key]["mean"] - least["mean"]
            < 2 * (least["error"] ** 2 + row["figures"][key]["error"] ** 2) ** 0.5
        ]
        shown = [_name(row) for row in near[:3]] + ([f"{len(near) - 3} more"] if len(near) > 3 else [])
        level = f", level with {' and '.join(filter(None, [', '.join(shown[:-1]), shown[-1]]))}" if shown else ""
        sentences.append(f"* {COLUMNS[key]}: least for {_name(best)}, {least['mean']:.3g}{level}.")
    return "\n".join(sentences)


def _has(rows: list[Row], key: str) -> bool:
    return any(key in row["figures"] for row in _contenders(rows))


def _square(rows: list[Row], key: str) -> str:
    """One figure as a table of methods by models, its least in bold where less is better."""
    found = {
        (row["method"], row["model"]): row["figures"][key] for row in rows if row["model"] and key in row["figures"]
    }
    least = min(found[row["method"], row["model"]]["mean"] for row in _contenders(rows) if key in row["figures"])
    models = list(dict.fromkeys(row["model"] for row in rows if row["model"]))
    lines = [["", *models], ["---", *["---:"] * len(models)]]
    for method in dict.fromkeys(method for method, _ in found):
        cells = [found.get((method, model)) for model in models]
        texts = ["–" if cell is None else _number(cell) for cell in cells]
        bold = [cell is not None and model != YARDSTICK and key in RANKED and cell["mean"] == least
                for cell, model in zip(cells, models, strict=True)]  # fmt: skip
        lines.append([method, *(f"**{text}**" if wins else text for text, wins in zip(texts, bold, strict=True))])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _contenders(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["model"] not in ("", YARDSTICK)]


def _name(row: Row) -> str:
    return f"{row['method']} on {row['model']}"


def _table(rows: list[Row]) -> str:
    columns = {key: title for key, title in COLUMNS.items() if any(key in row["figures"] for row in rows)}
    least = {
        key: min((row["figures"][key]["mean"] for row in _contenders(rows) if key in row["figures"]), default=None)
        for key in RANKED
    }
    head = ["model", "method", *COST.values(), *columns.values()]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for row in rows:
        cells = [row["model"], row["method"], *(str(row[key]) for key in COST)]
        for key in columns:
            cell = _number(row["figures"].get(key))
            value = row["figures"].get(key)
            wins = row in _contenders(rows) and key in RANKED and value is not None and value["mean"] == least[key]
            cells.append(f"**{cell}**" if wins else cell)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: dict[str, float] | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['mean']:.2f} ± {value['error']:.2f}"
    return f"{value:.2f}"


def line(row: Row) -> str:
    """One row in one line, for the terminal."""
    figures = "  ".join(f"{key} {_number(value)}" for key, value in row["figures"].items())
    budget = f"{row['currency']} {row['budget']}" if row["currency"] else ""
    names: Iterable[str] = (row["problem"], budget, row["model"], row["method"])
    return "  ".join([*filter(None, names), f"particles {row['particles']}", figures, f"{row['seconds']:.1f} s"])
