"""Of the evaluations of a weighted map only the proposals' are differentiated: as its network counts itself."""

import pytest
import torch

import align

from diamond.degeneracy import DegenerateWeights
from diamond.flow_map import FlowMap
from diamond.weighted_map import WeightedDiamondMap

pytestmark = pytest.mark.filterwarnings(f"ignore::{DegenerateWeights.__module__}.{DegenerateWeights.__name__}")

PARTICLES, STEPS, MC = 4, 3, 2


class Counting(torch.nn.Module):
    """A network of float64 that counts the rows it sees, and once each of those that a derivative comes back through."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(0.7, dtype=torch.float64))
        self.forward_rows, self.visited = 0, {}

    @property
    def backward_rows(self):
        return sum(self.visited.values())

    def forward(self, x, t, cond=None, times=()):
        self.forward_rows += len(x)
        call, pull = self.forward_rows, torch.tanh(x.flip(-1)) - self.gain * x
        if pull.requires_grad:
            pull.register_hook(lambda slope: self.visited.update({call: len(slope)}))
        return pull


@pytest.fixture
def model():
    return WeightedDiamondMap(FlowMap(Counting()), proposals=3)


DIFFERENTIATED = MC * PARTICLES * (STEPS - 1)  # the first step has no gradient of draws

RUNS = {  # what is differentiated: a proposal a draw, or a mean
    "guide": (lambda *a, **o: align.guide(*a, PARTICLES, STEPS, MC, **o), DIFFERENTIATED),
    "guide-plugin": (lambda *a, **o: align.guide(*a, PARTICLES, STEPS, estimator="plugin", **o), DIFFERENTIATED // MC),
    "guide-score": (lambda *a, **o: align.guide(*a, PARTICLES, STEPS, MC, estimator="score", **o), 0),
    "smc": (lambda *a, **o: align.smc(*a, PARTICLES, STEPS + 1, mc=MC, proposal="reparam", **o), DIFFERENTIATED),
    "best_of_n": (lambda *a, **o: align.best_of_n(*a, PARTICLES, **o), 0),
}


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("name", RUNS)
def test_only_what_is_differentiated_is_counted_as_that(name, chunk, model, mild):
    run, differentiated = RUNS[name]
    out = run(model, mild, batch=2, chunk=chunk)
    assert model.nfe == model.flow_map.net.forward_rows == 2 * out.nfe
    assert 2 * out.nfe_backward == model.flow_map.net.backward_rows == 2 * differentiated


@pytest.mark.parametrize("face", ["posterior", "velocity", "denoise", "score", "weighted_posterior", "posterior_terms"])
def test_each_face_counts_what_it_leaves_to_differentiate(face, model, seeded):
    x, net = torch.randn(5, 2, generator=seeded(), dtype=torch.float64), model.flow_map.net
    getattr(model, face)(x, 0.4)
    with torch.no_grad():
        getattr(model, face)(x.clone().requires_grad_(), 0.4)
    assert model.nfe_backward == net.backward_rows == 0
    found = getattr(model, face)(x.requires_grad_(), 0.4)
    sum(part.sum() for part in (found if isinstance(found, tuple) else (found,))).backward()
    assert model.nfe_backward == net.backward_rows == 5
    assert model.nfe == net.forward_rows
