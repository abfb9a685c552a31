"""Ready-made rewards. Any callable `reward(z) -> (N,)` is one; these add, scale, clip and temper besides.

========================== ======================= ==============================================
name                       range, larger is better differentiable
========================== ======================= ==============================================
`Brightness`               [-1, 1]                 yes
`CLIPScore`                [-100, 100]             yes
`ClassifierLogProbability` at most 0               where the classifier is
`ClassMargin`              any                     where the classifier is
`Combined`                 the weighted parts'     where its parts are; refuses a mixture
`CompressedSensing`        at most 0               yes
`Contrast`                 [0, 1]                  yes
`Deblurring`               at most 0               yes
`Decoded`                  the reward's            where the reward and the decoder are
`External`                 the judge's             no: a black box
`HPSv2`                    [-1, 1]                 yes
`HTTPReward`               the judge's             no: a black box
`ImageReward`              any, about -2 to 2      yes
`Inpainting`               at most 0               yes
`JPEGSize`                 below 0                 no: a black box
`LAIONAesthetic`           any, about 1 to 10      yes
`LinearInverse`            at most 0               where the operator is
`MeanColour`               [-4, 0]                 yes
`PickScore`                any, about 18 to 24     yes
`Sparsity`                 at most 0               yes, save at the background itself
`SuperResolution`          at most 0               yes
`Symmetry`                 [-4, 0]                 yes
`VLMJudge`                 its scale, [1, 10]      no: a black box
`composite(prompt)`        the weighted parts'     yes
`reward.clip(low, high)`   [low, high]             where the reward is; gradient zero outside
`reward.temper(T)`         the reward's over T     where the reward is
========================== ======================= ==============================================

A `RewardModule` is what composes: `2.0 * Symmetry() + my_function`. Ranges of image rewards hold for entries in [-1, 1].
Rewards of pretrained networks (:mod:`align.rewards.pretrained`) and `VLMJudge` take a prompt when they are made, or in
`cond` a list of one an image; the former need `pip install 'diamond-maps[rewards]'` when they are made.
"""

from .classifier import ClassifierLogProbability, ClassMargin
from .combined import Combined
from .composition import RewardModule
from .decoded import Decoded
from .external import External
from .http import HTTPReward
from .images import Brightness, Contrast, MeanColour, Sparsity, Symmetry
from .inverse import CompressedSensing, Deblurring, Inpainting, LinearInverse, SuperResolution
from .jpeg import JPEGSize
from .pretrained import CLIPScore, HPSv2, ImageReward, LAIONAesthetic, PickScore, composite
from .vlm_judge import VLMJudge

__all__ = [
    "Brightness",
    "CLIPScore",
    "ClassMargin",
    "ClassifierLogProbability",
    "Combined",
    "CompressedSensing",
    "Contrast",
    "Deblurring",
    "Decoded",
    "External",
    "HPSv2",
    "HTTPReward",
    "ImageReward",
    "Inpainting",
    "JPEGSize",
    "LAIONAesthetic",
    "LinearInverse",
    "MeanColour",
    "PickScore",
    "RewardModule",
    "Sparsity",
    "SuperResolution",
    "Symmetry",
    "VLMJudge",
    "composite",
]
