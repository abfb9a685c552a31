"""Samples, denoiser and velocity of a Diamond Map, its ends, what it costs, and which rows go together."""

import pytest
import torch

from diamond.diamond_map import DiamondMap


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_step_samples_have_the_law_of_the_data(diamond, data, steps, seeded, check_law):
    check_law(diamond.sample(10_000, steps, generator=seeded()), *data)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_denoiser_and_velocity_are_those_of_the_data(diamond, model, t, looks):
    torch.testing.assert_close(diamond.denoise(looks, t), model.denoise(looks, t), rtol=0, atol=1e-9)
    torch.testing.assert_close(diamond.velocity(looks, t), model.velocity(looks, t), rtol=0, atol=1e-9)
    if t < 1:
        torch.testing.assert_close(diamond.score(looks, t), model.score(looks, t), rtol=0, atol=1e-8)


def test_denoiser_is_the_diagonal_of_the_map_at_its_start(path, randn, full, looks):
    """x_bar + d/dr X at r = s = 0 is the mean of the posterior, whatever the inner noise."""

    def net(x, time, cond, states, times):
        s, r, t = times
        return torch.sin(2 * x) + states[0] + (time + 2 * s - 3 * r + t)[:, None]

    diamond = DiamondMap(net, path, (2,))
    x_bar, zero, t = randn(3, 2), full(0.0), full(0.6)
    speed = torch.func.jvp(lambda r: diamond.displace(x_bar, zero, r, looks, t), (zero,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(x_bar + speed, diamond.denoise(looks, t))


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_are_finite_with_their_gradients(path, t, seeded, looks):
    """Whatever a network says there: this one says something arbitrary."""
    diamond = DiamondMap(lambda x, time, cond, states, times: torch.sin(3 * x) + states[0], path, (2,))
    x = looks.clone().requires_grad_()
    calls = [diamond.posterior(x, t, 4, generator=seeded()), diamond.denoise(x, t), diamond.velocity(x, t)]
    if t == 0:
        calls += [diamond.transition(x, t, 1.0, generator=seeded()), diamond.transition(x, t, 0.5, rho=0.3)]
    for found in calls:
        assert found.isfinite().all()
        (slope,) = torch.autograd.grad(found.sum(), x)
        assert slope.isfinite().all()
        if t == 1:  # a clean state is its own draw and mean; the velocity has a slope of the network's
            assert found is calls[2] or torch.equal(slope, torch.full_like(x, found.numel() / x.numel()))


def test_clean_data_stay_what_they_are_whatever_the_network_says(path, seeded, looks):
    diamond = DiamondMap(lambda x, time, cond, states, times: torch.sin(3 * x) + states[0], path, (2,))
    torch.testing.assert_close(diamond.posterior(looks, 1.0, 4, generator=seeded()), looks.expand(4, 3, 2))


def test_evaluations_are_counted_per_draw(diamond, looks):
    for call, cost in (
        (lambda: diamond.posterior(looks, 0.4, 5), 15),
        (lambda: diamond.posterior(looks, 0.4, 5, steps=3), 45),
        (lambda: diamond.transition(looks, 0.4, 0.8), 3),
        (lambda: diamond.transition(looks, 0.4, 0.8, rho=0.0), 3),
        (lambda: diamond.sample(7, 4), 28),
        (lambda: diamond.denoise(looks, 0.4), 3),
        (lambda: diamond.velocity(looks, 0.4), 3),
        (lambda: diamond(looks, 0.1, 0.4, looks, 0.4), 3),
    ):
        for each in (1, 2):  # of a network that calls another as often
            diamond.nfe, diamond.net.evaluations = 0, each
            call()
            assert diamond.nfe == each * cost


def test_every_draw_of_a_row_has_the_rows_conditioning(seeded, looks):
    """A network that points at its label: from clean looks every draw ends on it."""

    def net(x, time, cond, states, times):
        return (cond[:, None] - x) / (1 - time[:, None]).clamp_min(1e-3)

    diamond = DiamondMap(net, event_shape=(2,))
    cond = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    expected = cond[:, None].expand(4, 3, 2)
    torch.testing.assert_close(diamond.posterior(looks, 0.4, 4, cond=cond, generator=seeded()), expected)
    found = diamond.posterior(looks, 0.4, 4, cond=cond, generator=seeded(), steps=2)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(diamond.transition(looks, 0.4, 1.0, cond=cond), expected[0])


def test_draws_of_a_population_do_not_depend_on_the_others(diamond, randn):
    x = randn(6, 2)

    def draw(rows, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = diamond.posterior(x[rows], 0.5, 3, generator=generators)
        return drawn, diamond.transition(x[rows], 0.5, 0.8, generator=generators)

    posterior, moved = draw(slice(0, 6), [1, 2, 3])
    alone_posterior, alone_moved = draw(slice(2, 4), [2])
    torch.testing.assert_close(posterior[:, 2:4], alone_posterior, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved[2:4], alone_moved, rtol=0, atol=1e-12)
