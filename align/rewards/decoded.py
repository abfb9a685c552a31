"""Rewards on the images of a model that works on latents."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from ..answers import answer_of
from ..scoring import Reward, Scorer
from .composition import RewardModule

__all__ = ["Decoded", "Pictures"]


class Pictures(Protocol):
    """A model that makes images of its latents, and knows what it was asked for."""

    def decode(self, z: Tensor) -> Tensor:
        """Images `(N, 3, H, W)` in [-1, 1] of latents `(N, *event)`."""

    def prompts_of(self, cond: Any, rows: int) -> list[str]:
        """The prompt of each of `rows` samples."""


class Decoded(RewardModule):
    """`reward(images)` or `reward(images, prompts)` of a model's decoded latents; differentiable where the reward is.

    A reward of two arguments gets each image's prompt, a list of N strings. A sum or :class:`~align.rewards.Combined` of
    such rewards decodes once for all its parts: `Decoded(2.0 * CLIPScore() + Symmetry(), model)`.

    Arguments:
        reward: any callable reward on images `(N, 3, H, W)` in [-1, 1].
        model: what :func:`diamond.from_pipeline` gives, or any model with `decode` and `prompts_of`.

    Raises:
        ValueError: a model without them, or a reward that is not callable; when called, an answer that is no reward.
    """

    def __init__(self, reward: Reward, model: Pictures) -> None:
        super().__init__()
        if not hasattr(model, "decode") or not hasattr(model, "prompts_of"):
            raise ValueError(
                f"model: got a {type(model).__name__}, expected one with decode and prompts_of, as diamond.from_pipeline "
                "gives"
            )
        self.reward, self.scorer = reward, Scorer(reward)
        self._decode, self._prompts_of = model.decode, model.prompts_of  # the model is no part of this module
        parts: Any = reward
        if hasattr(parts, "components"):  # a reward of parts is one on latents as well
            self.components, self.total, self.names = self._components, parts.total, parts.names

    def forward(self, z: Tensor, cond: Any = None) -> Tensor:
        """`(N,)` for latents `(N, *event)`."""
        return self._ask(self.reward, z, cond)

    def _components(self, z: Tensor, cond: Any = None) -> dict[str, Tensor]:
        return self._ask(self.reward.components, z, cond)  # type: ignore[attr-defined]

    def _ask(self, reward: Any, z: Tensor, cond: Any) -> Any:
        prompts = self._prompts_of(cond, len(z)) if self.scorer.takes_cond else None
        return answer_of(reward, self._decode(z), cond=prompts, how=self.scorer.takes_cond)
