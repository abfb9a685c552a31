"""Rewards of a pipeline's pictures as one writes them on a command line: `clip`, `0.05*pick+image-reward`.

A specification is a sum as in :mod:`diamond.cli.rewards`, of terms that see decoded images `(N, 3, H, W)` in [-1, 1] and,
where they ask for them, the prompts. Those of pretrained networks take a folder or the hub's id of another network behind a
colon, `clip:owner/name`, without `+` or `*` in it. Of such a folder

* `hps` and `image-reward` take the tokenizer too, where it holds one;
* `aesthetic` takes the head, and the network that looks at images from the folder's own `clip`, where there is one;
* `composite` takes the parts `imagereward`, `hps`, `pickscore` and `clip` from folders of these names in it.

`judge:MODEL@URL` asks a model that sees images, over a service that speaks OpenAI's chat protocol; its key is what the
environment calls `OPENAI_API_KEY`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .rewards import OF_A_CLASS, SIMPLE, imported, parse_terms

__all__ = ["NAMES", "check_reward", "picture_reward"]

PRETRAINED = {
    "clip": "CLIPScore",
    "pick": "PickScore",
    "hps": "HPSv2",
    "image-reward": "ImageReward",
    "aesthetic": "LAIONAesthetic",
}
TOKENIZERS = {"hps": "processor", "image-reward": "tokenizer"}  # what their classes call where the tokenizer is
PARTS = {"imagereward": "image-reward", "hps": "hps", "pickscore": "pick", "clip": "clip"}  # of the composite
NAMES = (
    *PRETRAINED,
    "composite",
    "judge:MODEL@URL",
    *SIMPLE,
    "mean-colour:NAME",
    "module.path:attribute",
    "file.py:attribute",
)


def check_reward(text: str) -> list[tuple[float, str]]:
    """The factors and names of a specification, if all of them can be rewards. Nothing is loaded.

    Raises:
        ValueError: no such sum, or an unknown name.
    """
    terms = parse_terms(text, NAMES)
    for _, name in terms:
        kind, colon, rest = name.partition(":")
        if kind in OF_A_CLASS:
            raise ValueError(
                f"reward: got {name!r}, whose classifier learns from a model's data, and a pipeline has none; expected one "
                f"of {', '.join(NAMES)}"
            )
        if colon and not rest or not (colon or kind in (*SIMPLE, *PRETRAINED, "composite")):
            raise ValueError(f"reward: got {name!r}, expected one of {', '.join(NAMES)}")
        if kind == "judge" and not all(rest.partition("@")):
            raise ValueError(
                f"reward: got {name!r}, expected a model and a service, like judge:MODEL@http://HOST:8000/v1"
            )
    return terms


def picture_reward(text: str, device: Any = "cpu", network_device: Any = None) -> Callable[..., Any]:
    """The reward of images and prompts that `text` describes, with its parts by name where it has several; for images on
    `device`, with pretrained networks on `network_device`, there as well by default.

    Raises:
        FileNotFoundError: a network that cannot be had.
        ImportError: a package is missing.
        ValueError: no such reward, or one that is not callable.
    """
    from align.rewards import Combined

    made = [(name, _reward(name, device, network_device or device), factor) for factor, name in check_reward(text)]
    if len(made) == 1 and made[0][2] == 1:
        return made[0][1]
    parts: dict[str, tuple[Callable[..., Any], float]] = {}
    for name, reward, factor in made:
        inner = [(name, reward, 1.0)]
        if isinstance(reward, Combined):  # its parts are told apart
            inner = [(f"{name}.{term.name}", term.reward, term.weight) for term in reward.terms]
        for own, part, weight in inner:
            parts[own] = part, factor * weight + (parts[own][1] if own in parts else 0.0)
    return Combined(parts)


def _reward(name: str, device: Any, network_device: Any) -> Callable[..., Any]:
    from torch.nn import Module

    from align import rewards

    kind, _, rest = name.partition(":")
    if kind in PRETRAINED:
        from align.rewards import pretrained

        return getattr(pretrained, PRETRAINED[kind])(**_sources(kind, rest), device=network_device)
    if kind == "composite":
        from align.rewards.pretrained import composite

        folders = {part: Path(rest) / part for part in PARTS} if rest else {}
        return composite(
            models={p: _sources(PARTS[p], str(folder)) for p, folder in folders.items()}, device=network_device
        )
    if kind == "judge":
        from align.rewards.vlm_judge import VLMJudge

        model, _, url = rest.partition("@")
        return VLMJudge(url, model)
    if name in SIMPLE:
        reward: Any = getattr(rewards, SIMPLE[name])()
    else:
        reward = rewards.MeanColour(rest) if kind == "mean-colour" else imported(kind, rest)
    return reward.to(device) if isinstance(reward, Module) else reward


def _sources(kind: str, source: str) -> dict[str, Any]:
    """Where a network and what goes with it are loaded from, as arguments of its class."""
    if not source:
        return {}
    folder = Path(source).expanduser()
    if kind == "aesthetic":
        return {"head": source} | ({"model": folder / "clip"} if (folder / "clip").is_dir() else {})
    own = kind in TOKENIZERS and any((folder / f"{name}.json").is_file() for name in ("tokenizer", "tokenizer_config"))
    return {"model": source} | ({TOKENIZERS[kind]: source} if own else {})
