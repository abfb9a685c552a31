r"""A class's log-probability: with this reward the target is the model's law given the class,
:math:`p(z) \, p(y \mid z) / p(y)`, by Bayes' rule, and :math:`Z = p(y)`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch import Tensor, nn

from .composition import RewardModule

__all__ = ["ClassifierLogProbability"]


class ClassifierLogProbability(RewardModule):
    """`log softmax(classifier(z))[label]`, at most 0; differentiable where the classifier is.

    Arguments:
        classifier: maps `(N, *event)` to logits `(N, classes)`.
        label: the wanted class; by default `cond` holds one for each sample.
    """

    def __init__(self, classifier: nn.Module | Callable[[Tensor], Tensor], label: int | None = None) -> None:
        super().__init__()
        self.classifier, self.label = classifier, label

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        logits = self.classifier(z)
        if logits.ndim != 2 or len(logits) != len(z):
            raise ValueError(
                f"classifier: it returned shape {tuple(logits.shape)}, expected logits ({len(z)}, classes)"
            )
        if self.label is not None:
            labels = torch.full((len(z),), self.label, device=z.device)
        elif cond is not None:
            labels = cond
        else:
            raise ValueError("label: got None and no cond, expected a class from either")
        wrong = labels[(labels < 0) | (labels >= logits.shape[1])]
        if len(wrong):
            raise ValueError(f"label: got {int(wrong[0])}, expected a class from 0 to {logits.shape[1] - 1}")
        return logits.log_softmax(-1).gather(1, labels[:, None].long()).squeeze(1)
