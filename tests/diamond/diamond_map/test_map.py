"""Diamond Maps as maps: the exact affine one, the laws that every map keeps, and its velocity on the diagonal."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.glass import glass_velocity
from diamond.observation import combine_looks


@pytest.mark.parametrize("t", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize(("s", "r"), [(0.0, 1.0), (0.0, 0.4), (0.3, 0.8), (0.3, 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_map_is_the_exact_one_when_its_network_is(diamond, exact, t, s, r, randn, looks, full):
    x_bar = randn(3, 2)
    found = diamond(x_bar, s, r, looks, t)
    expected = exact.map(x_bar, full(s), full(r), looks, full(t)) if r > s else x_bar
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_any_network_is_the_identity_where_the_times_meet(path, looks):
    diamond = DiamondMap(lambda x, t, cond, states, times: torch.sin(5 * x) + states[0], path, (2,))
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    for t in (0.0, 0.6, 1.0):
        torch.testing.assert_close(diamond(looks, times, times, looks, t), looks, rtol=0, atol=1e-14)


def test_map_moves_a_share_of_the_way_to_the_endpoint(path, randn, full, looks):
    """X = x_bar + (r - s) / (1 - s) (Z - x_bar), with Z the denoiser that the network's velocity stands for."""
    seen = {}

    def net(x, time, cond, states, times):
        seen.update(x=x, time=time, cond=cond, noise=states[0], times=times)
        return torch.sin(x)

    x_bar, t, s, r, cond = randn(3, 2), full(0.6), full(0.2), full(0.7), torch.arange(3)
    moved = DiamondMap(net, path, (2,))(x_bar, s, r, looks, t, cond=cond)
    pair = combine_looks(path, (path.alpha(t), path.sigma(t)), (s, 1 - s))
    share = 0.5 / 0.8
    torch.testing.assert_close(seen["x"], pair.statistic(looks, x_bar))
    torch.testing.assert_close(seen["time"], pair.time)
    torch.testing.assert_close(seen["noise"], share * pair.noise(looks, x_bar))
    assert seen["cond"] is cond
    assert [float(time[0]) for time in seen["times"]] == [0.2, 0.7, 0.6]
    endpoint = path.denoiser_from_velocity(seen["x"], seen["time"], torch.sin(seen["x"]))
    torch.testing.assert_close(moved, x_bar + share * (endpoint - x_bar))


def test_a_mean_velocity_is_the_displacement_by_its_time_down_to_the_velocity_where_both_meet(
    diamond, randn, full, looks
):
    x_bar, s, r, t = randn(3, 2), full(0.2), full(0.7), full(0.4)
    moved = diamond.displace(x_bar, s, r, looks, t)
    torch.testing.assert_close(diamond.mean_velocity(x_bar, s, r, looks, t), (moved - x_bar) / 0.5)
    near = diamond.mean_velocity(x_bar, s, s + 1e-6, looks, t)
    torch.testing.assert_close(near, diamond.inner_velocity(x_bar, s, looks, t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [0.0, 0.4, 0.9])
def test_maps_compose(diamond, t, randn, looks):
    x_bar = randn(3, 2)
    halfway = diamond(x_bar, 0.1, 0.5, looks, t)
    once = diamond(x_bar, 0.1, 0.9, looks, t)
    torch.testing.assert_close(diamond(halfway, 0.5, 0.9, looks, t), once, rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.9])
def test_map_moves_with_the_glass_velocity(diamond, model, t, randn, full, looks):
    """The Lagrangian law d/dr X_{s,r} = u_r(X_{s,r}), and the Eulerian d/ds X_{s,r} = -u_s . grad X_{s,r}."""
    x_bar, s, r, t = randn(3, 2), full(0.2), full(0.7), full(t)
    moved, speed = torch.func.jvp(lambda r: diamond.displace(x_bar, s, r, looks, t), (r,), (torch.ones_like(r),))
    velocity = glass_velocity(model.denoise, model.interpolant, moved, r, looks, t)
    torch.testing.assert_close(speed, velocity, rtol=1e-7, atol=1e-7)
    velocity = glass_velocity(model.denoise, model.interpolant, x_bar, s, looks, t)
    tangents = (velocity, torch.ones_like(s))
    still = torch.func.jvp(lambda x, s: diamond.displace(x, s, r, looks, t), (x_bar, s), tangents)[1]
    torch.testing.assert_close(still, torch.zeros_like(still), rtol=0, atol=1e-7)


def test_on_the_diagonal_a_flow_network_is_its_own_glass_teacher(path, model, randn, full, looks):
    """Whatever the network, at r -> s the map moves with the GLASS velocity of the flow that it is at zero noise."""

    def net(x, time, cond=None, states=(), times=()):
        more = sum(state.sin() for state in states) + sum((r - s)[:, None] for s, r, _ in (times,) if times)
        return torch.sin(2 * x) + time[:, None] + more

    diamond = DiamondMap(net, path, (2,))

    def denoise(x, t, cond=None):
        return path.denoiser_from_velocity(x, t, torch.sin(2 * x) + t[:, None])

    x_bar, s, t = randn(3, 2), full(0.3), full(0.6)
    speed = torch.func.jvp(lambda r: diamond.displace(x_bar, s, r, looks, t), (s,), (torch.ones_like(s),))[1]
    torch.testing.assert_close(speed, glass_velocity(denoise, path, x_bar, s, looks, t), rtol=1e-8, atol=1e-8)
