"""What grows from a network: it computes what the original does, learns with all of its weights, and can be deepened."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import glass_velocity
from diamond.interpolant import Cosine, Linear
from diamond.nets import deepen, describe, grow, make

CLASSES = 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("states", "times"), [(0, 1), (1, 3)])
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_grown_network_computes_exactly_what_the_original_does(
    make_flow, dtype, states, times, classes, awake, inputs, labels
):
    net = awake(make_flow(classes), dtype)
    grown = grow(net, states, times)
    x, t, more_states, more_times = inputs(dtype)
    cond = labels if classes else None
    expected = net(x, t, cond)
    assert torch.equal(grown(x, t, cond, more_states[:states], more_times[:times]), expected)
    assert expected.dtype == dtype
    assert float(expected.detach().std()) > 0.1


def test_growing_leaves_the_original_alone(make_flow, awake):
    net = awake(make_flow())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    awake(grow(net, 1, 3))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(weights.requires_grad for weights in net.parameters())


def test_new_weights_of_a_grown_network_receive_gradients(make_flow, awake, inputs):
    """From the last layer on at once, from the others when that has moved from zero."""
    grown = grow(awake(make_flow()), 1, 3)
    x, t, (state, _), times = inputs()
    for silent in (True, False):
        grown(x, t, None, (state,), times).square().sum().backward()
        slopes = {name: float(w.grad.abs().sum()) for name, w in grown.named_parameters() if w.requires_grad}
        assert any(slope > 0 for slope in slopes.values())
        assert silent or all(slope > 0 for slope in slopes.values())
        with torch.no_grad():
            for weights in grown.parameters():
                weights += 0.3 * torch.randn_like(weights) if weights.requires_grad else 0


def test_every_input_of_a_map_can_be_heard(make_map, awake, inputs):
    net = awake(make_map(states=1, times=3))
    x, t, (state, _), times = inputs()
    given = tuple(value.requires_grad_() for value in (x, t, state, *times))
    slopes = torch.autograd.grad(net(x, t, None, (state,), times).square().sum(), given)
    assert all(float(slope.abs().amin()) > 0 for slope in slopes)


def test_growing_what_has_grown_already_is_refused(make_flow):
    with pytest.raises(ValueError, match="^net: got a .* already, expected the network of a flow"):
        grow(grow(make_flow(), 0, 1), 1, 3)
    with pytest.raises(ValueError, match="^net: got a .* already, expected the network of a flow"):
        grow(make_flow(times=1), 1, 3)


def test_growing_a_foreign_network_is_refused():
    with pytest.raises(ValueError, match="^net: got Linear, expected one of .*ResidualMLP, Transformer"):
        grow(torch.nn.Linear(2, 2), 1, 3)


def test_a_deepened_network_computes_what_the_original_does_and_learns_with_all_of_it(make_map, awake, inputs, labels):
    net = awake(make_map(CLASSES, states=1, times=3))
    deeper = deepen(net, 4)
    x, t, (state, _), times = inputs()
    cond = labels
    expected = net(x, t, cond, (state,), times)
    torch.testing.assert_close(deeper(x, t, cond, (state,), times), expected, rtol=1e-12, atol=1e-12)
    assert sum(w.numel() for w in deeper.parameters()) > 1.2 * sum(w.numel() for w in net.parameters())
    for _ in range(2):  # the first step moves the last layers of the new blocks, which were at zero
        deeper.zero_grad()
        deeper(x, t, cond, (state,), times).square().sum().backward()
        slopes = [float(w.grad.abs().sum()) for w in deeper.parameters() if w.requires_grad]
        with torch.no_grad():
            for weights in deeper.parameters():
                weights += 0.1 * torch.randn_like(weights) if weights.requires_grad else 0
    assert all(slope > 0 for slope in slopes)
    assert torch.equal(net(x, t, cond, (state,), times), expected)  # and the original is as it was
    assert describe(make(describe(deeper))) == describe(deeper)


def test_a_network_deepened_to_fewer_blocks_or_a_foreign_one_is_refused(sown, makers):
    with pytest.raises(
        ValueError, match="^blocks: got 1, which leaves no place for blocks.1.* expected as many as there"
    ):
        deepen(makers["perceptron"](), 1)
    with pytest.raises(
        ValueError, match=r"^blocks: got \(2,\), expected a whole number, or one for each of 2 resolutions"
    ):
        deepen(makers["unet"](), (2,))
    with pytest.raises(ValueError, match="^net: got Linear, expected one of .*ResidualMLP, Transformer"):
        deepen(torch.nn.Linear(2, 2), 3)
    for blocks in (2.5, True, (2, 2)):
        with pytest.raises(ValueError, match="^blocks: got .*, expected a whole number"):
            deepen(makers["perceptron"](), blocks)
    with pytest.raises(ValueError, match="^blocks: got 2.5, expected a whole number"):
        deepen(makers["unet"](), 2.5)


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_student_grown_from_its_teacher_is_the_teacher_on_the_diagonal(
    make_flow, path, classes, awake, inputs, labels
):
    """A Diamond Map's inner velocity is that of the posterior flow, whatever both states; a flow map's the velocity."""
    teacher = Flow(awake(make_flow(classes)), path)
    diamond, flow_map = (kind(grow(teacher.net, *new), path) for kind, new in ((DiamondMap, (1, 3)), (FlowMap, (0, 1))))
    x, t, (x_bar, _), (s, _, _) = inputs()
    cond = labels if classes else None
    expected = teacher.velocity(x, t, cond=cond)
    assert float(expected.detach().std()) > 0.1
    for student in (diamond, flow_map):
        torch.testing.assert_close(student.velocity(x, t, cond=cond), expected, rtol=1e-9, atol=1e-9)
    inner = glass_velocity(teacher.denoise, path, x_bar, s, x, t, cond)
    torch.testing.assert_close(diamond.inner_velocity(x_bar, s, x, t, cond=cond), inner, rtol=1e-9, atol=1e-9)
