"""How networks are told times, classes and states: row by row, in their order, and refused where they do not fit."""

import math

import pytest
import torch

from diamond.nets import ResidualMLP, Whitened
from diamond.nets.embedding import time_features

ROWS = 5
CLASSES = 3


def test_time_features_have_their_formula_and_resolve_both_ends():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    found = time_features(t, torch.float64)
    expected = [[math.log((u + 0.02) / (1.02 - u)) / 4] for u in t.tolist()]
    for row, u in zip(expected, t.tolist(), strict=True):
        row += [math.cos(math.pi * k * u) for k in (1, 2, 4, 8)] + [math.sin(math.pi * k * u) for k in (1, 2, 4, 8)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(found[:, 0], -found.flip(0)[:, 0], rtol=0, atol=1e-12)


def test_each_row_has_its_own_time_label_and_state(make_map, awake, inputs, labels):
    net = awake(make_map(CLASSES, states=1, times=3))
    x, t, (state, _), times = inputs()
    cond = labels
    together = net(x, t, cond, (state,), times)
    for i in range(ROWS):
        row = slice(i, i + 1)
        alone = net(x[row], t[row], cond[row], (state[row],), tuple(time[row] for time in times))
        torch.testing.assert_close(together[row], alone)


def test_labels_change_the_output_and_no_label_is_a_label_of_its_own(make_flow, awake, inputs):
    net = awake(make_flow(CLASSES))
    x, t, _, _ = inputs()
    outputs = [net(x, t, torch.full((ROWS,), label)) for label in range(CLASSES + 1)]
    assert torch.equal(net(x, t), outputs[CLASSES])
    gaps = [float((a - b).detach().abs().max()) for i, a in enumerate(outputs) for b in outputs[:i]]
    assert min(gaps) > 0.01


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64])
def test_labels_may_be_any_whole_numbers(make_flow, kind, awake, inputs, labels):
    net = awake(make_flow(CLASSES))
    x, t, _, _ = inputs()
    cond = labels
    assert torch.equal(net(x, t, cond.to(kind)), net(x, t, cond))


@pytest.mark.parametrize(
    "cond", [torch.zeros(ROWS), torch.zeros(ROWS - 1).long(), torch.zeros(ROWS, 1).long(), ROWS * [0], {"label": 0}]
)
def test_labels_of_a_wrong_kind_are_refused(make_flow, cond, inputs):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match=r"^cond: got .* expected class labels \(5,\), whole numbers"):
        make_flow(CLASSES)(x, t, cond)


def test_labels_for_a_network_without_classes_are_refused(make_flow, inputs):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match="^cond: got a tensor, but this network was made without classes"):
        make_flow()(x, t, torch.zeros(ROWS).long())


@pytest.mark.parametrize(("given", "taken"), [(0, 3), (1, 3), (4, 3), (1, 0)])
def test_a_wrong_number_of_times_is_refused(make_flow, given, taken, inputs):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match=f"^times: got {given} times beside t, this network takes {taken}"):
        make_flow(times=taken)(x, t, None, (), given * (t,))


@pytest.mark.parametrize(("given", "taken"), [(0, 1), (2, 1), (1, 0)])
def test_a_wrong_number_of_states_is_refused(make_flow, given, taken, inputs):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match=f"^states: got {given} states beside x, this network takes {taken}"):
        make_flow(states=taken)(x, t, None, given * (x,))


@pytest.mark.parametrize("kind", ["perceptron", "transformer", "unet"])
def test_states_are_passed_on_in_their_order_and_place(kind, makers, inputs):
    """With nothing but the direct path at work the output is what its gains make of the states."""
    net = makers[kind](states=2).double()
    with torch.no_grad():
        net.gain.bias.copy_(torch.repeat_interleave(torch.tensor([1.0, -2.0]), len(net.gain.bias) // 2))
    x, t, (one, other), _ = inputs()
    torch.testing.assert_close(net(x, t, None, (one, other)), one - 2 * other)


@pytest.mark.parametrize("wrapped", [False, True])
def test_events_may_be_plain_numbers(wrapped, sown, awake, inputs):
    x, t, _, times = inputs()
    numbers, state = x[:, 0, 0, :2].unbind(1)
    one = awake(ResidualMLP((1,), width=12, depth=2, states=1, times=3, embedding=8))
    plain = ResidualMLP((), width=12, depth=2, states=1, times=3, embedding=8).double()
    plain.load_state_dict(one.state_dict())
    if wrapped:
        data = 2 * torch.randn(50) + 1
        one, plain = Whitened(one, (1,), data=data[:, None]).double(), Whitened(one, (), data=data).double()
    expected = one(numbers[:, None], t, None, (state[:, None],), times)[:, 0]
    torch.testing.assert_close(plain(numbers, t, None, (state,), times), expected)
    assert float(expected.std()) > 0.1


def test_networks_start_at_zero(inputs, makers):
    x, t, _, _ = inputs(torch.float32)
    for kind in ("perceptron", "transformer", "unet"):
        assert (makers[kind]()(x, t) == 0).all()
