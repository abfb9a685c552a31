"""`diamond info`: what a file of ours holds, or a model that ships."""

from __future__ import annotations

import json

from pathlib import Path
from typing import Any

from .options import ModelArgument

__all__ = ["describe", "info"]


def info(file: ModelArgument) -> None:
    """Say what a file holds: a model, an interrupted run, or aligned samples; or what a model that ships is."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=str(file), title_justify="left")
    for name, value in describe(file).items():
        table.add_row(name, value)
    Console().print(table)


def describe(path: Path) -> dict[str, str]:
    """What is worth knowing of the file, by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not one of ours.
    """
    from diamond.checkpoint import read_header
    from diamond.weights import locate, names

    header = read_header(path)
    file = locate(path)
    kind = str(header.get("kind"))
    tell = {"alignment": _alignment, "training state": _state}.get(kind, _model)
    rows = {"kind": kind, **tell(file, header), "size": _size(file.stat().st_size)}
    return rows | ({"card": str(file.with_suffix(".md"))} if str(path) in names() else {})


def _model(path: Path, header: dict[str, Any]) -> dict[str, str]:
    from diamond.checkpoint import load

    model = load(path)
    rows = {"interpolant": model.interpolant.name, "event shape": _times(model.event_shape)}
    config = header["config"]
    while "flow" in config or "flow_map" in config:  # a view around its flow or flow map
        inner = config.get("flow") or config["flow_map"]
        rows |= {name: json.dumps(value) for name, value in config.items() if value is not inner}
        rows |= {"around": inner["kind"]}
        config = inner["config"]
    if "net" in config:
        rows["network"] = _network(config["net"])
    if "prediction" in config:
        rows["prediction"] = config["prediction"]
    rows["parameters"] = f"{sum(parameter.numel() for parameter in model.parameters()):,}"
    return rows | {"metadata": _pairs(header.get("metadata") or {}) or "none"}


def _alignment(path: Path, header: dict[str, Any]) -> dict[str, str]:
    from align import Alignment

    result = Alignment.load(path)
    rows = {"method": result.method, "law": result.law, "settings": _pairs(result.settings)}
    rows["samples"] = f"{_times(result.samples.shape[:2])} of shape {_times(result.samples.shape[2:])}"
    rows["rewards"] = f"from {float(result.rewards.min()):.4g} to {float(result.rewards.max()):.4g}"
    if result.log_z is not None:
        rows["log Z"] = ", ".join(f"{value:.4g}" for value in result.log_z.tolist())
    costs = {"nfe": result.nfe, "nfe backward": result.nfe_backward, "reward calls": result.reward_calls}
    return rows | {"cost": _pairs({**costs, "seconds": round(result.seconds, 2)})}


def _state(path: Path, header: dict[str, Any]) -> dict[str, str]:
    settings = header.get("settings", {})
    return {"step": f"{header.get('step')} of {settings.get('steps')}", "settings": _pairs(settings)}


def _network(net: dict[str, Any]) -> str:
    inside = {key: _network(value) if isinstance(value, dict) else value for key, value in net["config"].items()}
    return f"{net['name']} ({_pairs(inside)})"


def _pairs(values: dict[str, Any]) -> str:
    told = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in told.items())


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _size(size: int) -> str:
    return f"{size:,} bytes" if size < 10_000 else f"{size / 1e6:.2f} MB"
