"""Training flow models, and distilling them into maps."""

from .recipes import distill, distill_flow_map, train_flow
from .trainer import Schedule

__all__ = ["Schedule", "distill", "distill_flow_map", "train_flow"]
