r"""What the rewards of pretrained networks share.

A reward is :math:`r(x, c) = s(\phi(x), \psi(c))`: the text's side :math:`\psi(c)` does not depend on the image and is
computed once a prompt; the image's side is computed in chunks. With activation checkpointing a chunk keeps nothing but
its images until the backward pass, which computes the rest again: memory for one chunk, time for one more forward pass.

References:
    | Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016)
    | https://arxiv.org/abs/1604.06174
"""

from __future__ import annotations

import abc

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diamond.validation import check_positive

from ...answers import reward_dtype
from ..composition import RewardModule
from ..prompts import check_images, check_prompt, prompts_for
from .preprocessing import Preprocessing

__all__ = ["PretrainedReward", "PromptedReward"]

PROMPTS_KEPT = 1024


class PretrainedReward(RewardModule):
    """A frozen network's score of images `(N, 3, H, W)` in [-1, 1], of any floating type, on any device: `(N,)` on
    theirs, in float32, or float64 where they are. Differentiable with respect to the images; no gradient is computed
    for the weights, and no mode but evaluation is entered.

    Arguments:
        network: of any kind; it stays in evaluation mode.
        preprocessing: from images to what the network sees.
        device: where the network computes; images are moved there, and rewards back.
        dtype: what it computes in.
        chunk: images per forward pass, all by default; the rewards do not depend on it.
        checkpoint: whether a chunk's activations are computed again in the backward pass instead of kept.

    Raises:
        ValueError: an argument that does not fit; when called, images of another kind.
    """

    network: Any

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        chunk: int | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if chunk is not None:
            check_positive("chunk", chunk)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dtype: got {dtype}, expected a floating type like torch.bfloat16")
        self.network = _moved(network, device, dtype).requires_grad_(False).eval()
        self.preprocessing, self.chunk, self.checkpoint = preprocessing, chunk, checkpoint

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return next(self.network.parameters()).dtype

    def train(self, mode: bool = True) -> PretrainedReward:
        """Stays in evaluation mode, whatever becomes of what this is part of."""
        return super().train(False)

    @abc.abstractmethod
    def score(self, pixels: Tensor, *rows: Tensor) -> Tensor:
        """Scores `(n,)` of preprocessed images and of what stands for their prompts, on the network's device."""

    def scores(self, images: Tensor, *rows: Tensor) -> Tensor:
        """Scores `(N,)` of images in [-1, 1] and of rows that go with them, on the images' device."""
        check_images(images)
        size = self.chunk or max(len(images), 1)
        kept = self.checkpoint and torch.is_grad_enabled() and images.requires_grad
        parts = [images.new_empty(0, dtype=reward_dtype(images))]
        for start in range(0, len(images), size):
            part = [tensor[start : start + size] for tensor in (images, *rows)]
            if kept:
                parts.append(checkpoint(self._scores, *part, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(self._scores(*part))
        return torch.cat(parts)

    def _scores(self, images: Tensor, *rows: Tensor) -> Tensor:
        pixels = self.preprocessing(images.to(self.device)).to(self.dtype)
        return self.score(pixels, *rows).to(images.device, reward_dtype(images))


class PromptedReward(PretrainedReward):
    """A frozen network's score of images and prompts.

    Arguments:
        prompt: one for all images; where it is None, `cond` is a list of one an image.
        network, preprocessing, settings: as in :class:`PretrainedReward`.

    Raises:
        ValueError: as there; when called, no prompts or another number of them.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, prompt: str | None, **settings: Any) -> None:
        check_prompt(prompt)
        super().__init__(network, preprocessing, **settings)
        self.prompt = prompt
        self._texts: OrderedDict[str, Tensor] = OrderedDict()

    def forward(self, images: Tensor, cond: Any = None) -> Tensor:
        check_images(images)
        prompts = prompts_for(len(images), self.prompt, cond)
        return self.scores(images, self.texts(prompts)) if prompts else self.scores(images)

    @abc.abstractmethod
    def encode(self, prompts: list[str]) -> Tensor:
        """What stands for distinct prompts, `(P, ...)`, on the network's device."""

    def texts(self, prompts: list[str]) -> Tensor:
        """What stands for prompts, `(N, ...)`: new ones are encoded together, those of late are remembered."""
        found = {prompt: self._texts[prompt] for prompt in prompts if prompt in self._texts}
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        size = self.chunk or max(len(new), 1)
        with torch.no_grad():
            for start in range(0, len(new), size):
                part = new[start : start + size]
                found |= zip(part, self.encode(part), strict=True)
            rows = torch.stack([found[prompt] for prompt in prompts])
        for prompt in dict.fromkeys(prompts):
            self._texts[prompt] = found[prompt]
            self._texts.move_to_end(prompt)
        while len(self._texts) > PROMPTS_KEPT:
            self._texts.popitem(last=False)
        return rows

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PromptedReward:
        """A network that is moved or cast encodes anew."""
        self._texts.clear()
        return super()._apply(fn, recurse)


def _moved(network: nn.Module, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    try:
        return network.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: got {str(device)!r}, expected a device that this machine has ({reason})") from error
