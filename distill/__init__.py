"""Training flow models, and distilling them into maps."""

from .perceptual import Perceptual
from .recipes import distill, distill_flow_map, train_flow
from .training.averages import choose_average
from .training.trainer import Schedule

__all__ = ["Perceptual", "Schedule", "choose_average", "distill", "distill_flow_map", "train_flow"]
