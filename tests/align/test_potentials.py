"""Potentials: their formulas on particles that never move, by hand, and the exact law of all of them."""

import math

import pytest
import torch

import align

PLACES = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
BATCH = 40

# of the particles at these places: the values at the two inner times x and 1 - 2 x, and the reward 3 x
FIRST = PLACES
KEPT = {  # Phi after the second step: V_2; V_1 + max(V_1, V_2); V_1 + (V_1 + V_2)
    "diff": torch.tensor([3.0, 0.0, -3.0], dtype=torch.float64),
    "max": torch.tensor([2.0, 1.0, 4.0], dtype=torch.float64),
    "sum": torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64),
}
LAST = torch.tensor([-3.0, 1.5, 6.0], dtype=torch.float64)


@pytest.fixture
def placed(still):
    """Particles that stand at the places above and never move."""

    class Placed(type(still)):
        def prior(self, n, *, generator=None):
            return PLACES.repeat(n // 3)[:, None]

    return Placed()


def value(x, t):
    return x[:, 0] if float(t[0]) < 0.5 else 1 - 2 * x[:, 0]


def reward(z):
    return 3 * z[:, 0]


def run(model, seen, **options):
    generator = torch.Generator().manual_seed(0)
    return align.smc(
        model, reward, 3, 3, batch=BATCH, value=value, generator=generator, callback=seen.append, **options
    )


@pytest.mark.parametrize("kind", KEPT)
def test_weights_are_the_potentials_formulas(kind, placed):
    """With a threshold so low that nothing is resampled."""
    seen = []
    out = run(placed, seen, potential=kind, ess_threshold=1e-9)
    for step, expected in zip(seen, (FIRST, KEPT[kind], LAST), strict=True):
        assert torch.allclose(step.log_weights, expected.expand(BATCH, 3), atol=1e-12)
    assert torch.allclose(out.log_z, (LAST.logsumexp(0) - math.log(3)).expand(BATCH))


@pytest.mark.parametrize("kind", KEPT)
def test_potentials_move_with_their_particles(kind, placed):
    """Resampled before each step where weights differ at all: each offspring has its ancestor's past."""
    seen = []
    out = run(placed, seen, potential=kind, ess_threshold=1.0, resampling="multinomial")
    table = torch.stack([FIRST, KEPT[kind], LAST])
    met = set()
    for row in range(BATCH):
        origin, log_w, log_z = [0, 1, 2], [0.0, 0.0, 0.0], 0.0
        for k in range(3):
            ancestors = out.ancestors[k, row].tolist()
            if k and max(log_w) - min(log_w) > 1e-9:
                log_z += math.log(sum(math.exp(w) for w in log_w) / 3)
                log_w = [0.0, 0.0, 0.0]
            else:
                assert ancestors == [0, 1, 2]
            origin = [origin[a] for a in ancestors]
            before = table[k - 1] if k else torch.zeros(3, dtype=torch.float64)
            log_w = [w + float(table[k][i] - before[i]) for w, i in zip(log_w, origin, strict=True)]
            assert seen[k].log_weights[row].tolist() == pytest.approx(log_w, abs=1e-9)
            met.add((k, *origin))
        assert out.samples[row, :, 0].tolist() == PLACES[origin].tolist()
        log_z += math.log(sum(math.exp(w) for w in log_w) / 3)
        assert float(out.log_z[row]) == pytest.approx(log_z, abs=1e-9)
    assert len(met) > 10


@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("options", [{}, {"mc": 3, "proposal": "lookahead"}, {"tempering": lambda t: t / 4, "mc": 2}])
def test_evidence_and_law_are_exact_for_any_potential(kind, options, case_a, gentle, check_tilt):
    if not options:
        options = {"value": lambda x, t: gentle(case_a.denoise(x, t))}
    generator = torch.Generator().manual_seed(1)
    out = align.smc(case_a, gentle, 24, 4, potential=kind, ess_threshold=1.0, batch=800, generator=generator, **options)
    assert (out.ancestors[1:] != torch.arange(24)).any()
    check_tilt(out, gentle.law(case_a), gentle.log_z(case_a))


def test_evidence_and_law_are_exact_with_potentials_that_say_never(case_a, mild, check_tilt):
    """A value of -inf is the worst and not the end."""
    for kind in ("max", "sum"):
        out = align.smc(
            case_a, mild, 32, 4, potential=kind, ess_threshold=0.9, batch=1000, generator=torch.Generator().manual_seed(2),
            value=lambda x, t: torch.where(x[:, 1] > 0.2, -torch.inf, 0.3 * x[:, 0]),
        )  # fmt: skip
        check_tilt(out, mild.law(case_a), mild.log_z(case_a))


def test_unknown_potentials_are_refused(case_a, mild):
    with pytest.raises(ValueError, match="^potential: got 'min', expected one of diff, max, sum"):
        align.smc(case_a, mild, potential="min")
