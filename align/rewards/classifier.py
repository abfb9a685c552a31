r"""What a classifier says of a class.

With the log-probability as reward the target is the model's law given the class, :math:`p(z) \, p(y \mid z) / p(y)`, by
Bayes' rule, and :math:`Z = p(y)`. The margin is no probability: it goes on growing where the log-probability is as good
as 0, and so keeps its gradient there.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import torch

from torch import Tensor, nn

from .composition import RewardModule

__all__ = ["ClassMargin", "ClassifierLogProbability"]


class ClassReward(RewardModule):
    """What the two share: a classifier, and the class that is wanted.

    Arguments:
        classifier: maps `(N, *event)` to logits `(N, classes)`.
        label: the wanted class; by default `cond` holds one for each sample, `(N,)`.

    Raises:
        ValueError: a classifier that cannot be called, a label that is no whole number; or when the reward is called,
            logits or labels of another shape, no label, or a label that is no class.
    """

    def __init__(self, classifier: nn.Module | Callable[[Tensor], Tensor], label: int | None = None) -> None:
        super().__init__()
        if not callable(classifier):
            raise ValueError(
                f"classifier: got {type(classifier).__name__}, expected a callable that gives logits (N, classes)"
            )
        if label is not None and (isinstance(label, bool) or not isinstance(label, Integral)):
            raise ValueError(f"label: got {label!r}, expected a whole number, or None for classes in cond")
        self.classifier, self.label = classifier, label

    def classify(self, z: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits `(N, classes)` and wanted classes `(N, 1)`."""
        logits = self.classifier(z)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(z):
            came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"classifier: it returned {came}, expected logits ({len(z)}, classes)")
        if self.label is not None:
            labels = torch.full((len(z),), self.label, device=z.device)
        elif isinstance(cond, Tensor):
            labels = cond
        else:
            came = "no cond" if cond is None else f"a cond of {type(cond).__name__}"
            raise ValueError(f"label: got None and {came}, expected a class from either")
        if labels.shape != z.shape[:1]:
            raise ValueError(f"label: got a cond of shape {tuple(labels.shape)}, expected one class a sample")
        whole = labels.long()
        wrong = labels[(labels != whole) | (whole < 0) | (whole >= logits.shape[1])]
        if len(wrong):
            raise ValueError(f"label: got {wrong[0].item():g}, expected a class from 0 to {logits.shape[1] - 1}")
        return logits, whole[:, None]


class ClassifierLogProbability(ClassReward):
    """`log softmax(classifier(z))[label]`, at most 0; differentiable where the classifier is.

    Arguments:
        classifier: maps `(N, *event)` to logits `(N, classes)`.
        label: the wanted class; by default `cond` holds one for each sample.
    """

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        logits, labels = self.classify(z, cond)
        return logits.log_softmax(-1).gather(1, labels).squeeze(1)


class ClassMargin(ClassReward):
    """The label's logit minus the largest of the others, of any size, above 0 where the classifier chooses the label;
    differentiable where the classifier is and no two others tie.

    Arguments:
        classifier: maps `(N, *event)` to logits `(N, classes)`, of two classes or more.
        label: the wanted class; by default `cond` holds one for each sample.
    """

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        logits, labels = self.classify(z, cond)
        if logits.shape[1] < 2:
            raise ValueError("classifier: it returned logits of 1 class, expected two classes or more")
        others = logits.scatter(1, labels, -torch.inf)
        return logits.gather(1, labels).squeeze(1) - others.amax(1)
