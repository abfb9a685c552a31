"""Rewards of pretrained networks: what people like, read off an image and its prompt.

========================= =================================== ======================================
name                      scale, larger is better             made of
========================= =================================== ======================================
`CLIPScore`               [-100, 100], near 20 to 35          the cosine times 100
`PickScore`               near 18 to 24                       the cosine times the network's own scale
`HPSv2`                   [-1, 1], near .2 to .35             the cosine
`ImageReward`             about a standard normal variable    a head on image-grounded text
`LAIONAesthetic`          about 1 to 10                       a linear head on the image alone
`composite`               the sum with the paper's weights    1, 5, .05 and .01 of four of these
========================= =================================== ======================================

All take images `(N, 3, H, W)` in [-1, 1], differentiate with respect to them, and keep a device and number type of
their own. Their networks are those of transformers, which is imported when a reward is made and not before.
"""

from .aesthetic import LAIONAesthetic
from .clip import CLIPScore, HPSv2, PickScore
from .composite import composite
from .image_reward import ImageReward
from .preprocessing import Preprocessing

__all__ = ["CLIPScore", "HPSv2", "ImageReward", "LAIONAesthetic", "PickScore", "Preprocessing", "composite"]
