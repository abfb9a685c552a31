"""From a hub id, a folder or a file to tensors and configurations. Only safetensors and JSON are read, never a pickle.

A name is a folder or a file if there is one, else the hub's id of a repository: fetched unless `local_files_only` is
set, or the environment's `HF_HUB_OFFLINE`, and then looked for among what was fetched before.
"""

from __future__ import annotations

import json

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = [
    "common_prefix", "filled", "find", "load_tokenizer", "local", "read_json", "read_processor", "read_tensors", "readable",
    "transformers",
]  # fmt: skip

INSTALL = "pip install 'diamond-maps[rewards]'"


def transformers() -> Any:
    """The package, imported now.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError as error:
        raise ImportError(
            f"transformers: it is not installed, expected for rewards of pretrained networks; {INSTALL}"
        ) from error


def find(model: str | Path, name: str, local_files_only: bool = False) -> Path | None:
    """Where file `name` of a folder or a repository lies on this machine, or None where it has no such file.

    Raises:
        FileNotFoundError: there is no such folder, or no such repository to be had.
        ValueError: a repository that is closed to us.
    """
    folder = local(model)
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    transformers()
    hub = import_module("huggingface_hub")
    try:
        return Path(hub.hf_hub_download(str(model), name, local_files_only=local_files_only))
    except hub.errors.EntryNotFoundError:
        return None
    except Exception as error:
        raise sentence(model, error) from error


def local(model: str | Path) -> Path | None:
    """The folder or file of that name, or None for a repository's id.

    Raises:
        FileNotFoundError: a path where there is nothing.
        ValueError: a pickle.
    """
    path = Path(model).expanduser()
    if path.suffix in (".bin", ".ckpt", ".pkl", ".pt", ".pth"):
        raise ValueError(
            f"{path}: got a pickle, which may run any code and is never loaded, expected a .safetensors file; "
            "safetensors.torch.save_file writes one from its tensors"
        )
    if path.exists():
        return path
    text = str(model)
    if (
        isinstance(model, Path)
        or text.startswith((".", "~", "/"))
        or text.count("/") != 1
        or text.endswith(".safetensors")
    ):
        raise FileNotFoundError(
            f"{text}: there is no such folder or file, expected one, or the hub's id of a repository like 'owner/name'"
        )
    return None


def sentence(model: str | Path, error: BaseException) -> Exception:
    """What to raise for a model that cannot be had, in one sentence: why, and what to do."""
    causes, cause = [], error
    while cause is not None:
        causes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    if "GatedRepoError" in causes:
        return ValueError(
            f"{model}: its repository is gated, expected one that is open to you; accept its terms on its page, and log "
            "in with `hf auth login`"
        )
    if "RepositoryNotFoundError" in causes or "HFValidationError" in causes:
        return FileNotFoundError(
            f"{model}: there is no such folder and the hub has no such repository, or it is a private one, expected a "
            "folder or a repository's id; check its spelling, or log in with `hf auth login`"
        )
    if any("Offline" in name or "LocalEntryNotFound" in name or "Connect" in name for name in causes):
        return _not_here(model)
    reason = " ".join(str(error).split())
    return ValueError(f"{model}: it cannot be loaded, expected a model's configuration and safetensors ({reason})")


def _not_here(model: str | Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"{model}: there is no such folder, and not all that is needed of such a repository is on this machine or to be "
        "had from the hub, expected either; check its spelling and the connection, fetch it once with `hf download`, or "
        "give a folder's path"
    )


@contextmanager
def readable(model: str | Path) -> Iterator[None]:
    """Turns what transformers raises about a model into one sentence."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        raise sentence(model, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """A configuration.

    Raises:
        ValueError: the file holds none.
    """
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: it is no JSON, expected a configuration ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: got a {type(config).__name__}, expected a configuration, a JSON object")
    return config


def read_processor(model: str | Path, local_files_only: bool = False) -> dict[str, Any] | None:
    """An image processor's configuration, from either of the files that transformers keeps it in, or None."""
    path = find(model, "preprocessor_config.json", local_files_only)
    if path is not None:
        return read_json(path)
    path = find(model, "processor_config.json", local_files_only)
    return None if path is None else read_json(path).get("image_processor")


def read_tensors(model: str | Path, local_files_only: bool = False) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a folder's or repository's `model.safetensors`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    here = local(model)
    path = here if here is not None and here.is_file() else find(model, "model.safetensors", local_files_only)
    if path is None:
        raise (
            _not_here(model)
            if here is None
            else FileNotFoundError(f"{model}: it holds no model.safetensors, expected one")
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: it cannot be read, expected a safetensors file ({error})") from error


def load_tokenizer(model: str | Path, local_files_only: bool = False) -> Any:
    """The tokenizer of a folder or repository.

    Raises:
        FileNotFoundError, ValueError: there is none.
    """
    local(model)
    with readable(model):
        return transformers().AutoTokenizer.from_pretrained(str(model), local_files_only=local_files_only)


def filled(kind: Any, config: Any, state: Mapping[str, Tensor], **settings: Any) -> Any:
    """A network of transformers of that kind and configuration with exactly these tensors.

    Raises:
        ValueError: there are others, or some are missing.
    """
    network, report = kind.from_pretrained(
        None, config=config, state_dict=dict(state), output_loading_info=True, **settings
    )
    for what in ("missing", "unexpected"):
        if names := sorted(report[f"{what}_keys"]):
            raise ValueError(f"state: got {what} tensors {', '.join(names[:3])}, {len(names)} of them, expected none")
    return network


def common_prefix(tensors: dict[str, Tensor], name: str, model: str | Path) -> str:
    """What stands before `name` among the names of `tensors`, like 'model.' or nothing.

    Raises:
        ValueError: there is no such tensor.
    """
    for key in tensors:
        if key == name or key.endswith(f".{name}"):
            return key[: len(key) - len(name)]
    raise ValueError(f"{model}: it holds no tensor {name!r}, expected one, in the layout of the reward's authors")
