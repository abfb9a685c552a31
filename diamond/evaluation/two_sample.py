r"""The classifier two-sample test: can anything tell a sampler's posterior draws from those of a reference?

Gradient-boosted trees see a draw with its state, :math:`(z, x_t)`, and learn from one half of each state's draws which
sampler made it; on the other half they are tested. Where the posteriors are equal, the tested draws of a state are
exchangeable given everything else, so the null law is exact, whatever was learned and however alike the states are:

* area under the curve, within states: the chance that a draw scores higher than one of the reference at the same state.
  Its mean is 1/2, its variance :math:`(2n + 1) / 12 n^2` a state, of n draws each;
* accuracy: its mean is 1/2, and of a state where k of the 2n draws are held for the sampler's, the number that truly
  are is hypergeometric.

The halves are used once: in cross-validation each draw is both learned from and tested, which makes folds depend on
each other, and the error of their mean unknown.

References:
    | Revisiting Classifier Two-Sample Tests (Lopez-Paz & Oquab, 2017), https://arxiv.org/abs/1610.06545
    | Benchmarking Simulation-Based Inference (Lueckmann et al., 2021), https://arxiv.org/abs/2101.04653
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torch import Tensor

from ..randomness import Generator, uniform

__all__ = ["TwoSample", "two_sample_test"]

ROUNDS = 60


@dataclass(frozen=True)
class TwoSample:
    """How well draws can be told apart: 1/2 is not at all, 1 is always.

    Attributes:
        auc, accuracy: on the tested half.
        auc_error, accuracy_error: standard errors where the laws are equal.
    """

    auc: float
    auc_error: float
    accuracy: float
    accuracy_error: float


def two_sample_test(
    x: Tensor,
    y: Tensor,
    states: Tensor | None = None,
    *,
    classifier: Any = None,
    generator: Generator = None,
) -> TwoSample:
    """Tests whether `x` and `y` have the same law at each state.

    Arguments:
        x, y: independent draws or features of them, `(n, B, F)`, `n` at least 2 a state.
        states: what is known of the states, `(B, G)`.
        classifier: an unfitted scikit-learn classifier with `predict_proba`; boosted trees by default.
        generator: of the classifier's random numbers.

    Raises:
        ValueError: shapes that do not fit, or too few draws.
    """
    if x.shape != y.shape or x.ndim != 3 or len(x) < 2:
        raise ValueError(
            f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected equal ones, (n, B, F) with n at least 2"
        )
    if states is not None and (states.ndim != 2 or len(states) != x.shape[1]):
        raise ValueError(f"states: got shape {tuple(states.shape)}, expected ({x.shape[1]}, G)")
    if classifier is None:
        classifier = _trees(int(2**31 * uniform((1,), generator, dtype=torch.float64)))
    half = len(x) // 2
    both = torch.stack([x, y]).double().cpu()  # (2, n, B, F)
    if states is not None:
        known = states.double().cpu().expand(*both.shape[:2], *states.shape)
        both = torch.cat([both, known], dim=-1)
    seen, tested = both[:, :half], both[:, half : 2 * half]
    labels = np.repeat([0, 1], seen[0, ..., 0].numel())
    classifier.fit(seen.flatten(0, 2).numpy(), labels)
    scores = classifier.predict_proba(tested.flatten(0, 2).numpy())[:, 1]
    return _outcome(scores.reshape(2, half, -1))


def _outcome(scores: np.ndarray) -> TwoSample:
    """Of scores `(2, n, B)`."""
    from scipy.stats import rankdata

    n, states = scores.shape[1:]
    ranks = rankdata(scores.reshape(2 * n, states), axis=0)[n:].sum(0)
    auc = float(((ranks - n * (n + 1) / 2) / n**2).mean())
    chosen = scores > 0.5
    held, right = chosen.sum((0, 1)), chosen[1].sum(0) + n - chosen[0].sum(0)
    variance = held * (2 * n - held) / (2 * n - 1)  # of `right`, where the 2n are exchangeable
    return TwoSample(
        auc=auc,
        auc_error=float(np.sqrt((2 * n + 1) / (12 * n**2 * states))),
        accuracy=float(right.mean() / (2 * n)),
        accuracy_error=float(np.sqrt(variance.sum()) / (2 * n * states)),
    )


def _trees(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=ROUNDS, early_stopping=False, random_state=seed)
