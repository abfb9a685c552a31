"""What may be said to a pipeline's `encode_prompt` beside the prompts."""

from __future__ import annotations

import inspect

from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ["check_embeddings", "check_encoding", "one_each"]

OURS = ("prompt", "negative_prompt", "device", "do_classifier_free_guidance", "num_images_per_prompt")
TEXTS = ("prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3")


def check_encoding(pipe: Any, encoding: dict[str, Any], count: int, guided: bool) -> dict[str, Any]:
    """Arguments of `encode_prompt` for so many prompts; of texts there is then one for each.

    Raises:
        ValueError: it has no such argument, or it is not to be given here, or there are more or fewer texts.
    """
    taken = [name for name in inspect.signature(pipe.encode_prompt).parameters if name not in OURS]
    for name, value in encoding.items():
        if name not in taken:
            raise ValueError(
                f"{name}: got {value!r}, which is no argument of from_pipeline, nor one of {type(pipe).__name__}"
                f".encode_prompt that it passes on, expected one of {', '.join(taken)}"
            )
        if name.startswith("negative_") and value is not None and not guided:
            raise ValueError(f"{name}: got {value!r}, but without guidance it is not heard, expected none")
    return {name: one_each(name, value, count) if name in TEXTS else value for name, value in encoding.items()}


def one_each(name: str, texts: str | Sequence[str] | None, count: int) -> list[str] | None:
    """A text for each of so many prompts, of one or as many.

    Raises:
        ValueError: there are more or fewer.
    """
    if texts is None:
        return None
    texts = [texts] if isinstance(texts, str) else list(texts)
    if len(texts) not in (1, count):
        raise ValueError(f"{name}: got {len(texts)} for {count} prompts, expected one for all, or {count}")
    return texts * (count if len(texts) == 1 else 1)


def check_embeddings(pipe: Any, embeddings: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Embeddings of so many prompts.

    Raises:
        ValueError: they are of more or fewer.
    """
    for name, table in embeddings.items():
        if len(table) != count:
            raise ValueError(
                f"prompt: got {len(table)} rows of {name} from {type(pipe).__name__}.encode_prompt, expected {count}, "
                "one for each prompt"
            )
    return embeddings
