r"""GLASS value guidance: a flow whose denoiser leans towards the reward.

The tilted law's denoiser is :math:`D^r_t = D_t + \frac{\sigma_t^2}{\alpha_t} \nabla V_t`. With the reward at the mean in
place of the value, as in diffusion posterior sampling, it costs one call of the network and one backward pass:

.. math:: \tilde D_t(x) = D_t(x) + \lambda \frac{\sigma_t^2}{\alpha_t} \nabla_x r(D_t(x)).

Seen as a GLASS flow, every inner step of a posterior draw or a transition asks this denoiser at the pair's sufficient
statistic and effective time, which is GLASS value guidance. The result follows no stated law; best-of-N, search and
sequential Monte Carlo run on it as on any model, aligned relative to it.

References:
    | GLASS Flows (Holderrieth et al., 2025), https://arxiv.org/abs/2509.25170, section on reward guidance
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

from diamond.interpolant import per_sample
from diamond.model import Model, View
from diamond.validation import as_times, check_number, check_positive, check_state

from .answers import check_differentiable, check_slope
from .draws import leaf_of
from .gradient import drop_slopes
from .scoring import Reward, Scorer

__all__ = ["GuidedFlow"]


class GuidedFlow(View):
    """A flow model with a guided denoiser: `diamond.GlassFlow(align.GuidedFlow(flow, reward))` draws with it.

    Arguments:
        flow: any model with a `denoise`.
        reward: differentiable `reward(z)` or `reward(z, cond)`, `(N,)`, with the conditioning that the flow gets.
        scale: factor of the gradient, one for all states.
        interval: effective times at which it is added.
        reward_chunk: samples per reward call, as many as the flow gets by default.

    Attributes:
        nfe_backward: evaluations of the flow that were differentiated through so far, counted per sample.

    Raises:
        ValueError: not a flow, a scale that is no finite number, or times that do not rise within [0, 1].
    """

    viewed = "flow"

    def __init__(
        self,
        flow: Model,
        reward: Reward,
        scale: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        reward_chunk: int | None = None,
    ) -> None:
        if not hasattr(flow, "denoise"):
            raise ValueError(f"flow: got {type(flow).__name__}, expected a flow model with a denoise method")
        super().__init__(flow.interpolant, flow.event_shape)
        self.flow, self.interval = flow, check_interval(interval)
        self.scale = check_number("scale", scale, "a finite number")
        self._scorer = Scorer(reward, None if reward_chunk is None else check_positive("reward_chunk", reward_chunk))
        self.nfe_backward = 0

    @property
    def calls(self) -> int:
        """Samples whose reward was asked for its derivative so far."""
        return self._scorer.calls

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The guided denoiser, `(B, *event)`; for t = 0, where noise tells nothing, the flow's own. Differentiable in
        `x_t`, by a second derivative of the flow.

        Raises:
            ValueError: the reward has no derivative.
        """
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        wanted = torch.is_grad_enabled() and x_t.requires_grad
        with torch.enable_grad():
            leaf, before = x_t if wanted else leaf_of(x_t), self.nfe
            mean = self.flow.denoise(leaf, t, cond=cond)
            self.nfe_backward += self.nfe - before
            sample = mean.view_as(mean)  # no leaf, and the reward's alone
            r = self._scorer(sample, cond)
            check_differentiable(r, sample)
            drop_slopes(sample, ~r.isfinite())
            (slope,) = torch.autograd.grad(torch.where(r.isfinite(), r, 0.0).sum(), leaf, create_graph=wanted)
        alpha, sigma = self.interpolant.alpha(t), self.interpolant.sigma(t)
        check_slope(slope)
        low, high = self.interval
        active = (alpha > 0) & (t >= low) & (t <= high)
        factor = torch.where(active, self.scale * sigma.square() / torch.where(active, alpha, 1.0), 0.0)
        return (mean if wanted else mean.detach()) + per_sample(factor, slope) * slope

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The velocity that goes with the guided denoiser, `(B, *event)`."""
        return self.interpolant.velocity_from_denoiser(x_t, as_times(t, x_t), self.denoise(x_t, t, cond=cond))


def check_interval(interval: tuple[float, float]) -> tuple[float, float]:
    """`interval`, if its times rise within [0, 1].

    Raises:
        ValueError: they do not.
    """
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise ValueError(f"interval: got {interval!r}, expected two rising times in [0, 1]")
    return low, high
