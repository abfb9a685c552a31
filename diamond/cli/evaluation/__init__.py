"""What `diamond eval` measures, prints and draws."""

from .figures import evaluate_all
from .plots import draw_plots
from .settings import FULL, QUICK, Sizes
from .subject import Subject
from .tables import print_tables

__all__ = ["FULL", "QUICK", "Sizes", "Subject", "draw_plots", "evaluate_all", "print_tables"]
