"""What the tests of rewards on CLIP networks share: each kind of reward on the tiny network."""

import pytest
import torch

from align.rewards import CLIPScore, HPSv2, PickScore

KINDS = {"clip": CLIPScore, "pick": PickScore, "hps": HPSv2}


@pytest.fixture
def made():
    """Makes a kind of reward from a folder."""

    def make(kind, folder, **settings):
        settings = {"local_files_only": True} | settings
        if kind == "hps":
            settings = {"processor": folder} | settings
        return KINDS[kind](folder, **settings)

    return make


@pytest.fixture
def scale():
    """What each kind multiplies the cosine by."""
    return {"clip": 100.0, "pick": float(torch.tensor(4.0).exp()), "hps": 1.0}
