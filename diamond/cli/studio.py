"""A pipeline of diffusers in the hands of the methods of alignment: one picture for a prompt and a seed.

Each prompt is embedded by itself when its turn comes, and stays for as many pictures as are made of it in a row: of a list
of thousands no more than one prompt's embeddings are in memory, and a picture depends on nothing but its own prompt. The
network and the rewards are loaded once.

`base` and `best-of-n` draw by the pipeline's own sampler; the other methods walk the times that it visits. The noise of a
picture comes from its seed alone, so that two prompts share their noise, and `base` is what the pipeline's own call makes of
that seed where its sampler is Euler's or DDIM's; a flow's `base` is Euler's on the same times where it is another.
"""

from __future__ import annotations

import inspect
import warnings

from dataclasses import replace
from typing import Any

import torch

from torch import Tensor

from align import Alignment
from align.rewards.decoded import Decoded
from align.time_grid import USUAL_STEPS
from diamond.adapters.pipelines import PipelineFlow, PipelineMap, from_pipeline, load_pipeline
from diamond.model import View
from diamond.randomness import Generator
from diamond.validation import check_positive

from .align_model import run_method
from .picture_rewards import picture_reward
from .recipe import DTYPES, Place, Recipe

__all__ = ["OwnSampler", "Studio"]


class OwnSampler(View):
    """A pipeline's model whose way from noise to data is one step: its own sampler.

    Arguments:
        model: the model of a pipeline.
        steps: of its sampler, as many as it takes by itself by default.
    """

    viewed = "model"

    def __init__(self, model: PipelineFlow | PipelineMap, steps: int | None = None) -> None:
        usual = inspect.signature(type(model).sample).parameters["steps"].default
        self.steps = usual if steps is None else check_positive("steps", steps)
        super().__init__(model.interpolant, model.event_shape)
        self.model = model

    def prior(self, n: int, *, generator: Generator = None) -> Tensor:
        """Nothing, `(n, *event)`: the sampler draws its own noise."""
        return torch.zeros(n, *self.event_shape, device=self.model.device)

    def transition(
        self, x_t: Tensor, t: Any, t_next: Any, *, rho: Any = None, cond: Any = None, generator=None
    ) -> Tensor:
        """Data, `(B, *event)`."""
        return self.model.sample(len(x_t), self.steps, cond=cond, generator=generator)

    def posterior(self, x_t: Tensor, t: Any, n: int = 1, *, cond: Any = None, generator=None) -> Tensor:
        """The model's own."""
        return self.model.posterior(x_t, t, n, cond=cond, generator=generator)

    def velocity(self, x_t: Tensor, t: Any, *, cond: Any = None) -> Tensor:
        """The model's own."""
        return self.model.velocity(x_t, t, cond=cond)

    def denoise(self, x_t: Tensor, t: Any, *, cond: Any = None) -> Tensor:
        """The model's own."""
        return self.model.denoise(x_t, t, cond=cond)


class Studio:
    """Makes pictures in one way.

    Arguments:
        recipe, place: the way, and where.
        quiet: whether loading shows no bars.

    Raises:
        FileNotFoundError: the pipeline or a reward's network cannot be had.
        ImportError: a package is missing.
    """

    def __init__(self, recipe: Recipe, place: Place, quiet: bool = False) -> None:
        self.recipe, self.place = recipe, place
        # before the pipeline, which takes longer
        self.reward = picture_reward(recipe.reward, place.device, place.reward_device)
        self.pipe = _loaded(recipe, place, quiet)
        self._model: PipelineFlow | PipelineMap | None = None

    def model(self, prompt: str) -> PipelineFlow | PipelineMap:
        """The model with that prompt, embedded anew if it is another than last time.

        Raises:
            ValueError: a pipeline that is not supported, or settings that do not fit it.
        """
        if self._model is None or self._model.prompts != [prompt]:
            self._model = None  # its embeddings go first
            names = ("negative_prompt", "guidance_scale", "height", "width", "kind", "glass_steps")
            given = {name: getattr(self.recipe, name) for name in names if getattr(self.recipe, name) is not None}
            self._model = from_pipeline(
                self.pipe, prompt, chunk=self.place.chunk, decode_chunk=self.place.decode_chunk, **given
            )
        return self._model

    def make(self, prompt: str, seed: int) -> Alignment:
        """The population of a prompt and a seed, on latents.

        Raises:
            ValueError: settings or a reward that do not fit.
            RewardFailure: an external judge has gone away.
        """
        model, method, settings = self.model(prompt), self.recipe.method, dict(self.recipe.settings)
        common: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "chunk": self.place.chunk}
        reward = Decoded(self.reward, model)
        if method in ("base", "best-of-n"):
            sampler = OwnSampler(model, settings.pop("steps", None))
            result = run_method(method, sampler, reward, settings.pop("particles", 1), **settings, **common)
            return replace(result, settings={**result.settings, "steps": sampler.steps})
        times = model.times(settings.pop("steps", USUAL_STEPS[method]))
        result = run_method(method, model, reward, **settings, **common, times=times)
        inner = {"glass_steps": model.steps} if isinstance(model, PipelineFlow) else {}
        return replace(result, settings={**result.settings, **inner})


def _loaded(recipe: Recipe, place: Place, quiet: bool) -> Any:
    if quiet:
        _hide_bars()
    with warnings.catch_warnings():
        # of diffusers, which calls the argument `dtype` as well of late
        warnings.simplefilter("ignore", FutureWarning)
        pipe = load_pipeline(recipe.pipeline, torch_dtype=getattr(torch, DTYPES[recipe.dtype]))
    pipe.set_progress_bar_config(disable=True)
    if place.offload:
        pipe.enable_model_cpu_offload(device=place.device)
        return pipe
    return pipe.to(place.device)


def _hide_bars() -> None:
    try:
        import diffusers
        import transformers
    except ImportError:  # of which loading will speak
        return
    for package in (diffusers, transformers):
        package.utils.logging.disable_progress_bar()
