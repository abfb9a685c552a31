"""One time for a whole batch is stored and embedded once, and gives what the same time on every row gives."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.model import fold_draws
from diamond.nets import Preconditioned, ResidualMLP, Transformer, UNet, Whitened, grow
from diamond.validation import as_times, shared
from diamond.weighted_map import WeightedDiamondMap

EVENT = (1, 4, 4)
ROWS = 5
CLASSES = 3
NETWORKS = {
    "ResidualMLP": lambda classes: ResidualMLP(EVENT, width=12, depth=2, classes=classes, embedding=8),
    "Transformer": lambda classes: Transformer(EVENT, patch=2, width=8, depth=2, heads=2, classes=classes),
    "UNet": lambda classes: UNet(EVENT, width=8, multipliers=(1, 2), attention=2, classes=classes, embedding=8),
    "Whitened": lambda classes: Whitened(ResidualMLP((16,), 12, 2, classes), EVENT, data=torch.randn(200, *EVENT)),
    "Preconditioned": lambda classes: Preconditioned(UNet(EVENT, 8, (1, 2), classes=classes), std=0.6, mean=-0.3),
}


@pytest.fixture(params=NETWORKS)
def make(request):
    """Makes each kind of network in double precision with noise on every weight, the same in every test."""

    def make(classes=0, states=0, times=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = NETWORKS[request.param](classes).double()
            net = grow(net, states, times) if times else net
            with torch.no_grad():
                for weights in net.parameters():
                    weights += 0.3 * torch.randn_like(weights)
        return net.eval()

    return make


def rows_seen(net):
    """Notes how many rows of time features each call embeds."""
    seen = []
    inner = getattr(net, "net", net)
    inner.conditioning.time.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return seen


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_network_embeds_a_shared_time_once_and_gives_the_same(make, classes, seeded):
    net = make(classes, 1, 3)
    seen = rows_seen(net)
    x, state = torch.randn(2, ROWS, *EVENT, dtype=torch.float64, generator=seeded())
    cond = torch.arange(ROWS) % CLASSES if classes else None
    ones = [torch.tensor(time, dtype=torch.float64).expand(ROWS) for time in (0.4, 0.0, 0.7, 0.4)]
    rows = [time.contiguous() for time in ones]
    once = net(x, ones[0], cond, (state,), tuple(ones[1:]))
    each = net(x, rows[0], cond, (state,), tuple(rows[1:]))
    mixed = net(x, ones[0], cond, (state,), (ones[1], rows[2], ones[3]))
    close(once, each)
    close(mixed, each)
    assert seen == [1, ROWS, ROWS]
    assert float(each.std()) > 0.1
    other = net(x, ones[2], cond, (state,), tuple(ones[1:]))
    assert not torch.allclose(other, once, atol=1e-3)  # the time is heard


def test_a_network_refuses_labels_of_other_rows_at_a_shared_time(make, seeded):
    x, t = torch.randn(ROWS, *EVENT, dtype=torch.float64, generator=seeded()), torch.tensor(0.3).double().expand(ROWS)
    for labels in (torch.zeros(1, dtype=torch.long), torch.zeros(ROWS - 1, dtype=torch.long)):
        with pytest.raises(ValueError, match=rf"^cond: got .* expected class labels \({ROWS},\), whole numbers"):
            make(CLASSES)(x, t, labels)


def test_gradients_flow_through_a_shared_embedding(make, seeded):
    net = make()
    x = torch.randn(ROWS, *EVENT, dtype=torch.float64, generator=seeded())
    gradients = []
    for t in (torch.tensor(0.4).double().expand(ROWS), torch.full((ROWS,), 0.4).double()):
        net.zero_grad()
        net(x, t).square().sum().backward()
        gradients.append([weights.grad.clone() for weights in net.parameters() if weights.requires_grad])
    for one, other in zip(*gradients, strict=True):
        close(one, other)


def test_each_row_has_its_own_derivative_in_time(make, seeded):
    net, x = make(), torch.randn(ROWS, *EVENT, dtype=torch.float64, generator=seeded())
    times = torch.tensor(0.4).double().expand(ROWS).requires_grad_(), torch.full((ROWS,), 0.4).double().requires_grad_()
    one, other = (torch.autograd.grad(net(x, t).sum(), t)[0] for t in times)
    close(one, other)


@pytest.mark.filterwarnings("ignore")  # torch would rather have its newer tracers taken
def test_a_trace_takes_other_times_than_the_one_it_was_made_with(make, seeded):
    net, x = make(), torch.randn(ROWS, *EVENT, dtype=torch.float64, generator=seeded())
    traced = torch.jit.trace(net, (x, torch.tensor(0.4).double().expand(ROWS)), check_trace=False)
    t = torch.linspace(0.1, 0.9, ROWS, dtype=torch.float64)
    torch.testing.assert_close(
        traced(x, t), net(x, t), rtol=1e-6, atol=1e-6
    )  # a trace keeps its constants in single precision


def test_maps_and_flows_pass_one_time_on_as_one(make, seeded):
    x = torch.randn(ROWS, *EVENT, dtype=torch.float64, generator=seeded())
    every = torch.full((ROWS,), 0.4, dtype=torch.float64)
    diamond_map, flow_map, flow = DiamondMap(make(0, 1, 3)), FlowMap(make(0, 0, 1)), Flow(make())
    calls = {
        "posterior": (diamond_map, lambda model, t: model.posterior(x, t, 3, generator=seeded(1))),
        "composed": (diamond_map, lambda model, t: model.posterior(x, t, 2, generator=seeded(1), steps=2)),
        "transition": (diamond_map, lambda model, t: model.transition(x, t, 0.6, generator=seeded(1))),
        "denoise": (diamond_map, lambda model, t: model.denoise(x, t)),
        "look-ahead": (flow_map, lambda model, t: model(x, t, 1.0)),
        "weighted": (
            flow_map,
            lambda model, t: WeightedDiamondMap(model).weighted_posterior(x, t, 3, generator=seeded())[1],
        ),
        "weighted, chosen": (
            flow_map,
            lambda model, t: WeightedDiamondMap(model).posterior(x, t, 2, generator=seeded(1)),
        ),
        "flow": (flow, lambda model, t: model.denoise(x, t)),
        "glass": (flow, lambda model, t: GlassFlow(model, 4).posterior(x, t, 3, generator=seeded(1))),
        "glass, heun": (flow, lambda model, t: GlassFlow(model, 3, "heun").posterior(x, t, 3, generator=seeded(1))),
        "glass transition": (flow, lambda model, t: GlassFlow(model, 4).transition(x, t, 0.6, generator=seeded(1))),
        "glass, rho": (flow, lambda model, t: GlassFlow(model, 4).transition(x, t, 0.6, rho=0.3, generator=seeded(1))),
    }
    for name, (model, call) in calls.items():
        seen = rows_seen(model.net)
        once = call(model, 0.4)
        counts = set(seen)
        close(once, call(model, every))
        composed = name == "composed"  # the second part asks at times of its own for each row
        assert 1 in counts and (composed or counts == {1}), (name, counts)
        assert max(seen) >= ROWS


def test_one_time_stays_one_however_often_it_is_repeated(seeded):
    x = torch.randn(ROWS, *EVENT, dtype=torch.float64, generator=seeded())
    t = as_times(0.3, x)
    assert shared(t) and shared(fold_draws(t, 4)) and len(fold_draws(t, 4)) == 4 * ROWS
    assert shared(as_times(torch.tensor(0.3), x))
    assert not shared(as_times(torch.full((ROWS,), 0.3), x))
    assert not shared(as_times(0.3, x[:1])) and not shared(as_times(0.3, x[:0]))
