"""Judges by name: small classifiers that had no part in making a sample, and say how good it is.

Those that ship with the package were trained by `examples/recipes/judges.py` on the training split of their data. They
know class and quality; they do not tell memorised data from new. Published weights of CIFAR's residual networks judge as
well (:class:`ResidualJudge`). Figures in one judge's features compare only with figures in the same judge's.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .classifier import Classifier
from .judge import Judge, read_judge
from .published import is_published
from .residual import ResidualJudge, read_residual
from .training import accuracy, train_judge

__all__ = ["Classifier", "Judge", "ResidualJudge", "accuracy", "load", "names", "train_judge"]

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of the judges that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def load(name: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """A judge, in float32, frozen and in evaluation mode on `device`.

    Arguments:
        name: one of :func:`names`, a file that :meth:`Judge.save` wrote, or one of published weights, `.npz` or
            `.safetensors`, for a :class:`ResidualJudge`.
        device: where it judges.

    Raises:
        FileNotFoundError: there is no judge of that name, and no such file.
        ValueError: the file is damaged, or holds no judge.
    """
    if str(name) in names():
        return read_judge(_FOLDER / f"{name}.safetensors", device)
    if not Path(name).is_file():
        raise FileNotFoundError(f"judge: got {str(name)!r}, expected one of {', '.join(names())}, or a judge's file")
    return read_residual(name, device) if is_published(name) else read_judge(name, device)
