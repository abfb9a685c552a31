"""Ready-made rewards. Any callable `reward(z) -> (N,)` is one; these add, scale, clip and temper besides.

========================== ======================= ==============================================
name                       range, larger is better differentiable
========================== ======================= ==============================================
`Brightness`               [-1, 1]                 yes
`ClassifierLogProbability` at most 0               where the classifier is
`ClassMargin`              any                     where the classifier is
`Combined`                 the weighted parts'     where its parts are; refuses a mixture
`CompressedSensing`        at most 0               yes
`Contrast`                 [0, 1]                  yes
`Deblurring`               at most 0               yes
`External`                 the judge's             no: a black box
`HTTPReward`               the judge's             no: a black box
`Inpainting`               at most 0               yes
`JPEGSize`                 below 0                 no: a black box
`LinearInverse`            at most 0               where the operator is
`MeanColour`               [-4, 0]                 yes
`Sparsity`                 at most 0               yes, save at the background itself
`SuperResolution`          at most 0               yes
`Symmetry`                 [-4, 0]                 yes
`reward.clip(low, high)`   [low, high]             where the reward is; gradient zero outside
`reward.temper(T)`         the reward's over T     where the reward is
========================== ======================= ==============================================

A `RewardModule` is what composes: `2.0 * Symmetry() + my_function`. Ranges of image rewards hold for entries in [-1, 1].
"""

from .classifier import ClassifierLogProbability, ClassMargin
from .combined import Combined
from .composition import RewardModule
from .external import External
from .http import HTTPReward
from .images import Brightness, Contrast, MeanColour, Sparsity, Symmetry
from .inverse import CompressedSensing, Deblurring, Inpainting, LinearInverse, SuperResolution
from .jpeg import JPEGSize

__all__ = [
    "Brightness",
    "ClassMargin",
    "ClassifierLogProbability",
    "Combined",
    "CompressedSensing",
    "Contrast",
    "Deblurring",
    "External",
    "HTTPReward",
    "Inpainting",
    "JPEGSize",
    "LinearInverse",
    "MeanColour",
    "RewardModule",
    "Sparsity",
    "SuperResolution",
    "Symmetry",
]
