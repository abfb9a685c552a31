"""One call for pairs and diagonal says what two calls say: mean velocities, losses, gradients, and the count of evaluations."""

import pytest
import torch

import distill.objectives

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.interpolant import Cosine, Linear
from diamond.nets import ResidualMLP
from distill.joint import Jointly, joint_map
from distill.objectives import MapObjective
from distill.problems import FlowProblem, PosteriorProblem
from distill.shares import LOSSES

KINDS = pytest.mark.parametrize("kind", [DiamondMap, FlowMap])
PATHS = pytest.mark.parametrize("path", [Linear(), Cosine()], ids=repr)


class OwnDiamondMap(DiamondMap):
    """A kind of its own, of which nothing is known but its methods."""


class OwnFlowMap(FlowMap):
    """Likewise."""


OWN = {DiamondMap: OwnDiamondMap, FlowMap: OwnFlowMap}


class Apart(Jointly):
    """Asks the two parts one after the other."""

    def __call__(self, *first):
        return self.function.__self__.rows(slice(0, len(first[0]))).velocity(*first)


@pytest.fixture(autouse=True)
def double_times():
    """Times are drawn in the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(seed=0, **inputs):
    """Weights that are nowhere zero."""
    net = ResidualMLP((2,), 8, 2, classes=3, embedding=8, **inputs)
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 1) ** 0.5
    return net


def student_of(kind, path):
    inputs = {"times": 1} if issubclass(kind, FlowMap) else {"states": 1, "times": 3}
    return kind(network(1, **inputs), path)


def bound(kind, path, n, generator):
    """A problem of `n` rows, and points on it."""
    x, x_t = torch.randn(2, n, 2, generator=generator)
    s, r, t = torch.rand(3, n, generator=generator)
    s, r = torch.minimum(s, r) * 0.9, torch.maximum(s, r)
    student, teacher, cond = student_of(kind, path), Flow(network(), path), torch.arange(n) % 4
    problem = FlowProblem(teacher, student, cond)
    if isinstance(student, DiamondMap):
        problem = PosteriorProblem(teacher, student, x_t, t, cond)
    return problem, x, s, r


@KINDS
@PATHS
def test_a_mean_velocity_is_a_displacement_by_its_time_and_the_slope_on_the_diagonal(kind, path, seeded):
    problem, x, s, r = bound(kind, path, 12, seeded())
    assert problem.tells_mean_velocity is (kind is DiamondMap or isinstance(path, Linear))
    if problem.tells_mean_velocity:
        expected = (problem.displace(x, s, r) - x) / (r - s)[:, None]
        torch.testing.assert_close(problem.mean_velocity(x, s, r), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(problem.mean_velocity(x, s, s), problem.slope(x, s), rtol=1e-12, atol=0)
        assert problem.student.nfe == 48


@pytest.mark.parametrize("own", [False, True])
@KINDS
@PATHS
def test_a_joint_map_is_the_map_and_its_slope(kind, path, own, seeded):
    problem, x, s, r = bound(OWN[kind] if own else kind, path, 12, seeded())
    calls = []
    problem.student.net.register_forward_hook(lambda *_: calls.append(1))
    displace, slope = joint_map(problem, 7, x[7:], s[7:])
    moved, velocity = displace(x[:7], s[:7], r[:7]), slope(x[7:], s[7:])
    assert len(calls) == 2 - problem.tells_mean_velocity and problem.student.nfe == 12
    first, last = problem.rows(slice(0, 7)), problem.rows(slice(7, 12))
    torch.testing.assert_close(moved, first.displace(x[:7], s[:7], r[:7]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(velocity, last.slope(x[7:], s[7:]), rtol=1e-10, atol=1e-12)


def test_the_last_rows_may_be_asked_alone(seeded):
    problem, x, s, _ = bound(DiamondMap, Linear(), 6, seeded())
    last = problem.rows(slice(4, 6))
    asked = Jointly(problem.velocity, last.velocity, x[4:], s[4:])
    torch.testing.assert_close(asked.rest(), last.velocity(x[4:], s[4:]))
    assert problem.source.nfe == 4  # twice two


@pytest.mark.parametrize(
    "loss, supervision", [*[(loss, "teacher") for loss in LOSSES], ("lsd", "data"), ("psd", "data")]
)
@KINDS
@PATHS
def test_a_step_is_what_its_parts_are_apart(kind, path, loss, supervision, seeded, monkeypatch):
    """Terms, gradients, evaluations and the state of the generator; with labels, and the learned weighting."""
    z, cond = torch.randn(20, 2, generator=seeded(1)), torch.arange(20) % 4

    def step(kind):
        generator, student, teacher = seeded(2), student_of(kind, path), Flow(network(), path)
        objective = MapObjective(teacher, loss, supervision=supervision, weighting="learned")
        terms = objective(student, objective.prepare(student, z, cond, generator), generator)
        sum(terms.values()).backward()
        return terms, [p.grad for p in student.parameters()], (student.nfe, teacher.nfe), generator.get_state()

    joint = step(kind)
    monkeypatch.setattr(distill.objectives, "Jointly", Apart)
    apart = step(OWN[kind])
    assert list(joint[0]) == list(apart[0]) == [loss, "diagonal"]
    torch.testing.assert_close(joint[:2], apart[:2], rtol=1e-8, atol=1e-11)
    assert joint[2] == apart[2] and torch.equal(joint[3], apart[3])


@KINDS
@pytest.mark.parametrize("loss, calls", [("trajectory", 1), ("psd", 3), ("lsd", 2), ("esd", 2), ("meanflow", 2)])
def test_a_step_calls_the_student_once_but_for_derivatives_and_hops(kind, loss, calls, seeded):
    """And the teacher once."""
    student, teacher = student_of(kind, Linear()), Flow(network(), Linear())
    objective, z = MapObjective(teacher, loss), torch.randn(20, 2, generator=seeded(1))
    prepared = objective.prepare(student, z, None, seeded(2))
    asked = []
    student.net.register_forward_hook(lambda *_: asked.append("student"))
    teacher.net.register_forward_hook(lambda *_: asked.append("teacher"))
    objective(student, prepared, seeded(3))
    assert asked.count("student") == calls and asked.count("teacher") == 1


@pytest.mark.parametrize("off_diagonal, terms", [(0.0, ["diagonal"]), (1.0, ["psd"])])
@KINDS
def test_a_batch_of_one_part_has_no_other(kind, off_diagonal, terms, seeded):
    student, teacher = student_of(kind, Linear()), Flow(network(), Linear())
    objective, z = MapObjective(teacher, "psd", off_diagonal=off_diagonal), torch.randn(6, 2, generator=seeded(1))
    rows = []
    student.net.register_forward_hook(lambda net, given, out: rows.append(len(out)))
    found = objective(student, objective.prepare(student, z, None, seeded(2)), seeded(3))
    assert list(found) == terms and set(rows) == {6}
