"""Forward derivatives of networks, and backward ones through them, against finite differences."""

import torch

CLASSES = 3


def test_forward_derivatives_agree_with_finite_differences(make_map, awake, labels, inputs):
    net = awake(make_map(CLASSES, states=2, times=3))
    cond, step = labels, 1e-6

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


def test_backward_derivatives_pass_through_forward_ones(make_map, awake, inputs):
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
