"""Rewards as one writes them on a command line: `brightness`, `2.0*symmetry+class:3`, `mypackage.rewards:sharpness`.

A specification is a sum of terms, each a name with a factor before it or none. A name is one of those below, where K is
a class (its log-probability, or its logit's margin over the others) and NAME a colour (what the mean colour is drawn
to, like orange), or `module.path:attribute`, any importable Python callable `reward(z) -> (N,)`; the current folder is
importable, and `path/file.py:attribute` is one of a file, whose path may have blanks in it, but no `+` or `*`. A
pipeline's pictures have rewards of their own besides: see :mod:`diamond.cli.picture_rewards`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diamond.data import Data

__all__ = ["NAMES", "OF_A_CLASS", "OF_PICTURES", "SIMPLE", "imported", "parse_terms", "reward_named"]

SIMPLE = {
    "brightness": "Brightness",
    "contrast": "Contrast",
    "symmetry": "Symmetry",
    "sparsity": "Sparsity",
    "jpeg-size": "JPEGSize",
}
OF_PICTURES = ("clip", "pick", "hps", "image-reward", "aesthetic", "composite", "judge")
OF_A_CLASS = {"class": "ClassifierLogProbability", "margin": "ClassMargin"}
NAMES = (
    *SIMPLE,
    "mean-colour:NAME",
    *(f"{name}:K" for name in OF_A_CLASS),
    "module.path:attribute",
    "file.py:attribute",
)
TERM = re.compile(
    r"(?:(?P<factor>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\*)?(?P<name>(?:(?:~|\.{1,2})?/)*[a-z_][\w.:/~@-]*(?: +[\w.:/~@-]+)*)",
    re.IGNORECASE,
)


def parse_terms(text: str, names: Sequence[str] = NAMES) -> list[tuple[float, str]]:
    """The factors and names of `2.0*brightness+symmetry`; `names` are those that a message lists.

    Raises:
        ValueError: `text` is no such sum.
    """
    terms, rest = [], _squeezed(text)
    while match := TERM.match(rest):
        terms.append((float(match["factor"] or 1), match["name"]))
        rest = rest[match.end() :]
        if not rest:
            return terms
        if not rest.startswith("+"):
            break
        rest = rest[1:]
    raise ValueError(f"reward: got {text!r}, expected a sum like '2.0*brightness+symmetry' of {', '.join(names)}")


def _squeezed(text: str) -> str:
    """`text` without blanks around `+` and `*` and behind a sign; those in the name of a file stay."""
    return re.sub(r"(^|\+)-\s+", r"\1-", re.sub(r"\s*([+*])\s*", r"\1", text.strip()))


def reward_named(text: str, data: Callable[[], Data]) -> Callable[..., Any]:
    """The reward that `text` describes, `reward(z) -> (N,)`; `data` is called if a classifier is to be trained.

    Raises:
        ValueError: no such reward, or one that is not callable.
    """
    from align.rewards.composition import Term, WeightedSum

    terms = [Term(factor, _reward(name, data), name) for factor, name in parse_terms(text)]
    return terms[0].reward if len(terms) == 1 and terms[0].weight == 1 else WeightedSum(terms)


def _reward(name: str, data: Callable[[], Data]) -> Callable[..., Any]:
    from align import rewards

    if name in SIMPLE:
        return getattr(rewards, SIMPLE[name])()
    module, colon, attribute = name.partition(":")
    if module in OF_A_CLASS and colon:
        return _class_reward(module, attribute, data)
    if module == "mean-colour" and colon:
        return rewards.MeanColour(attribute)
    if module in OF_PICTURES:
        raise ValueError(
            f"reward: got {name!r}, which judges a pipeline's pictures, expected one of {', '.join(NAMES)}"
        )
    if colon and attribute:
        return imported(module, attribute)
    raise ValueError(f"reward: got {name!r}, expected one of {', '.join(NAMES)}{_difference(name)}")


def _difference(name: str) -> str:
    """What to say of a name that was meant as a difference: `-` is a part of names."""
    name = name.replace(" ", "")
    first = next((known for known in SIMPLE if name.startswith(f"{known}-")), None)
    return "" if first is None else f"; a difference is a sum, like {first}+-1*{name.removeprefix(f'{first}-')}"


def _class_reward(kind: str, label: str, data: Callable[[], Data]) -> Callable[..., Any]:
    from align import rewards

    from .classifier import train_classifier

    if not label.isdecimal():
        raise ValueError(f"reward: got '{kind}:{label}', expected a whole number, like {kind}:3")
    part = data()
    if part.labels is not None and int(label) >= part.classes:
        raise ValueError(f"reward: got '{kind}:{label}', expected a class of {part.name} from 0 to {part.classes - 1}")
    return getattr(rewards, OF_A_CLASS[kind])(train_classifier(part), int(label))


def imported(module: str, attribute: str) -> Callable[..., Any]:
    """The reward called `attribute` in an importable module or a file `.py`; of a class, one made without arguments.

    Raises:
        ValueError: there is none.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = _of_file(Path(module).expanduser()) if module.endswith(".py") else importlib.import_module(module)
    except ImportError as error:
        hint = _difference(f"{module}:{attribute}")
        raise ValueError(
            f"reward: got '{module}:{attribute}', but {module} cannot be imported ({error}){hint}"
        ) from error
    try:
        reward = getattr(found, attribute)
        if inspect.isclass(reward):  # a class of rewards: one made without arguments
            reward = reward()
    except (AttributeError, TypeError) as error:
        raise ValueError(f"reward: got '{module}:{attribute}', but {error}") from error
    if not callable(reward):
        raise ValueError(
            f"reward: '{module}:{attribute}' is of type {type(reward).__name__}, expected a callable reward(z) -> (N,)"
        )
    return reward


def _of_file(path: Path) -> ModuleType:
    """The file as a module, run once however many terms name it; what stands beside it is importable."""
    path = path.resolve()
    if (name := str(path)) in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ImportError("there is no such file")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half of it is none
        raise
    return module
