"""Models that are no flow are refused, and diffusers is imported only when asked for."""

import sys

from importlib.util import find_spec, module_from_spec

import pytest
import torch

from diamond.adapters.diffusers_network import DiffusersNetwork
from diamond.flow import Flow
from diamond.nets import ResidualMLP, grow

diffusers = pytest.importorskip("diffusers")
ROWS = 3


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [({}, {"prediction": "noise"}, "prediction: got 'noise', expected one of epsilon, v_prediction, sample, flow"),
     ({}, {"event_shape": (3, 8, 8)}, r"event_shape: got \(3, 8, 8\) for a model of 2 channels in"),
     ({"out_channels": 3}, {}, "event_shape: got .* and 3 out"),
     ({"sample_size": None}, {}, "event_shape: got None, but the model tells no sample_size"),
     ({"time_embedding_type": "fourier"}, {}, "model: got one with time_embedding_type='fourier'"),
     ({"class_embed_type": "timestep"}, {}, "model: got one with class_embed_type='timestep'"),
     ({}, {"scheduler": "flow", "prediction": "epsilon"}, "scheduler: got a FlowMatchEulerDiscreteScheduler")],
)  # fmt: skip
def test_models_that_are_no_flow_are_refused(options, arguments, message, makers):
    if "scheduler" in arguments:
        arguments = {**arguments, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    with pytest.raises(ValueError, match=f"^{message}"):
        Flow.from_diffusers(makers["unet"](**options), **arguments)


def test_other_networks_are_refused(makers):
    with pytest.raises(ValueError, match="^model: got ResidualMLP, expected a folder, a pipeline of diffusers, or one"):
        Flow.from_diffusers(ResidualMLP((2,)))
    with pytest.raises(ValueError, match="^log_snr: got 2 steps, expected two or more finite numbers that decrease"):
        DiffusersNetwork(makers["unet"](), (2, 8, 8), log_snr=[0.0, 1.0])


def test_further_inputs_for_a_network_without_are_refused(seeded, sown, makers, states):
    net, x = DiffusersNetwork(sown(makers["unet"]), (2, 8, 8), "flow"), states().float()
    t = torch.rand(ROWS, generator=seeded())
    with pytest.raises(ValueError, match="^states: got 1 states beside x, this network takes 0"):
        net(x, t, None, (x,))
    with pytest.raises(ValueError, match="^times: got 1 times beside t, this network takes 0"):
        net(x, t, None, (), (t,))
    with pytest.raises(ValueError, match="^cond: got a tensor, but this network was made without classes"):
        net(x, t, torch.zeros(ROWS).long())
    with pytest.raises(ValueError, match="^net: got a .* already, expected the network of a flow"):
        grow(grow(net, 0, 1), 1, 3)


@pytest.mark.parametrize("name", ["diffusers_inputs", "diffusers_network", "diffusers_loading"])
def test_diffusers_is_imported_only_when_asked_for(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # to import it is an error now
    spec = find_spec(f"diamond.adapters.{name}")
    spec.loader.exec_module(module_from_spec(spec))
