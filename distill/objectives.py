r"""What one training step looks at: data, noises and times drawn, and the residuals of :mod:`distill.losses` there."""

from __future__ import annotations

from typing import Any

import torch

from torch import Tensor

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import glass_velocity
from diamond.interpolant import Linear
from diamond.model import Model
from diamond.observation import combine_looks
from diamond.randomness import normal
from diamond.validation import check_choice

from .losses import diagonal, flow_matching, lagrangian
from .times import LATEST, inner_pairs, uniform_times

__all__ = ["DiamondObjective", "FlowMapObjective", "FlowObjective"]

LOSSES = ("lsd",)
