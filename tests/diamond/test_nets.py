"""Networks: what they grow from, how they are told times, classes and states, and their forward derivatives."""

import json
import math

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import glass_velocity
from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import Preconditioned, ResidualMLP, Transformer, UNet, Whitened, deepen, describe, grow, make
from diamond.nets.embedding import time_features

ROWS = 5
CLASSES = 3


def perceptron(classes=0, states=0, times=0):
    return ResidualMLP((2, 2, 4), width=12, depth=2, classes=classes, states=states, times=times, embedding=8)


def transformer(classes=0, states=0, times=0):
    return Transformer((2, 2, 4), patch=2, width=8, depth=2, heads=2, classes=classes, states=states, times=times)


def whitened(classes=0, states=0, times=0):
    data = torch.randn(200, 2, 2, 4) @ torch.randn(4, 4) + 0.3
    inner = ResidualMLP((16,), width=12, depth=2, classes=classes, states=states, times=times, embedding=8)
    return Whitened(inner, (2, 2, 4), data=data)


def unet(classes=0, states=0, times=0):
    inputs = {"classes": classes, "states": states, "times": times}
    return UNet((2, 2, 4), width=8, multipliers=(1, 2), attention=1, embedding=8, **inputs)


def preconditioned(classes=0, states=0, times=0):
    return Preconditioned(unet(classes, states, times), std=0.6, mean=-0.3)


FLOWS = {
    "ResidualMLP": perceptron, "Transformer": transformer, "UNet": unet, "Whitened": whitened,
    "Preconditioned": preconditioned,
}  # fmt: skip
MAPS = FLOWS


def awake(net, dtype=torch.float64):
    """The network in double precision, with noise on every weight, so that nothing in it is silent."""
    net = net.to(dtype)
    with torch.no_grad():
        for weights in net.parameters():
            weights += 0.3 * torch.randn(weights.shape, dtype=dtype)
    return net


@pytest.fixture
def sown():
    """Weights are the same in every test, and the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=FLOWS)
def make_flow(request, sown):
    """Makes each kind of network that can be a flow's."""
    return FLOWS[request.param]


@pytest.fixture(params=MAPS)
def make_map(request, sown):
    """Makes each kind of network that can be a map's."""
    return MAPS[request.param]


def inputs(dtype=torch.float64, seed=0):
    """x, t, two more states and three more times, of which the first two are in order."""
    generator = torch.Generator().manual_seed(seed)
    x, one, other = torch.randn(3, ROWS, 2, 2, 4, dtype=dtype, generator=generator)
    t, first, second, outer = torch.rand(4, ROWS, dtype=dtype, generator=generator)
    return x, t, (one, other), (torch.minimum(first, second), torch.maximum(first, second), outer)


# ---------------------------------------------------------------- growing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("states", "times"), [(0, 1), (1, 3)])
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_grown_network_computes_exactly_what_the_original_does(make_flow, dtype, states, times, classes):
    net = awake(make_flow(classes), dtype)
    grown = grow(net, states, times)
    x, t, more_states, more_times = inputs(dtype)
    cond = torch.arange(ROWS) % CLASSES if classes else None
    expected = net(x, t, cond)
    assert torch.equal(grown(x, t, cond, more_states[:states], more_times[:times]), expected)
    assert expected.dtype == dtype
    assert float(expected.detach().std()) > 0.1


def test_growing_leaves_the_original_alone(make_flow):
    net = awake(make_flow())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    awake(grow(net, 1, 3))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(weights.requires_grad for weights in net.parameters())


def test_new_weights_of_a_grown_network_receive_gradients(make_flow):
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


def test_every_input_of_a_map_can_be_heard(make_map):
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


def test_a_deepened_network_computes_what_the_original_does_and_learns_with_all_of_it(make_map):
    net = awake(make_map(CLASSES, states=1, times=3))
    deeper = deepen(net, 4)
    x, t, (state, _), times = inputs()
    cond = torch.arange(ROWS) % CLASSES
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


def test_a_network_deepened_to_fewer_blocks_or_a_foreign_one_is_refused(sown):
    with pytest.raises(
        ValueError, match="^blocks: got 1, which leaves no place for blocks.1.* expected as many as there"
    ):
        deepen(perceptron(), 1)
    with pytest.raises(
        ValueError, match=r"^blocks: got \(2,\), expected a whole number, or one for each of 2 resolutions"
    ):
        deepen(unet(), (2,))
    with pytest.raises(ValueError, match="^net: got Linear, expected one of .*ResidualMLP, Transformer"):
        deepen(torch.nn.Linear(2, 2), 3)


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_student_grown_from_its_teacher_is_the_teacher_on_the_diagonal(make_flow, path, classes):
    """A Diamond Map's inner velocity is that of the posterior flow, whatever both states; a flow map's the velocity."""
    teacher = Flow(awake(make_flow(classes)), path)
    diamond, flow_map = (kind(grow(teacher.net, *new), path) for kind, new in ((DiamondMap, (1, 3)), (FlowMap, (0, 1))))
    x, t, (x_bar, _), (s, _, _) = inputs()
    cond = torch.arange(ROWS) % CLASSES if classes else None
    expected = teacher.velocity(x, t, cond=cond)
    assert float(expected.detach().std()) > 0.1
    for student in (diamond, flow_map):
        torch.testing.assert_close(student.velocity(x, t, cond=cond), expected, rtol=1e-9, atol=1e-9)
    inner = glass_velocity(teacher.denoise, path, x_bar, s, x, t, cond)
    torch.testing.assert_close(diamond.inner_velocity(x_bar, s, x, t, cond=cond), inner, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- derivatives


def test_forward_derivatives_agree_with_finite_differences(make_map):
    net = awake(make_map(CLASSES, states=2, times=3))
    cond, step = torch.arange(ROWS) % CLASSES, 1e-6

    def flat(x, t, one, other, *times):
        return net(x, t, cond, (one, other), times)

    def unpack(seed):
        x, t, states, times = inputs(seed=seed)
        return x, 0.05 + 0.9 * t, *states, *(0.05 + 0.9 * time for time in times)

    point, direction = unpack(0), unpack(1)
    value, slope = torch.func.jvp(flat, point, direction)
    ahead, behind = (flat(*(p + sign * step * d for p, d in zip(point, direction, strict=True))) for sign in (1, -1))
    torch.testing.assert_close(value, flat(*point))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


def test_backward_derivatives_pass_through_forward_ones(make_map):
    """A Lagrangian loss differentiates the map in its time, then the loss in the weights."""
    net = awake(make_map(states=1, times=3))
    x, t, (state, _), (s, r, outer) = inputs()
    weights = getattr(net, "net", net).leave.weight

    def loss():
        return torch.func.jvp(lambda r: net(x, t, None, (state,), (s, r, outer)), (r,), (torch.ones_like(r),))[1].sum()

    slope = torch.autograd.grad(loss(), weights)[0].flatten()[0]
    step = 1e-6
    with torch.no_grad():
        weights.view(-1)[0] += step
        ahead = loss()
        weights.view(-1)[0] -= 2 * step
        behind = loss()
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- configuration


def test_a_network_is_made_again_from_its_description(make_map):
    net = awake(make_map(CLASSES, states=1, times=3))
    again = make(json.loads(json.dumps(describe(net)))).double()
    again.load_state_dict(net.state_dict())
    x, t, (state, _), times = inputs()
    cond = torch.arange(ROWS) % CLASSES
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


# ---------------------------------------------------------------- times, labels, states


def test_time_features_have_their_formula_and_resolve_both_ends():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    found = time_features(t, torch.float64)
    expected = [[math.log((u + 0.02) / (1.02 - u)) / 4] for u in t.tolist()]
    for row, u in zip(expected, t.tolist(), strict=True):
        row += [math.cos(math.pi * k * u) for k in (1, 2, 4, 8)] + [math.sin(math.pi * k * u) for k in (1, 2, 4, 8)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(found[:, 0], -found.flip(0)[:, 0], rtol=0, atol=1e-12)


def test_each_row_has_its_own_time_label_and_state(make_map):
    net = awake(make_map(CLASSES, states=1, times=3))
    x, t, (state, _), times = inputs()
    cond = torch.arange(ROWS) % CLASSES
    together = net(x, t, cond, (state,), times)
    for i in range(ROWS):
        row = slice(i, i + 1)
        alone = net(x[row], t[row], cond[row], (state[row],), tuple(time[row] for time in times))
        torch.testing.assert_close(together[row], alone)


def test_labels_change_the_output_and_no_label_is_a_label_of_its_own(make_flow):
    net = awake(make_flow(CLASSES))
    x, t, _, _ = inputs()
    outputs = [net(x, t, torch.full((ROWS,), label)) for label in range(CLASSES + 1)]
    assert torch.equal(net(x, t), outputs[CLASSES])
    gaps = [float((a - b).detach().abs().max()) for i, a in enumerate(outputs) for b in outputs[:i]]
    assert min(gaps) > 0.01


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64])
def test_labels_may_be_any_whole_numbers(make_flow, kind):
    net = awake(make_flow(CLASSES))
    x, t, _, _ = inputs()
    cond = torch.arange(ROWS) % CLASSES
    assert torch.equal(net(x, t, cond.to(kind)), net(x, t, cond))


@pytest.mark.parametrize("cond", [torch.zeros(ROWS), torch.zeros(ROWS - 1).long(), torch.zeros(ROWS, 1).long()])
def test_labels_of_a_wrong_kind_are_refused(make_flow, cond):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match=r"^cond: got .* expected class labels \(5,\), whole numbers"):
        make_flow(CLASSES)(x, t, cond)


def test_labels_for_a_network_without_classes_are_refused(make_flow):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match="^cond: got a tensor, but this network was made without classes"):
        make_flow()(x, t, torch.zeros(ROWS).long())


@pytest.mark.parametrize(("given", "taken"), [(0, 3), (1, 3), (4, 3), (1, 0)])
def test_a_wrong_number_of_times_is_refused(make_flow, given, taken):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match=f"^times: got {given} times beside t, this network takes {taken}"):
        make_flow(times=taken)(x, t, None, (), given * (t,))


@pytest.mark.parametrize(("given", "taken"), [(0, 1), (2, 1), (1, 0)])
def test_a_wrong_number_of_states_is_refused(make_flow, given, taken):
    x, t, _, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match=f"^states: got {given} states beside x, this network takes {taken}"):
        make_flow(states=taken)(x, t, None, given * (x,))


@pytest.mark.parametrize("kind", [perceptron, transformer, unet])
def test_states_are_passed_on_in_their_order_and_place(kind):
    """With nothing but the direct path at work the output is what its gains make of the states."""
    net = kind(states=2).double()
    with torch.no_grad():
        net.gain.bias.copy_(torch.repeat_interleave(torch.tensor([1.0, -2.0]), len(net.gain.bias) // 2))
    x, t, (one, other), _ = inputs()
    torch.testing.assert_close(net(x, t, None, (one, other)), one - 2 * other)


def test_networks_start_at_zero():
    x, t, _, _ = inputs(torch.float32)
    for kind in (perceptron, transformer, unet):
        assert (kind()(x, t) == 0).all()


# ---------------------------------------------------------------- transformer


def test_without_attention_a_patch_sees_itself_alone(sown):
    """Cuts the image into patches and puts each back in its place."""
    net = awake(Transformer((1, 4, 6), patch=2, width=8, depth=0, heads=2))
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = torch.full((1,), 0.4, dtype=torch.float64)
    slope = torch.autograd.grad(net(x, t)[0, 0, 2:4, 4:6].square().sum(), x)[0][0, 0]
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[2:4, 4:6] = True
    assert (slope[~inside] == 0).all()
    assert float(slope[inside].abs().min()) > 0


def test_attention_lets_every_patch_see_every_other(sown):
    net = awake(Transformer((1, 4, 6), patch=2, width=8, depth=1, heads=2))
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    slope = torch.autograd.grad(net(x, torch.full((1,), 0.4).double())[0, 0, 2:4, 4:6].square().sum(), x)[0]
    assert float(slope.abs().min()) > 0


def test_written_out_attention_is_that_of_torch(sown):
    block = awake(Transformer((1, 4, 4), patch=2, width=8, depth=1, heads=2)).blocks[0]
    tokens = torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query, key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in block.mix(tokens).chunk(3, dim=-1))
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(block._attend(tokens), block.merge(attended.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(("shape", "patch"), [((3, 64, 64), 8), ((1, 28, 28), 4), ((4, 32, 32), 4), ((16, 8, 8), 1)])
def test_a_transformer_takes_pictures_and_latents_with_their_forward_derivatives(shape, patch, sown, seeded):
    net = awake(Transformer(shape, patch, width=16, depth=2, heads=2, classes=CLASSES, states=1, times=3))
    x, state, direction = torch.randn(3, 2, *shape, dtype=torch.float64, generator=seeded())
    t, s, r, outer = torch.rand(4, 2, dtype=torch.float64, generator=seeded(1)) * 0.8 + 0.1
    cond, step = torch.tensor([0, CLASSES]), 1e-6

    def call(x, r):
        return net(x, t, cond, (state,), (s, r, outer))

    found, slope = torch.func.jvp(call, (x, r), (direction, torch.ones_like(r)))
    assert found.shape == x.shape
    expected = (call(x + step * direction, r + step) - call(x - step * direction, r - step)) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- whitened


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_whitened_network_of_zeros_is_the_exact_flow_of_the_gaussian_fit(path, t, seeded):
    data = torch.randn(500, 6, generator=seeded()) @ torch.randn(6, 6, generator=seeded(1)) + 0.7
    data = data.double()
    net = Whitened(ResidualMLP((6,), width=8, depth=1), (2, 3), path, data=data.reshape(-1, 2, 3)).double()
    model = GaussianMixtureFlow(torch.ones(1).double(), data.mean(0)[None], data.T.cov()[None], path)
    x = torch.randn(4, 6, dtype=torch.float64, generator=seeded(2))
    times = torch.full((4,), t, dtype=torch.float64)
    found = net(x.reshape(-1, 2, 3), times).flatten(1)
    torch.testing.assert_close(found, model.velocity(x, t), rtol=1e-4, atol=1e-4)  # its buffers are kept in float32


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)
def test_whitened_correction_moves_the_denoiser_by_posterior_deviations(path, seeded):
    """D = D_linear + Q sqrt(P) F(white), with F at unit scale."""
    data = torch.randn(500, 3, generator=seeded()) @ torch.tensor([[1.0, 0, 0], [0.5, 0.2, 0], [0, 0.1, 2.0]])
    net = Whitened(ResidualMLP((3,), width=8, depth=1), (3,), path, data=data).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=seeded(2))
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    plain = path.denoiser_from_velocity(x, t, net(x, t))
    awake(net)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    total = alpha**2 * net.variances + sigma**2
    white = (x - alpha * net.mean) @ net.basis / total.sqrt()
    correction = (sigma * (net.variances / total).sqrt() * net.net(white, t)) @ net.basis.T
    torch.testing.assert_close(path.denoiser_from_velocity(x, t, net(x, t)), plain + correction, rtol=0, atol=1e-6)


def test_whitened_network_sees_states_in_its_own_basis(seeded):
    """Noise is rotated as the state is, and not rescaled: it is white in every basis."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x, t, cond, states, times):
            seen.append((x, states, times))
            return x

    data = torch.randn(500, 3, generator=seeded()) @ torch.tensor([[1.0, 0, 0], [0.5, 0.2, 0], [0, 0.1, 2.0]])
    net = Whitened(Spy(), (3, 1), data=data.unsqueeze(-1)).double()
    x, one, other = torch.randn(3, 4, 3, 1, dtype=torch.float64, generator=seeded(1))
    t, r = torch.rand(2, 4, dtype=torch.float64, generator=seeded(2))
    net(x, t, None, (one, other), (r,))
    white, states, times = seen[0]
    scale = (t[:, None] ** 2 * net.variances + (1 - t[:, None]) ** 2).sqrt()
    torch.testing.assert_close(white * scale @ net.basis.T + t[:, None] * net.mean, x[..., 0], rtol=0, atol=1e-5)
    for state, rotated in zip((one, other), states, strict=True):
        torch.testing.assert_close(rotated @ net.basis.T, state[..., 0], rtol=0, atol=1e-5)
    assert times[0] is r


# ---------------------------------------------------------------- preconditioned


def scalar_flow(path, inner=None):
    inner = inner or ResidualMLP((2, 3), width=8, depth=1)
    return Preconditioned(inner, std=0.4, mean=-0.7, interpolant=path).double()


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_preconditioned_network_of_zeros_is_the_exact_flow_of_a_gaussian(path, t, seeded):
    means, covariances = torch.full((1, 6), -0.7).double(), torch.full((1,), 0.16).double()
    model = GaussianMixtureFlow(torch.ones(1).double(), means, covariances, path)
    x = torch.randn(4, 6, dtype=torch.float64, generator=seeded())
    found = scalar_flow(path)(x.reshape(-1, 2, 3), torch.full((4,), t).double()).flatten(1)
    torch.testing.assert_close(found, model.velocity(x, t), rtol=1e-6, atol=1e-6)


def test_preconditioned_correction_moves_the_denoiser_by_posterior_deviations(path, sown, seeded):
    net = scalar_flow(path)
    x = torch.randn(4, 2, 3, dtype=torch.float64, generator=seeded())
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    plain = path.denoiser_from_velocity(x, t, net(x, t))
    awake(net)
    alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
    total = alpha**2 * 0.16 + sigma**2
    correction = sigma * 0.4 / total.sqrt() * net.net((x + alpha * 0.7) / total.sqrt(), t)
    torch.testing.assert_close(path.denoiser_from_velocity(x, t, net(x, t)), plain + correction, rtol=0, atol=1e-9)


def test_preconditioned_network_passes_states_times_and_labels_as_they_are(seeded):
    seen = []

    class Spy(torch.nn.Module):
        event_shape = (3,)

        def forward(self, x, t, cond, states, times):
            seen.extend([t, cond, *states, *times])
            return x

    x, one, other = torch.randn(3, 4, 3, dtype=torch.float64, generator=seeded())
    t, r = torch.rand(2, 4, dtype=torch.float64, generator=seeded(1))
    cond = torch.arange(4)
    Preconditioned(Spy(), std=1.0)(x, t, cond, (one, other), (r,))
    assert all(found is given for found, given in zip(seen, (t, cond, one, other, r), strict=True))


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf, math.nan])
def test_a_standard_deviation_that_is_none_is_refused(std):
    with pytest.raises(ValueError, match=f"^std: got {std}, expected a finite number above 0"):
        Preconditioned(perceptron(), std=std)
