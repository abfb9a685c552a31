r"""Classifier-free guidance: one network's velocity with a label, pushed away from its velocity without.

A network trained with labels that are left out now and then knows both the law of a class and that of all the data. With
a scale :math:`w` guidance follows

.. math:: u^w_t(x \mid c) = u_t(x) + w \, (u_t(x \mid c) - u_t(x)),

1 being the class itself and more sharpening it. Denoiser, score and noise are affine in the velocity, so each is
guided by the same formula, and the three faces stay consistent. For :math:`w \ne 0, 1` no law of the data has this
velocity at every time: GLASS draws and maps of a guided flow are those of its denoiser.

At early times guidance costs variety, and at late times it does little; hence it may be limited to an interval.

References:
    | Classifier-Free Diffusion Guidance (Ho & Salimans, 2022), https://arxiv.org/abs/2207.12598
    | Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models (Kynkaanniemi
    | et al., 2024), https://arxiv.org/abs/2404.07724
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

from .flow import Flow
from .labels import warn_of_no_label
from .nets import labels_of
from .validation import check_number, check_positive, shared

__all__ = ["ClassifierFree"]


class ClassifierFree(Flow):
    """A flow with classifier-free guidance. Without labels (`cond=None`) it is the flow itself.

    A sample costs two evaluations of the network, both in one call; one outside `interval`, at scales 0 and 1, and
    without labels. The network is shared with `flow`; evaluations are counted here.

    Arguments:
        flow: a flow whose network takes class labels.
        scale: the guidance scale: 0 without the label, 1 with it, more to sharpen the class.
        interval: the times `(first, last)` at which to guide, always by default; elsewhere the scale is 1.
        no_label: the label that stands for none; by default the network's `no_label` or its `classes`.

    Raises:
        ValueError: not a flow, a scale that is not finite, an interval that is none, or no label for "no label".
    """

    def __init__(
        self, flow: Flow, scale: float = 2.0, interval: tuple[float, float] | None = None, no_label: int | None = None
    ) -> None:
        if not isinstance(flow, Flow) or isinstance(flow, ClassifierFree):
            raise ValueError(f"flow: got a {type(flow).__name__}, expected a Flow without guidance")
        scale = check_number("scale", scale, "a finite number")
        first, last = (0.0, 1.0) if interval is None else interval
        if not 0 <= first <= last <= 1:
            raise ValueError(f"interval: got {interval}, expected two times in [0, 1], in order")
        super().__init__(flow.net, flow.interpolant, flow.event_shape, flow.prediction)
        self.scale, self.interval = scale, (float(first), float(last))
        known = labels_of(flow.net)[1] if no_label is None else check_positive("no_label", no_label, 0)
        if known is None:
            raise ValueError(
                "no_label: got None, but the network tells neither it nor its classes; expected the label of none"
            )
        self.no_label = known
        self.metadata = flow.metadata

    def _network(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        if cond is None or self.scale == 1:
            return super()._network(x, t, cond)
        if not isinstance(cond, Tensor) or cond.shape != t.shape or cond.is_floating_point():
            came = f"{cond.dtype} {tuple(cond.shape)}" if isinstance(cond, Tensor) else type(cond).__name__
            raise ValueError(f"cond: got {came}, expected class labels ({len(x)},), whole numbers")
        cond = cond.long()  # a narrower type may not hold the label of none
        warn_of_no_label(self, f"scale: got {self.scale:g}")
        first, last = self.interval
        guided = (first <= t) & (t <= last)
        if self.scale == 0:
            return super()._network(x, t, torch.where(guided, self.no_label, cond))
        rows = guided.nonzero()[:, 0]
        none = torch.full_like(rows, self.no_label)
        times = t[:1].expand(len(t) + len(rows)) if shared(t) else torch.cat([t, t[rows]])
        both = super()._network(torch.cat([x, x[rows]]), times, torch.cat([cond, none]))
        labelled, unlabelled = both.split([len(x), len(rows)])
        return labelled.index_add(0, rows, (self.scale - 1) * (labelled[rows] - unlabelled))
