"""Diamond Maps: flow models that draw from the posterior of the clean data in one network call.

Names are imported when they are first asked for, so that `import diamond` costs nothing and the command line starts at
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters.pipelines import from_pipeline as from_pipeline
    from .checkpoint import load as load
    from .classifier_free import ClassifierFree as ClassifierFree
    from .data import load_data as load_data
    from .degeneracy import DegenerateWeights as DegenerateWeights
    from .diamond_map import DiamondMap as DiamondMap
    from .flow import Flow as Flow
    from .flow_map import FlowMap as FlowMap
    from .glass import GlassFlow as GlassFlow
    from .interpolant import Cosine as Cosine
    from .interpolant import Interpolant as Interpolant
    from .interpolant import Linear as Linear
    from .mixture import GaussianMixtureFlow as GaussianMixtureFlow
    from .model import PosteriorSampler as PosteriorSampler
    from .snr_choice import choose_snr as choose_snr
    from .weighted_map import WeightedDiamondMap as WeightedDiamondMap

__version__ = "0.1.0"

_ROOMS = {
    "ClassifierFree": "classifier_free",
    "Cosine": "interpolant",
    "DegenerateWeights": "degeneracy",
    "DiamondMap": "diamond_map",
    "Flow": "flow",
    "FlowMap": "flow_map",
    "GaussianMixtureFlow": "mixture",
    "GlassFlow": "glass",
    "Interpolant": "interpolant",
    "Linear": "interpolant",
    "PosteriorSampler": "model",
    "WeightedDiamondMap": "weighted_map",
    "choose_snr": "snr_choice",
    "from_pipeline": "adapters.pipelines",
    "load": "checkpoint",
    "load_data": "data",
}

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'diamond' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
