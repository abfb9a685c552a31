"""Further inputs of networks of diffusers: students grown from their teachers."""

import torch

from diamond.checkpoint import load
from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import glass_velocity
from diamond.nets import grow

ROWS = 3


def students(model, path=None):
    """The flow of a model, and the map that grew from it."""
    teacher = Flow.from_diffusers(model, prediction="v_prediction", interpolant=path)
    return teacher, DiamondMap(grow(teacher.net, 1, 3), teacher.interpolant)


def test_a_student_grown_from_its_teacher_is_the_teacher_on_the_diagonal(model, path, seeded, states):
    net, cond = model
    with torch.random.fork_rng(devices=[]):
        teacher, student = students(net, path)
        flow_map = FlowMap(grow(teacher.net, 0, 1), path)
    x, x_bar = states(), states(1)
    t, s = torch.rand(2, ROWS, dtype=torch.float64, generator=seeded(2))
    expected = teacher.net(x, t, cond)
    assert torch.equal(student.net(x, t, cond, (x_bar,), (s, s, t)), expected)
    torch.testing.assert_close(flow_map.velocity(x, t, cond=cond), teacher.velocity(x, t, cond=cond))
    inner = glass_velocity(teacher.denoise, path, x_bar, s, x, t, cond)
    torch.testing.assert_close(student.inner_velocity(x_bar, s, x, t, cond=cond), inner)
    assert torch.equal(teacher.net(x, t, cond), expected)  # it is left alone
    assert all(weights.requires_grad for weights in student.parameters())


def test_every_further_input_can_be_heard_and_differentiated_forward(model, sown, states):
    net, cond = model
    student = sown(lambda: students(net)[1].net, noise=0.2)
    x, state, direction = (states(i) for i in range(3))
    t, s, r, outer = torch.tensor([[0.2, 0.5, 0.8], [0.1, 0.2, 0.3], [0.4, 0.6, 0.7], [0.3, 0.6, 0.9]]).double()

    def call(state, s, r, outer):
        return student(x, t, cond, (state,), (s, r, outer))

    point, step = (state, s, r, outer), 1e-6
    for i, change in enumerate([direction, *3 * [torch.ones_like(t)]]):
        tangents = tuple(change if i == j else torch.zeros_like(value) for j, value in enumerate(point))
        _, slope = torch.func.jvp(call, point, tangents)
        ahead, behind = (
            call(*(value + sign * step * tangent for value, tangent in zip(point, tangents, strict=True)))
            for sign in (1, -1)
        )
        torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-5)
        assert float(slope.detach().abs().max()) > 1e-3


def test_a_student_is_saved_and_loaded(model, tmp_path, seeded, sown, states):
    net, cond = model
    student = sown(lambda: students(net)[1], noise=0.2)
    student.save(tmp_path / "map.ckpt")
    loaded, x = load(tmp_path / "map.ckpt"), states()
    drawn = (each.posterior(x, 0.3, 2, cond=cond, generator=seeded()) for each in (student, loaded))
    assert torch.equal(*drawn)
