r"""Value functions of a single point, the baselines of the field.

In place of :math:`\log E[\exp r(z) \mid x_t]` they take the reward at one guess of the data: its mean,
:math:`r(D_t(x))`, or where the flow ends, :math:`r(X_{t,1}(x))`. By Jensen's gap neither is the value, however well the
network is trained; as `value=` of :func:`align.smc` they cost efficiency and not exactness, in :func:`align.search`
they are the method.

A conditional model's mean and flow are those of the state's conditioning, which a reward that takes it gets too.

References:
    | A General Framework for Inference-time Scaling and Steering of Diffusion Models (Singhal et al., 2025),
    | https://arxiv.org/abs/2501.06848 (the mean)
    | Test-time scaling of diffusions with flow maps (Sabour et al., 2025), https://arxiv.org/abs/2511.22688 (the end)
"""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

from diamond.flow_map import FlowMap, check_flow_map

from .scoring import Reward, Scorer

__all__ = ["LookAhead", "PlugIn"]


class PlugIn:
    """`value(x_t, t, cond) = r(D_t(x_t))`, `(N,)`, for states `(N, *event)`; one evaluation and one reward call each.

    Arguments:
        model: any model with a `denoise`.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`, with the conditioning that the model gets. It is one for all
            states: a sequence of rewards, one a population, has no value function of this kind.

    Attributes:
        calls: samples scored so far.
    """

    def __init__(self, model: Any, reward: Reward) -> None:
        if not hasattr(model, "denoise"):
            raise ValueError(f"model: got {type(model).__name__}, expected a model with a denoise method")
        self.model, self._scorer = model, Scorer(reward)

    @property
    def calls(self) -> int:
        return self._scorer.calls

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self._scorer(self.model.denoise(x_t, t, cond=cond), cond)


class LookAhead:
    """`value(x_t, t, cond) = r(X_{t,1}(x_t))`, `(N,)`, for states `(N, *event)`; one evaluation and one reward call each.

    Arguments:
        flow_map: a :class:`~diamond.FlowMap`.
        reward: as in :class:`PlugIn`.

    Attributes:
        calls: samples scored so far.
    """

    def __init__(self, flow_map: FlowMap, reward: Reward) -> None:
        check_flow_map(flow_map)
        self.model, self._scorer = flow_map, Scorer(reward)

    @property
    def calls(self) -> int:
        return self._scorer.calls

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self._scorer(self.model(x_t, t, torch.ones_like(t), cond=cond), cond)
