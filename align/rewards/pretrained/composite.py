r"""The reward of the Diamond Maps paper's text-to-image experiments,

.. math:: r = 1 \, r_\mathrm{ImageReward} + 5 \, r_\mathrm{HPS} + 0.05 \, r_\mathrm{Pick} + 0.01 \, r_\mathrm{CLIP},

with the scales of this package: CLIP's cosine times 100, PickScore's times its logit scale, HPS's as it is. The same weights
were used before for the optimisation of noise.

References:
    | Diamond Maps (Holderrieth et al., 2026), and its code's weights
    | https://arxiv.org/abs/2602.05993
    | ReNO: Enhancing One-step Text-to-Image Models through Reward-based Noise Optimization (Eyring et al., 2024)
    | https://arxiv.org/abs/2406.04312
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diamond.validation import check_choice

from ..combined import Combined
from .clip import CLIPScore, HPSv2, PickScore
from .image_reward import ImageReward

__all__ = ["WEIGHTS", "composite"]

KINDS: dict[str, Callable[..., Any]] = {
    "imagereward": ImageReward,
    "hps": HPSv2,
    "pickscore": PickScore,
    "clip": CLIPScore,
}
WEIGHTS = {"imagereward": 1.0, "hps": 5.0, "pickscore": 0.05, "clip": 0.01}


def composite(
    prompt: str | None = None,
    *,
    weights: Mapping[str, float] = WEIGHTS,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Combined:
    """The paper's combined reward of images `(N, 3, H, W)` in [-1, 1], with its parts reported by name.

    Arguments:
        prompt: one for all images; where it is None, `cond` is a list of one an image.
        weights: of "imagereward", "hps", "pickscore" and "clip"; a part that is not named is left out and not loaded.
            A weight of 0 reports the part and changes nothing.
        models: what a part's class gets besides, by the part's name: `{"hps": {"model": "hps.safetensors"}}`.
        settings: what all of them get: `device`, `dtype`, `chunk`, `checkpoint`, `local_files_only`.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: there is no such model.
        ValueError: an unknown part, or an argument that does not fit.
    """
    own = dict(models or {})
    for part in (*weights, *own):
        check_choice("part", part, KINDS)
    return Combined(
        {part: (KINDS[part](prompt=prompt, **settings, **own.get(part, {})), weights[part]) for part in weights}
    )
