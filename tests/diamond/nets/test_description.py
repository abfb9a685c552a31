"""Networks are made again from what describes them."""

import json

import pytest
import safetensors.torch
import torch

from diamond.flow import Flow
from diamond.nets import describe, grow, make

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


class Own(torch.nn.Linear):
    event_shape = (2,)

    def __init__(self):
        super().__init__(2, 2)

    def forward(self, x, t):
        return super().forward(x)


def test_a_model_around_a_network_of_ones_own_is_told_how_its_weights_are_kept(tmp_path):
    """What the message says is done: the model that is made again is the same."""
    flow = Flow(Own())
    with pytest.raises(
        ValueError, match=r"^net: got Own, .* safetensors.torch.save_model\(net, path\), .*load_model"
    ) as told:
        flow.save(tmp_path / "flow")
    assert "\n" not in str(told.value)
    safetensors.torch.save_model(flow.net, tmp_path / "net")
    again = Flow(Own())
    safetensors.torch.load_model(again.net, tmp_path / "net")
    x = torch.randn(3, 2)
    assert torch.equal(again.velocity(x, 0.5), flow.velocity(x, 0.5))
    with pytest.raises(ValueError, match="^net: got Own, expected one of [A-Za-z, ]*$"):
        grow(flow.net, 1, 3)
