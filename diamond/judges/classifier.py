r"""What all judges are: a body whose activations are features, and a linear head whose logits are classes.

With features :math:`h(z)` and head :math:`(W, b)`, the classes' probabilities are
:math:`p(c \mid z) = \mathrm{softmax}_c(W h(z) + b)`. Samples are compared in the space of :math:`h`.
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor, nn

from ..validation import check_positive, check_state

__all__ = ["Classifier"]

CHUNK = 256  # images that go through the network at once; on CPUs, more of them take twice as long


class Classifier(nn.Module):
    """A classifier of images `(C, H, W)` in [-1, 1] of one shape.

    Arguments:
        body: takes images `(N, C, H, W)` to features `(N, size)`.
        event_shape: the images' shape.
        size: number of features.
        classes: number of classes, two or more.

    Attributes:
        metadata: what is known of its making (JSON values): "name", "data", "accuracy" on held-out data, ...

    Raises:
        ValueError: sizes that are no whole numbers.
    """

    def __init__(self, body: nn.Module, event_shape: tuple[int, ...], size: int, classes: int) -> None:
        super().__init__()
        self.event_shape, self.size = event_shape, check_positive("features", size)
        self.classes = check_positive("classes", classes, 2)
        self.metadata: dict[str, Any] = {}
        self.body = body
        self.head = nn.Linear(size, classes)

    def features(self, z: Tensor) -> Tensor:
        """The last hidden layer's activations `(N, size)` for images `(N, C, H, W)` in [-1, 1].

        Raises:
            ValueError: images of another shape.
        """
        check_state(z, self.event_shape, "z")
        return torch.cat([self.body(part) for part in z.to(self.head.weight.dtype).split(CHUNK)])

    def forward(self, z: Tensor) -> Tensor:
        """Logits `(N, classes)`; errors as in :meth:`features`."""
        return self.head(self.features(z))

    def log_probabilities(self, z: Tensor) -> Tensor:
        """Log-probabilities of the classes, `(N, classes)`; errors as in :meth:`features`."""
        return self(z).log_softmax(-1)

    def labels(self, z: Tensor) -> Tensor:
        """The likeliest class of each image, `(N,)`; errors as in :meth:`features`."""
        return self(z).argmax(-1)

    @property
    def title(self) -> str:
        """Who judges, in one line: its name, and where it comes from."""
        return f"judge {self.metadata.get('name', 'unnamed')!r} ({self.origin})"

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        raise NotImplementedError
