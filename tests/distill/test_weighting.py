"""What each weighting does to a loss and to its gradient."""

import pytest
import torch

from distill.weighting import Adaptive, Learned, make_weighting


def test_adaptive_weights_tame_large_errors():
    """The gradient of `e^2` becomes `2 e / (e^2 + c)^p`: of one length for large errors at p = 1/2, and falling at 1."""
    errors = torch.logspace(-1, 3, 9, dtype=torch.float64, requires_grad=True)
    for weighting, power in ((Adaptive(), 0.5), (Adaptive(power=1.0), 1.0)):
        (slope,) = torch.autograd.grad(weighting(errors.square(), torch.zeros(9, 3)).sum(), errors)
        expected = 2 * errors / (errors.square() + 1e-3) ** power
        assert torch.allclose(slope, expected, rtol=1e-12)


def test_no_power_is_no_weight():
    losses = torch.rand(5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weighed = Adaptive(power=0.0)(losses, torch.zeros(5, 3))
    assert torch.equal(weighed, losses)
    assert torch.equal(torch.autograd.grad(weighed.sum(), losses)[0], torch.ones(5))


def test_learned_weights_begin_as_none_and_leave_the_global_random_state_alone(seeded):
    before = torch.get_rng_state()
    weighting = Learned()
    assert torch.equal(torch.get_rng_state(), before)
    losses, times = torch.rand(2, 7, generator=seeded(0))[0], torch.rand(7, 3, generator=seeded(1))
    assert torch.equal(weighting(losses, times), losses)
    assert all(torch.equal(a, b) for a, b in zip(weighting.parameters(), Learned().parameters(), strict=True))


def test_learned_weights_come_to_the_mean_loss_at_each_time(seeded):
    """The minimiser of `exp(-w) E[loss] + w` is the logarithm of the mean loss, whatever the losses' scatter."""
    weighting, generator = Learned(), seeded(0)
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.02)
    log_scale = lambda times: 3 * times[:, 2] - 2 * times[:, 0] * times[:, 1]  # noqa: E731
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 500)
        times = torch.rand(512, 3, generator=generator)
        losses = log_scale(times).exp() * torch.randn(512, generator=generator).square()
        optimizer.zero_grad()
        weighting(losses, times).mean().backward()
        optimizer.step()
    times = torch.rand(500, 3, generator=generator)
    with torch.no_grad():
        found = weighting(torch.zeros(500), times)
    assert float((found - log_scale(times)).square().mean().sqrt()) < 0.15


def test_learned_weights_keep_the_losses_in_their_precision(seeded):
    losses = torch.rand(4, generator=seeded(0), dtype=torch.float64)
    assert Learned()(losses, torch.rand(4, 3, generator=seeded(1))).dtype == torch.float64


def test_weightings_are_made_by_name():
    assert make_weighting(None) is None and isinstance(make_weighting("adaptive"), Adaptive)
    assert isinstance(make_weighting("learned"), Learned)
    with pytest.raises(ValueError, match="weighting: got 'heavy', expected one of adaptive, learned"):
        make_weighting("heavy")


def test_learned_weights_are_trained_beside_the_map(gaussian):
    """The trainer takes the objective's module along; the map itself is none the larger."""
    from diamond.diamond_map import DiamondMap
    from diamond.interpolant import Linear
    from diamond.nets import ResidualMLP
    from distill.objectives import MapObjective
    from distill.training.batches import Batches
    from distill.training.schedule import Schedule
    from distill.training.trainer import train

    teacher = gaussian(Linear())
    objective = MapObjective(teacher, "psd", weighting="learned")
    assert objective.module is not None and MapObjective(teacher, "psd").module is None
    before = [parameter.clone() for parameter in objective.module.parameters()]
    model = DiamondMap(ResidualMLP((2,), width=8, depth=1, states=1, times=3, embedding=8))
    names = set(model.state_dict())
    train(model, objective, Batches(teacher), Schedule(steps=3, batch=16), progress=False)
    assert not any(torch.equal(a, b) for a, b in zip(before, objective.module.parameters(), strict=True))
    assert set(model.state_dict()) == names
