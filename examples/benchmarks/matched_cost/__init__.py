"""Every method on every model, at equal network evaluations and at equal reward calls.

On Gaussian mixtures the truth is in closed form (`tilts`), so that errors are errors; on handwritten digits a judge
that had no part in it scores. The models (`models`), the methods and what they can afford (`methods`), the figures
(`figures`), the two comparisons (`mixtures`, `digits`), and the tables and the plot (`report`, `plot`).

Run it with `python -m examples.benchmarks.matched_cost`; `--help` lists its options.
"""
