"""The models that are compared, all made of the same teacher, and what each charges for a posterior draw.

* exact: closed form, at one evaluation a draw: what a perfect map would do for its price;
* map: distilled, one evaluation;
* GLASS-4 and GLASS-16: the teacher's GLASS flow, that many evaluations;
* plug-in: the teacher as it is, one evaluation: its mean for all draws, and the ancestral sampler's Gaussian steps
  around it. Every value and gradient of it is one at the denoiser's mean: SMC on it is Feynman-Kac steering, with
  shifted noise DAS, search SVDD with a beam, and guidance DPS;
* flow map: distilled, one evaluation, but all draws of a state are one point;
* weighted: that flow map, noised and weighted: a few dozen evaluations a draw, three each where weights will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import diamond
import distill

from diamond.model import View
from diamond.randomness import normal
from diamond.transition import gaussian_step
from diamond.validation import as_times

from .tilts import Tilt

__all__ = ["Models", "PlugIn", "assemble", "cached", "mixture_models"]

CANDIDATES = 8  # of which the weighted map draws one


class Ideal(diamond.GaussianMixtureFlow):
    """An exact mixture whose draws and means are counted as evaluations."""

    def posterior(self, x_t: Tensor, t: Any, n: int = 1, **options: Any) -> Tensor:
        self.nfe += n * len(x_t)
        return super().posterior(x_t, t, n, **options)

    def denoise(self, x_t: Tensor, t: Any, **options: Any) -> Tensor:
        self.nfe += len(x_t)
        return super().denoise(x_t, t, **options)


class PlugIn(View):
    """A flow that takes its mean for the posterior: exact for no law but a point's, and what the field does without GLASS
    or a map."""

    viewed = "flow"

    def __init__(self, flow: diamond.Flow) -> None:
        super().__init__(flow.interpolant, flow.event_shape)
        self.flow = flow

    def velocity(self, x_t: Tensor, t: Any, **options: Any) -> Tensor:
        return self.flow.velocity(x_t, t, **options)

    def denoise(self, x_t: Tensor, t: Any, **options: Any) -> Tensor:
        return self.flow.denoise(x_t, t, **options)

    def posterior(self, x_t: Tensor, t: Any, n: int = 1, *, cond: Any = None, generator: Any = None) -> Tensor:
        mean = self.flow.denoise(x_t, t, cond=cond)
        return mean.expand(n, *mean.shape)

    def transition(
        self, x_t: Tensor, t: Any, t_next: Any, *, rho: Any = None, cond: Any = None, generator: Any = None
    ) -> Tensor:
        mean = self.flow.denoise(x_t, t, cond=cond)
        noise = normal(x_t.shape, generator, device=x_t.device, dtype=x_t.dtype)
        times = as_times(t, x_t), as_times(t_next, x_t, "t_next")
        return gaussian_step(self.interpolant, x_t, mean, *times, rho, noise)


@dataclass(frozen=True)
class Models:
    """The models of one problem.

    Attributes:
        teacher: the flow that all are made of; its evaluations are counted.
        flow_map: the distilled flow map, for look-aheads.
        by_name: the posterior samplers.
    """

    teacher: diamond.Flow
    flow_map: diamond.FlowMap
    by_name: dict[str, Any]


def assemble(
    teacher: diamond.Flow,
    diamond_map: diamond.DiamondMap,
    flow_map: diamond.FlowMap,
    glass_steps: tuple[int, ...],
    data_std: float,
) -> Models:
    """All models of one teacher and its two maps."""
    return Models(
        teacher,
        flow_map,
        {
            "map": diamond_map,
            **{f"GLASS-{steps}": diamond.GlassFlow(teacher, steps, grid="uniform") for steps in glass_steps},
            "plug-in": PlugIn(teacher),
            "flow map": flow_map,
            "weighted": diamond.WeightedDiamondMap(flow_map, proposals=CANDIDATES, data_std=data_std),
        },
    )


def mixture_models(tilt: Tilt, steps: int, folder: Path, seed: int) -> Models:
    """The models of a mixture, whose maps are distilled in `steps` steps and kept in `folder`."""
    mixture, name = tilt.mixture, f"mixture-{len(tilt.target)}"
    how: dict[str, Any] = {"loss": "trajectory", "steps": steps, "seed": seed}
    diamond_map = cached(
        folder / f"{name}.map.ckpt", lambda out: distill.distill(mixture, out=out, times="uniform", **how), how
    )
    flow_map = cached(
        folder / f"{name}.flow-map.ckpt", lambda out: distill.distill_flow_map(mixture, out=out, **how), how
    )
    teacher = diamond.Flow(mixture.denoise, mixture.interpolant, mixture.event_shape, "denoiser")
    std = float(mixture.covariance().diagonal().mean().sqrt())
    models = assemble(teacher, diamond_map, flow_map, (4, 16), std)
    ideal = Ideal(mixture.weights, mixture.means, mixture.covariances)
    return Models(teacher, flow_map, {"exact": ideal, **models.by_name})


def cached(path: Path, make: Callable[[Path], Any], how: dict[str, Any]) -> Any:
    """The model in that file, frozen, if it was trained for as many steps from the same seed; else a new one, saved
    there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = diamond.load(path) if path.exists() else None
    if model is None or any(model.metadata.get(key) != how[key] for key in ("steps", "seed")):
        model = make(path)
    return model.eval().requires_grad_(False)
