"""What the tests of sequential Monte Carlo share: value functions, good and bad.

A thousand independent populations run side by side in one call, so that each claim is a z-score. Claims of exactness
are made on mild tilts, where those scores have power; a claim of efficiency needs a hard one.
"""

import pytest
import torch


def exact(model, reward):
    return {"value": lambda x, t: reward.value(model, x, t)}


def plugin(model, reward):
    return {"value": lambda x, t: reward(model.denoise(x, t))}


def junk(model, reward):
    return {"value": lambda x, t: torch.sin(3 * x[:, 0]) - x[:, 1] * t}


def nothing(model, reward):
    return {"value": lambda x, t: torch.zeros_like(t)}


def dice(model, reward):
    """Another value at each call: only an estimate that is kept and moved with its particle cancels."""
    generator = torch.Generator().manual_seed(99)
    return {"value": lambda x, t: torch.randn(len(x), generator=generator, dtype=x.dtype)}


@pytest.fixture
def values():
    """Options of a run that settle its value function, by name: each of a model and a reward."""
    return {make.__name__: make for make in (exact, plugin, junk, nothing, dice)} | {"4 draws": lambda *_: {"mc": 4}}
