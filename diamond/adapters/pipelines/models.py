"""What `diamond.from_pipeline` gives: models on latents that know their prompts and make images."""

from __future__ import annotations

import abc

from typing import Any

import torch

from torch import Tensor

from ...flow import Flow, euler
from ...flow_map import FlowMap
from ...glass import GlassFlow
from ...randomness import Generator, normal
from ...validation import check_positive
from ...weighted_map import WeightedDiamondMap
from .decoding import decode
from .network import LatentNetwork

__all__ = ["PipelineFlow", "PipelineMap"]


class _Pictures(abc.ABC):
    """The prompts and images of a model on a :class:`LatentNetwork`. To move it, move its pipeline: it is where that executes,
    and `to` does nothing.

    Attributes:
        decode_chunk: latents in one call of the decoder.
    """

    decode_chunk: int | None = None

    @property
    @abc.abstractmethod
    def network(self) -> LatentNetwork:
        """The network with its prompts."""

    @property
    def device(self) -> torch.device:
        """Where the pipeline executes."""
        return self.network.device

    @property
    def prompts(self) -> list[str]:
        """The prompts; conditioning is their numbers."""
        return self.network.prompts

    @property
    def cond(self) -> Tensor:
        """The number of each prompt, `(P,)`: with `batch=P, cond=model.cond` each gets a population of its own."""
        return torch.arange(len(self.prompts))

    def prompts_of(self, cond: Tensor | None, rows: int) -> list[str]:
        """The prompt of each of `rows` samples.

        Raises:
            ValueError: prompt numbers that do not fit.
        """
        numbers = self.network.prompt_numbers(rows, cond)
        return self.prompts * rows if numbers is None else [self.prompts[number] for number in numbers.tolist()]

    def decode(self, z: Tensor) -> Tensor:
        """Images `(N, 3, H, W)` in [-1, 1], in float32, of latents `(N, C, h, w)`; differentiable."""
        return decode(self.network.pipe, z, self.decode_chunk, self.network.checkpoint)

    @torch.no_grad()
    def images(self, z: Tensor) -> list[Any]:
        """Pictures, as PIL has them, of latents `(N, C, h, w)`."""
        from torchvision.transforms.v2.functional import to_pil_image

        levels = ((self.decode(z) + 1) * 127.5).round().to(torch.uint8).cpu()
        return [to_pil_image(image) for image in levels]

    def times(self, steps: int) -> Tensor:
        """The times `(K + 1,)` that the pipeline's own sampler visits, shifted as its scheduler has it; but the first is 0,
        where every algorithm starts. K is `steps`, but for schedulers that stand at more."""
        times = self.network.times(steps)
        return torch.cat([times.new_zeros(1), times[1:]])


class PipelineFlow(_Pictures, GlassFlow):
    """A pipeline as a GLASS flow on its latents.

    Arguments:
        network: the pipeline's network.
        steps: inner steps of a posterior draw or transition.
        decode_chunk: latents in one call of the decoder, all at once by default.
    """

    def __init__(self, network: LatentNetwork, steps: int = 4, decode_chunk: int | None = None) -> None:
        super().__init__(Flow(network, network.path.interpolant), steps)
        self.decode_chunk = None if decode_chunk is None else check_positive("decode_chunk", decode_chunk)

    @property
    def network(self) -> LatentNetwork:
        return self.flow.net  # type: ignore[return-value]

    @torch.no_grad()
    def sample(self, n: int = 1, steps: int = 28, *, cond: Tensor | None = None, generator: Generator = None) -> Tensor:
        """`n` latents `(n, C, h, w)`, by Euler's method on the pipeline's own times.

        From the same noise it is the pipeline's own picture where its sampler is Euler's, DDIM's, or DPM-Solver's of order
        1. Samplers of higher order (PNDM, DPM-Solver++, Heun) and random ones give another, of the same model; a scheduler
        that stops a little before the data (`set_alpha_to_one=False`) leaves its last noise in it."""
        times = self.network.times(steps).to(self.device)
        x = self.network.begin(self.prior(check_positive("n", n), generator=generator), steps)
        return euler(lambda x, t: self.velocity(x, t, cond=cond), x, times)


class PipelineMap(_Pictures, WeightedDiamondMap):
    """A pipeline of few steps as a weighted Diamond Map on its latents.

    Its network's endpoint stands for the flow map `X_{t,1}`; where it has no second time, as consistency and adversarially
    distilled models have none, that endpoint stands for the denoiser in the weights as well, which then are an
    approximation.

    In latents of thousands of numbers the weights single out one proposal (:class:`~diamond.DegenerateWeights` warns of
    it): draws are the map's own, values and gradients those of a proposal or two, and the evidence of `align.smc` is not
    to be trusted. Guidance and best-of-n are for these models.

    Arguments:
        network: the pipeline's network.
        snr, proposals: as in :class:`~diamond.WeightedDiamondMap`.
        decode_chunk: latents in one call of the decoder, all at once by default.
    """

    def __init__(
        self, network: LatentNetwork, snr: float = 3.0, proposals: int = 4, decode_chunk: int | None = None
    ) -> None:
        super().__init__(FlowMap(network, network.path.interpolant), snr, proposals)
        self.decode_chunk = None if decode_chunk is None else check_positive("decode_chunk", decode_chunk)

    @property
    def network(self) -> LatentNetwork:
        return self.flow_map.net

    @torch.no_grad()
    def sample(self, n: int = 1, steps: int = 1, *, cond: Tensor | None = None, generator: Generator = None) -> Tensor:
        """`n` latents `(n, C, h, w)`, by `steps` jumps to the data, between which noise is added afresh (multistep
        consistency sampling), on the pipeline's own times: the pipeline's own picture from the same seed where its sampler
        is that one (Sana-Sprint's, latent consistency models')."""
        times = self.network.times(steps).to(self.device)
        x = self.network.begin(self.prior(check_positive("n", n), generator=generator), steps)
        for t, t_next in zip(times[:-1].to(x.dtype), times[1:].to(x.dtype), strict=True):
            z = self.flow_map(x, t, 1.0, cond=cond)
            if t_next < 1:
                noise = normal(z.shape, generator, device=z.device, dtype=z.dtype)
                x = self.interpolant.interpolate(z, noise, t_next.expand(n))
        return z
