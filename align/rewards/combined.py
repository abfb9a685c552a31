r"""Several rewards by name, each with a weight, :math:`r(z) = \sum_i w_i r_i(z)`, and what each of them says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .composition import Term, WeightedSum

__all__ = ["Combined"]


class Combined(WeightedSum):
    """The weighted sum of named rewards; its range and derivative are those of the parts.

    A part of weight 0 is reported and changes nothing: a held-out reward to watch while others are climbed. As in every
    sum, parts without a derivative are refused where one is asked for and others have it, by name, unless their
    weight is 0.

    Arguments:
        rewards: for each name a callable reward, of weight 1, or `(reward, weight)`.

    Raises:
        ValueError: no rewards, a name that is no text, a part that is neither of these two, a weight that is not a
            finite number; when called, an answer that is no reward: the message names the part.
    """

    def __init__(self, rewards: Mapping[str, Callable[..., Any] | tuple[Callable[..., Any], float]]) -> None:
        if not isinstance(rewards, Mapping) or not rewards:
            came = "an empty one" if isinstance(rewards, Mapping) else type(rewards).__name__
            raise ValueError(f"rewards: got {came}, expected a dictionary of names and rewards")
        super().__init__([_term(name, part) for name, part in rewards.items()])
        self.names = list(rewards)

    def components(self, z: Tensor, cond: Any = None) -> dict[str, Tensor]:
        """What each part says of samples `(N, *event)`, unweighted: `(N,)` each, in the dictionary's order."""
        return dict(zip(self.names, self.answers(z, cond), strict=True))

    def total(self, components: Mapping[str, Tensor]) -> Tensor:
        """The reward `(N,)` that :meth:`components` add up to.

        Raises:
            ValueError: the names are not those of the parts.
        """
        if set(components) != set(self.names):
            raise ValueError(f"components: got {', '.join(components)}, expected {', '.join(self.names)}")
        return self.weigh([components[name] for name in self.names])


def _term(name: Any, part: Any) -> Term:
    if not isinstance(name, str) or not name:
        raise ValueError(f"rewards: got the name {name!r}, expected a text that is not empty")
    reward, weight = part if isinstance(part, (tuple, list)) and len(part) == 2 else (part, 1.0)
    if not callable(reward):
        raise ValueError(
            f"reward {name!r}: got {type(reward).__name__}, expected a callable reward(z) -> (N,), or (reward, weight)"
        )
    return Term(weight, reward, name)
