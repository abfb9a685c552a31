"""Ready-made rewards. Any callable `reward(z) -> (N,)` is one; these add and scale besides."""

from .classifier import ClassifierLogProbability
from .composition import RewardModule
from .images import Brightness, JPEGSize, Symmetry
from .inverse import Inpainting

__all__ = ["Brightness", "ClassifierLogProbability", "Inpainting", "JPEGSize", "RewardModule", "Symmetry"]
