"""The command line: `python -m examples.benchmarks.matched_cost`.

Prints each row as it is finished, then the tables, and keeps models and rows in the folder `--out`, whose models later
runs use again. `--docs docs` writes the tables to `docs/matched_cost.md` and the plot to
`docs/figures/matched_cost.png`; with `--kept` it makes them from the rows of an earlier run, and nothing is run. The
short table of the README is printed last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings

from pathlib import Path
from typing import Any

import torch

from diamond import DegenerateWeights

from .digits import compare_on_digits
from .mixtures import compare_on_mixtures
from .overview import overview
from .report import line, tables
from .settings import FULL, QUICK, Settings

COMPARISONS = {"mixtures": compare_on_mixtures, "digits": compare_on_digits}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.benchmarks.matched_cost",
        description="Every method on every model, at equal network evaluations and at equal reward calls.",
    )
    parser.add_argument("--quick", action="store_true", help="hardly any training and few populations, to see it work")
    parser.add_argument("--only", choices=COMPARISONS, help="one of the two comparisons")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--out", type=Path, help="folder of models and rows; out/matched_cost by default")
    parser.add_argument("--docs", type=Path, help="folder to write the tables and the plot to")
    parser.add_argument("--kept", action="store_true", help="make the tables of the rows in the folder, without a run")
    options = parser.parse_args()
    folder = options.out or Path("out") / ("matched_cost_quick" if options.quick else "matched_cost")
    settings = QUICK if options.quick else FULL
    file = folder / "rows.json"
    if not options.kept:
        names = [options.only] if options.only else list(COMPARISONS)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(compare(names, settings, folder, options.seed), indent=1))
    kept = json.loads(file.read_text())
    text = tables(kept["rows"], settings, kept["machine"], kept["seconds"])
    print(f"\n{text}\n{overview(kept['rows'])}")
    if options.docs:
        from .plot import draw

        figure = options.docs / "figures" / "matched_cost.png"
        figure.parent.mkdir(parents=True, exist_ok=True)
        draw(kept["rows"], figure)
        (options.docs / "matched_cost.md").write_text(text)


def compare(names: list[str], settings: Settings, folder: Path, seed: int) -> dict[str, Any]:
    """Runs these comparisons: their rows, and on what machine and in how many seconds they were made."""
    warnings.simplefilter("ignore", DegenerateWeights)  # the tables say it better
    machine = (
        f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}, seed {seed}"
    )
    print(machine)
    began = time.perf_counter()
    rows = []
    for name in names:
        for row in COMPARISONS[name](settings, folder, seed):
            print(line(row), flush=True)
            rows.append(row)
    return {"machine": machine, "seconds": time.perf_counter() - began, "rows": rows}


if __name__ == "__main__":
    main()
