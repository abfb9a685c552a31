"""What a reward or a value function gives back: one real number for each sample, with a derivative where one is wanted."""

from __future__ import annotations

import inspect

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor

__all__ = [
    "answer_of",
    "check_differentiable",
    "check_slope",
    "checked_numbers",
    "depends_on",
    "reward_dtype",
    "takes_cond",
]


def takes_cond(function: Callable[..., Any], given: int = 1) -> str:
    """How a function takes conditioning besides the `given` arguments that it gets anyway: a `reward(z, cond)`, or with
    `given=2` a `value(x_t, t, cond)`.

    "next" if the next positional argument must be given, or is called `cond`; "by name" if `cond` stands further behind,
    or is given by name alone; else "", which is false.
    """
    function = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return ""
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = [p.name for p in (*positional[given:], *(p for p in parameters if p.kind is p.KEYWORD_ONLY))]
    if "cond" in named:
        return "next" if positional[given:] and named[0] == "cond" else "by name"
    return "next" if sum(p.default is p.empty for p in positional) > given else ""


def answer_of(function: Callable[..., Any], *given: Any, cond: Any, how: str) -> Any:
    """What a function answers to the arguments that it gets anyway and, where :func:`takes_cond` said `how`, to `cond`."""
    if not how:
        return function(*given)
    return function(*given, cond) if how == "next" else function(*given, cond=cond)


def checked_numbers(answer: Any, z: Tensor, name: str) -> Tensor:
    """`answer` in float32, or float64 where the samples `z` `(N, *event)` are, if it holds one number for each.

    Raises:
        ValueError: it does not; the message starts with `name`.
    """
    expected = f"expected a tensor of shape ({len(z)},), one number a sample"
    if not isinstance(answer, Tensor):
        raise ValueError(f"{name}: it returned {type(answer).__name__}, {expected}")
    if answer.shape != z.shape[:1]:
        raise ValueError(f"{name}: it returned shape {tuple(answer.shape)}, {expected}")
    if answer.device != z.device:
        raise ValueError(
            f"{name}: it returned a tensor on {answer.device}, expected one on {z.device}, with the samples"
        )
    if answer.is_complex():
        raise ValueError(f"{name}: it returned {answer.dtype}, expected real numbers")
    answer = answer.to(reward_dtype(z))
    if len(answer) and not float(answer.detach().amax()) < torch.inf:  # the largest is NaN where any is
        bad = answer.isnan() | (answer == torch.inf)
        raise ValueError(
            f"{name}: it returned {float(answer.detach()[bad][0])} for {int(bad.sum())} of {len(z)} samples, "
            "expected finite numbers or -inf"
        )
    return answer


def check_differentiable(
    r: Tensor, z: Tensor, otherwise: str = "for a black-box reward take estimator='score'"
) -> None:
    """Refuses rewards `r` that autograd knows no derivative of with respect to the samples `z`, which are no leaf, and
    says what to do `otherwise`.

    Raises:
        ValueError: it knows none: of the rewards, of what the model makes of its states, or of anything.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            f"torch.inference_mode: it is on, and leaves no derivative; expected torch.no_grad; {otherwise}"
        )
    if not z.requires_grad:
        raise ValueError(
            "model: it returned samples that do not depend differentiably on the states, expected a differentiable "
            "model; for others take estimator='score'"
        )
    if not depends_on(r, z):
        raise ValueError(
            "reward: it returned numbers that do not depend differentiably on the samples, expected a differentiable "
            f"reward; {otherwise}"
        )


def depends_on(answer: Tensor, samples: Tensor) -> bool:
    """Whether autograd's graph leads from `answer` to `samples`, a tensor that is no leaf."""
    target, seen, ahead = samples.grad_fn, set(), [answer.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is target:
            return node is not None
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [parent for parent, _ in node.next_functions]
    return False


def check_slope(slope: Tensor) -> Tensor:
    """The derivative of rewards with respect to states `(B, *event)`, if it is finite.

    Raises:
        ValueError: it is not.
    """
    if not bool(slope.isfinite().all()):
        wrong = (~slope.isfinite()).unsqueeze(-1).flatten(1).any(1)
        raise ValueError(
            f"reward: its derivative is not finite for {int(wrong.sum())} of {len(slope)} states, expected finite numbers "
            "wherever the reward itself is finite"
        )
    return slope


def reward_dtype(x: Tensor) -> torch.dtype:
    """What rewards of samples `x` are computed in: float32, or float64 where the samples are."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
