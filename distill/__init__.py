"""Training flow models, and distilling them into maps."""

from .averages import choose_average
from .recipes import distill, distill_flow_map, train_flow
from .trainer import Schedule

__all__ = ["Schedule", "choose_average", "distill", "distill_flow_map", "train_flow"]
