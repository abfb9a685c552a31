"""The losses as a step takes them: minimised, they end in the exact map; every network passes their derivatives."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow_map import FlowMap
from diamond.interpolant import Cosine, Linear
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Transformer, UNet, Whitened
from distill.losses import eulerian, lagrangian, mean_flow
from distill.objectives import FlowObjective, MapObjective
from distill.problems import FlowProblem, PosteriorProblem
from distill.shares import LOSSES, shares_of

KINDS = pytest.mark.parametrize("kind", ["flow map", "diamond map"])
SELF_TAUGHT = [name for name in LOSSES if name != "trajectory"]
START = (0.4, -0.5, 0.3)


def minimise(objective, student, data, steps, batch, generator, rate=0.1):
    """Adam from the student's start, its rate falling to zero; the student's last parameters."""
    optimizer = torch.optim.Adam([student.theta], betas=(0.8, 0.95))
    for step in range(steps):
        if step % objective.reuse == 0:
            prepared = objective.prepare(student, data.sample(batch, generator=generator), None, generator)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        torch.stack(list(objective(student, prepared, generator).values())).sum().backward()
        optimizer.step()
    return student.theta.detach()


@KINDS
@pytest.mark.parametrize("loss", LOSSES)
def test_a_teacher_leads_every_loss_to_the_exact_map(loss, kind, students, gaussian, seeded):
    """No residual is left there at any point, and so no noise: the parameters come as close as the steps allow, or as
    the teacher's ODE is integrated."""
    teacher = gaussian(Cosine())
    objective = MapObjective(teacher, loss, off_diagonal=0.5, points=24)
    theta = minimise(objective, students[kind](Cosine(), START), teacher, 70, 32, seeded(0))
    assert float(theta.abs().max()) < (0.01 if loss == "trajectory" else 1e-3), theta


@KINDS
@pytest.mark.parametrize("loss", SELF_TAUGHT)
def test_data_alone_lead_every_loss_to_the_exact_map(loss, kind, students, gaussian, seeded):
    """No teacher is there to be asked. Data leave a scatter of about 0.02 in each parameter."""
    objective = MapObjective(None, loss, supervision="data")
    theta = minimise(objective, students[kind](Linear(), START), gaussian(Linear()), 70, 512, seeded(1))
    assert float(theta.abs().max()) < 0.09, theta


@pytest.mark.parametrize("weighting", ["adaptive", "learned"])
def test_weighting_keeps_the_exact_map(weighting, students, gaussian, seeded):
    teacher = gaussian(Linear())
    objective = MapObjective(teacher, "psd", weighting=weighting)
    theta = minimise(objective, students["diamond map"](Linear(), START), teacher, 100, 32, seeded(0))
    assert float(theta.abs().max()) < 0.02, theta


def wild(net, seed=0):
    """The network with weights that are nowhere zero, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.double().parameters():
        parameter.data.normal_(std=0.7 / max(parameter.shape[-1], 1) ** 0.5, generator=generator)
    return net


NETWORKS = {
    "ResidualMLP": lambda **inputs: ResidualMLP((1, 4, 4), width=12, depth=2, embedding=8, **inputs),
    "Transformer": lambda **inputs: Transformer((1, 4, 4), width=8, depth=2, heads=2, **inputs),
    "Whitened": lambda **inputs: Whitened(ResidualMLP((16,), width=12, depth=2, embedding=8, **inputs), (1, 4, 4)),
    "Whitened, flat": lambda **inputs: Whitened(  # of data that do not vary in some direction
        ResidualMLP((16,), width=12, depth=2, embedding=8, **inputs), (1, 4, 4), data=torch.eye(16)[:8].view(8, 1, 4, 4)
    ),
    "UNet": lambda **inputs: UNet((1, 4, 4), width=8, multipliers=(1, 2), attention=2, embedding=8, **inputs),
}


@KINDS
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_passes_the_derivatives(name, kind, seeded):
    """Those of each loss by forward-mode differentiation, against central differences."""
    generator = seeded(0)
    z, noise, outer = torch.randn(3, 5, 1, 4, 4, generator=generator, dtype=torch.float64)
    s, r, t = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    s, r, t = s * 0.4 + 0.05, r * 0.4 + 0.5, t * 0.8 + 0.1
    if kind == "flow map":
        part = FlowProblem(None, FlowMap(wild(NETWORKS[name](times=1))))
    else:
        part = PosteriorProblem(None, DiamondMap(wild(NETWORKS[name](states=1, times=3))), outer, t)
    x, h = part.start(z, noise, s), 1e-5
    unit = torch.ones_like
    with torch.no_grad():
        u = part.velocity(x, s)
        along = (part.displace(x + h * u, s + h, r) - part.displace(x - h * u, s - h, r)) / (2 * h)
        onwards = (part.displace(x, s, r + h) - part.displace(x, s, r - h)) / (2 * h)
    assert float(along.square().mean()) > 1e-6 and float(onwards.square().mean()) > 1e-6
    zero = lambda x, s: torch.zeros_like(x)  # noqa: E731
    for found, expected in (
        (eulerian(part.displace, unit, x, s, r, u), along),
        (mean_flow(part.displace, unit, x, s, r, u), along),
        (lagrangian(part.displace, zero, unit, x, s, r), onwards),
    ):
        assert torch.allclose(found, expected.square().flatten(1).mean(1), rtol=1e-4, atol=0)
        grads = torch.autograd.grad(found.mean(), list(part.student.parameters()), allow_unused=True)
        assert all(g is not None and bool(g.isfinite().all()) for g in grads)


def test_the_diagonal_by_data_is_regressed_on_the_path(students, seeded):
    """All of the batch, and the residual that one would write down."""
    student, generator = students["diamond map"](Linear(), START), seeded(0)
    objective = MapObjective(None, supervision="data", off_diagonal=0.0)
    z = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    prepared = objective.prepare(student, z, None, generator)
    state = generator.get_state()
    terms = objective(student, prepared, generator)
    generator.set_state(state)
    from distill.objectives import noise_like
    from distill.times import LATEST, uniform_times

    s = uniform_times(6, generator, z.device, LATEST)
    noise = noise_like(z, generator)
    part = prepared.problem
    x = s.double()[:, None] * z + (1 - s)[:, None].double() * noise
    slope = student.inner_velocity(x, s, part.x_t, part.t)
    expected = (part.weight(s)[:, None] * (slope - (z - noise))).square().mean()
    assert set(terms) == {"diagonal"} and torch.allclose(terms["diagonal"], expected, rtol=1e-5)


def test_a_teacher_is_not_asked_where_data_supervise(students, seeded):
    class Silent(GaussianMixtureFlow):
        def denoise(self, *arguments, **options):
            raise AssertionError("asked")

    teacher = Silent(torch.ones(1), torch.zeros(1, 2), torch.ones(1))
    z = torch.randn(8, 2, generator=seeded(0), dtype=torch.float64)
    for loss in SELF_TAUGHT:
        objective, generator = MapObjective(teacher, loss, supervision="data"), seeded(1)
        for student in (students["flow map"](Linear()), students["diamond map"](Linear())):
            objective(student, objective.prepare(student, z, None, generator), generator)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"loss": "lds"}, "loss: got 'lds', expected one of lsd, esd, psd, meanflow, trajectory"),
        ({"supervision": "labels"}, "supervision: got 'labels', expected one of teacher, data"),
        ({"weighting": "heavy"}, "weighting: got 'heavy', expected one of adaptive, learned"),
        ({"times": "late"}, "times: got 'late', expected one of uniform, logit-normal, early"),
        ({"loss": "trajectory", "supervision": "data"}, "supervision: got 'data' with loss='trajectory'"),
        ({"teacher": None}, "teacher: got None, expected a flow model, or supervision='data'"),
        ({"off_diagonal": 1.5}, "off_diagonal: got 1.5, expected a share in"),
        ({"from_zero": -0.1}, "from_zero: got -0.1, expected a share in"),
        ({"to_one": 0.5}, "to_one: got 0.5 with loss='trajectory'"),
        ({"loss": "lsd", "to_one": 0.5}, "to_one: got 0.5 with loss='lsd'"),
        ({"loss": "esd", "to_one": 0.7, "from_zero": 0.4}, "from_zero, to_one: got 0.4 and 0.7"),
        ({"off_diagonal": "half"}, "off_diagonal: got 'half', expected a share in"),
        ({"from_noise": "some"}, "from_noise: got 'some', expected a share in"),
        ({"points": 0}, "points: got 0, expected a whole number of at least 1"),
        ({"points": 2.5}, "points: got 2.5, expected a whole number of at least 1"),
        ({"perceptual": torch.sin}, "perceptual: got builtin_function_or_method, expected a distill.Perceptual"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, gaussian):
    with pytest.raises(ValueError, match=message):
        MapObjective(**{"teacher": gaussian(Linear()), **arguments})
    if "times" in arguments:
        with pytest.raises(ValueError, match=message):
            FlowObjective(**arguments)


@pytest.mark.parametrize("loss", LOSSES)
def test_small_parts_still_see_both_kinds_of_points(loss, students, gaussian, seeded):
    """Rounding alone would leave a few rows without a diagonal, and one row without anything off it."""
    teacher, student = gaussian(Linear()), students["diamond map"](Linear(), START)
    objective = MapObjective(teacher, loss)
    for rows in (2, 3, 4):
        z = teacher.sample(rows, generator=seeded(0))
        assert set(objective(student, objective.prepare(student, z, None, seeded(1)), seeded(2))) == {loss, "diagonal"}
    with pytest.raises(ValueError, match="batch: got parts of one sample, of which off_diagonal=0.[59] cannot go off"):
        objective(student, objective.prepare(student, z[:1], None, seeded(1)), seeded(2))
    for share, name in ((0.0, "diagonal"), (1.0, loss)):
        alone = MapObjective(teacher, loss, off_diagonal=share)
        assert set(alone(student, alone.prepare(student, z[:1], None, seeded(1)), seeded(2))) == {name}


def test_an_edge_asked_for_takes_from_the_other():
    assert shares_of("esd", from_zero=0.8) == pytest.approx((0.5, 0.8, 0.2))
    assert shares_of("esd", from_zero=0.3) == (0.5, 0.3, 0.5)
    assert shares_of("lsd", off_diagonal=None) == LOSSES["lsd"]


def test_settings_tell_objectives_apart(gaussian):
    teacher = gaussian(Linear())
    every = [
        {}, {"loss": "psd"}, {"supervision": "data"}, {"weighting": "learned"}, {"times": "early"}, {"from_zero": 0.1},
        {"points": 4},
    ]  # fmt: skip
    settings = [str(MapObjective(teacher, **options).settings) for options in every]
    assert len(set(settings)) == len(every)
