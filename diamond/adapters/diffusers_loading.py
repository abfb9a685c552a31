"""From what diffusers keeps, an object or a folder, to the pieces of a flow."""

from __future__ import annotations

import json

from pathlib import Path
from typing import Any

from torch import nn

from ..interpolant import Interpolant
from ..validation import check_choice
from .diffusers_network import MODELS, DiffusersNetwork
from .diffusers_path import PREDICTIONS, log_snr_of, prediction_of

__all__ = ["load_network"]


def load_network(
    source: Any,
    prediction: str | None = None,
    scheduler: Any = None,
    event_shape: tuple[int, ...] | None = None,
    no_label: int | None = None,
    interpolant: Interpolant | None = None,
) -> DiffusersNetwork:
    """The network of a model, a pipeline or a folder; arguments as in :meth:`diamond.Flow.from_diffusers`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder, model or scheduler of another kind.
    """
    model, kept = _from_folder(Path(source)) if isinstance(source, (str, Path)) else _from_object(source)
    scheduler = kept if scheduler is None else scheduler
    if prediction is None:
        prediction = prediction_of(scheduler)
    check_choice("prediction", prediction, PREDICTIONS)
    if event_shape is None:
        size = model.config.get("sample_size")
        if size is None:
            raise ValueError(
                "event_shape: got None, but the model tells no sample_size; expected the shape of one sample"
            )
        rows, columns = (size, size) if isinstance(size, int) else size
        event_shape = (model.config["in_channels"], rows, columns)
    steps = 1000 if scheduler is None else int(scheduler.config.get("num_train_timesteps", 1000))
    table = None if prediction == "flow" else log_snr_of(scheduler)
    return DiffusersNetwork(model, event_shape, prediction, table, steps, no_label, interpolant)


def _from_object(source: Any) -> tuple[Any, Any]:
    """A model and the scheduler that came with it, if any."""
    for name in ("unet", "transformer"):
        if isinstance(getattr(source, name, None), nn.Module):
            return getattr(source, name), source.scheduler
    if type(source).__name__ not in MODELS:
        raise ValueError(
            f"model: got {type(source).__name__}, expected a folder, a pipeline of diffusers, or one of {', '.join(MODELS)}"
        )
    return source, None


def _from_folder(folder: Path) -> tuple[Any, Any]:
    """The model and the scheduler that diffusers saved to a folder: a pipeline's, or that of a model alone."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder, expected one that diffusers saved to")
    place = next((folder / name for name in ("unet", "transformer") if (folder / name).is_dir()), folder)
    kind = _read(place / "config.json").get("_class_name")
    import diffusers

    name = check_choice(f"{place / 'config.json'}", str(kind), MODELS)
    try:
        model = getattr(diffusers, name).from_pretrained(place, use_safetensors=True, local_files_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{place}: its weights cannot be read, expected a whole safetensors file ({error})") from error
    schedules = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    if not (schedules / "scheduler_config.json").is_file():
        return model, None
    config = _read(schedules / "scheduler_config.json")
    flow = "FlowMatch" in str(config.get("_class_name"))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.DDPMScheduler
    return model, scheduler.from_config(config)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file, expected a folder that diffusers saved to")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: it is no JSON, expected a configuration of diffusers") from error
    return config if isinstance(config, dict) else {}
