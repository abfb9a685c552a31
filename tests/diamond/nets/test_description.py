"""Networks are made again from what describes them."""

import json

import pytest
import torch

from diamond.nets import describe, make

CLASSES = 3


def test_a_network_is_made_again_from_its_description(make_map, awake, inputs, labels):
    net = awake(make_map(CLASSES, states=1, times=3))
    again = make(json.loads(json.dumps(describe(net)))).double()
    again.load_state_dict(net.state_dict())
    x, t, (state, _), times = inputs()
    cond = labels
    assert torch.equal(again(x, t, cond, (state,), times), net(x, t, cond, (state,), times))
    assert describe(again) == describe(net)
    assert again.event_shape == net.event_shape == (2, 2, 4)
    frozen = [name for name, weights in net.named_parameters() if not weights.requires_grad]
    assert frozen == [name for name, weights in again.named_parameters() if not weights.requires_grad]


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="^net: got 'Unet', expected one of .*ResidualMLP, Transformer"):
        make({"name": "Unet", "config": {}})
    with pytest.raises(ValueError, match="^net: got Linear, expected one of .*ResidualMLP, Transformer"):
        describe(torch.nn.Linear(2, 2))
