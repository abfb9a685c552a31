"""One file a model: safetensors, with a JSON configuration in its header. No pickle is ever read.

The configuration names a class of this package and the arguments it was made with; the tensors are its state. Files
are written beside their place and moved there, so that a file that exists is whole. Half-precision numbers are a way to
store single-precision ones: they are loaded as these.
"""

from __future__ import annotations

import json
import os
import warnings

from pathlib import Path
from typing import Any

import torch

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from .classifier_free import ClassifierFree
from .diamond_map import DiamondMap
from .flow import Flow
from .flow_map import FlowMap
from .glass import GlassFlow
from .interpolant import interpolant_named
from .mixture import GaussianMixtureFlow
from .model import Model
from .nets import describe, make
from .weighted_map import WeightedDiamondMap
from .weights import locate, names

__all__ = ["describe_model", "load", "read_header", "read_tensors", "save", "write_tensors"]

FORMAT = "diamond-maps/1"
HALVES = (torch.float16, torch.bfloat16)
MODELS: dict[str, Any] = {kind.__name__: kind for kind in (Flow, ClassifierFree, FlowMap, DiamondMap)}
WEIGHTED = (
    "snr",
    "proposals",
    "quadrature",
    "data_std",
)  # what a WeightedDiamondMap is made with, besides its flow map

OTHERS = {  # what else is written in this format, and who reads it
    "alignment": "an alignment, expected a model; load it with align.Alignment.load",
    "Judge": "a Judge, expected a model; load it with diamond.judges.load",
    "training state": "a training state, expected a model; the same training goes on from it with resume=True",
}


def save(model: Model, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes `model` to `path` (any extension).

    Arguments:
        dtype: round the parameters to this type, like `torch.float16`, for a smaller file; buffers, which are measured
            and not trained, stay as they are.

    Raises:
        ValueError: its network or interpolant is not one of this package, so that no file can describe it; or `dtype`
            is no floating type, or cannot hold a parameter.
    """
    header = {"kind": type(model).__name__, "config": describe_model(model), "metadata": model.metadata}
    tensors = dict(model.state_dict())
    if dtype is not None:
        tensors |= {name: _rounded(value, dtype, name) for name, value in model.named_parameters()}
    if os.fspath(path) in names():
        warnings.warn(
            f"path: got {str(path)!r}, by which load knows a model that ships: load this file as ./{path}", stacklevel=3
        )
    write_tensors(Path(path), tensors, header)


def load(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """The model that :func:`save` wrote to `path`, or that ships by the name `path` (:mod:`diamond.weights`), in
    evaluation mode on `device`, and in single precision or double.

    Raises:
        FileNotFoundError: there is no such file or name.
        ValueError: it is a folder, or the file is not one of ours: truncated, foreign, a pickle, or of a later format; or
            it holds something else than a model.
    """
    stored, header = read_tensors(path)
    if (kind := str(header.get("kind"))) in OTHERS:
        raise ValueError(f"{path}: it holds {OTHERS[kind]}")
    tensors = {name: value.float() if value.dtype in HALVES else value for name, value in stored.items()}
    dtype = next((value.dtype for value in tensors.values() if value.is_floating_point()), torch.float32)
    try:
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced
            model = _build(header["kind"], header["config"], tensors).to(dtype)
        model.load_state_dict(tensors)
        model.metadata.update(header.get("metadata", {}))  # a view shares that of what it looks at
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path}: its tensors do not fit the {header.get('kind')} that its header describes"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model.to(device).eval()


def _rounded(parameter: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: got {dtype}, expected a floating type like torch.float16")
    rounded = parameter.detach().to(dtype)
    if not bool(rounded.isfinite().all()):
        raise ValueError(f"dtype: got {dtype}, in which {name} is not finite, expected a type that holds it")
    return rounded


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a file of ours, without its tensors; errors as in :func:`load`."""
    return _read(path, with_tensors=False)[1]


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file of ours; errors as in :func:`load`."""
    return _read(path, with_tensors=True)


def write_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes tensors and a JSON header to `path`, whole or not at all, on the disk before an older file is replaced.

    Raises:
        ValueError: the header holds what is no JSON value, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"path: got {str(path)!r}, which is a folder, expected the name of a file")
    try:
        text = json.dumps({"format": FORMAT, **header})
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: {error}, expected JSON values") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        draft.write_bytes(serialize(stored, {"diamond": text}))  # a file of the user's usual permissions
        with draft.open("r+b") as file:
            os.fsync(file.fileno())  # before it takes the place of what is whole
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: str | Path, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = locate(path)
    if path.is_dir():
        raise ValueError(f"{path}: it is a folder, expected a checkpoint file")
    if not path.is_file():
        bare = os.fspath(path) == path.stem and names()
        more = f", or the name of one that ships: {', '.join(names())}" if bare else ""
        raise FileNotFoundError(f"{path}: there is no such file, expected a checkpoint{more}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("diamond")
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors and text else {}
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            start = file.read(8)
        # ours begin with a length of eight bytes, whose last five are 0
        pickled = start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and any(start[3:]))
        what = "a pickle, which is never loaded" if pickled else "empty, truncated or foreign"
        raise ValueError(f"{path}: it is {what}, expected a checkpoint written by this package") from error
    try:
        header = json.loads(text or "{}")
    except json.JSONDecodeError:
        header = {}
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path}: it is a safetensors file of another maker or format, expected format {FORMAT}")
    return tensors, header


def describe_model(model: Model) -> dict[str, Any]:
    """The configuration that makes `model` again, but for its tensors; errors as in :func:`save`."""
    if type(model) is GaussianMixtureFlow:
        return {"interpolant": _name_of(model)}
    if type(model) is GlassFlow:
        inner = {"kind": type(model.flow).__name__, "config": describe_model(model.flow)}
        return {"flow": inner, "steps": model.steps, "solver": model.solver, "grid": model.grid}
    if type(model) is WeightedDiamondMap:
        inner = {"kind": type(model.flow_map).__name__, "config": describe_model(model.flow_map)}
        return {"flow_map": inner} | {name: getattr(model, name) for name in WEIGHTED}
    if MODELS.get(type(model).__name__) is not type(model):
        raise ValueError(
            f"model: got {type(model).__name__}, expected one of {', '.join(MODELS)}, GlassFlow, GaussianMixtureFlow, "
            "WeightedDiamondMap"
        )
    config: dict[str, Any] = {
        "interpolant": _name_of(model),
        "event_shape": list(model.event_shape),
        "net": describe(model.net),
    }
    if isinstance(model, ClassifierFree):
        config |= {"scale": model.scale, "interval": list(model.interval), "no_label": model.no_label}
    return config | ({"prediction": model.prediction} if isinstance(model, Flow) else {})


def _name_of(model: Model) -> str:
    name = model.interpolant.name
    if type(model.interpolant) is not type(interpolant_named(name)):
        raise ValueError(f"model: its interpolant is {model.interpolant!r}, expected Linear() or Cosine()")
    return name


def _build(kind: str, config: dict[str, Any], tensors: dict[str, Tensor], prefix: str = "") -> Model:
    if kind == "GaussianMixtureFlow":
        weights, means, covariances = (tensors[prefix + name] for name in ("weights", "means", "covariances"))
        return GaussianMixtureFlow(weights, means, covariances, interpolant_named(config["interpolant"]))
    if kind == "GlassFlow":
        inner = _build(config["flow"]["kind"], config["flow"]["config"], tensors, "flow." + prefix)
        return GlassFlow(
            inner, config["steps"], config["solver"], config.get("grid", "uniform")
        )  # of old, the only one
    if kind == "WeightedDiamondMap":
        inner = _build(config["flow_map"]["kind"], config["flow_map"]["config"], tensors, prefix + "flow_map.")
        return WeightedDiamondMap(inner, **{name: config[name] for name in WEIGHTED})
    place = interpolant_named(config["interpolant"]), tuple(config["event_shape"])
    net = make(config["net"])
    if kind in ("Flow", "ClassifierFree"):
        flow = Flow(net, *place, config["prediction"])
        if kind == "Flow":
            return flow
        return ClassifierFree(flow, config["scale"], tuple(config["interval"]), config["no_label"])
    return MODELS[kind](net, *place)
