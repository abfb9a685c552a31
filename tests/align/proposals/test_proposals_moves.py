"""Proposals, move by move, against the exact kernel.

A guided move that owes `c` must give `E[exp(c) f(x')]` of the plain transition, for every state: its moments are known
in closed form.
"""

import math

import pytest
import torch

from align.population import Population
from align.potentials import Potentials
from align.proposals import LONGEST, RESERVE, owed_for_shift, proposal_named
from diamond.interpolant import Cosine

MOVES = 10_000
STATE = torch.tensor([[0.2, -0.1]], dtype=torch.float64)


def test_a_shift_owes_the_ratio_of_two_densities(seeded):
    source = seeded()
    shift, noise = (torch.randn(50, 3, 2, generator=source, dtype=torch.float64) for _ in range(2))
    law = torch.distributions.Normal(torch.zeros(3, 2, dtype=torch.float64), 1.0)
    expected = (law.log_prob(noise + shift) - law.log_prob(noise)).sum((1, 2))
    torch.testing.assert_close(owed_for_shift(shift, noise, torch.float64), expected)


def moves(model, reward, name, t, t_next, mc=4, rho=None, strength=1.0, beta=None, antithetic=False):
    """Many moves of one state, and what each owes: `(MOVES, 2)`, `(MOVES,)`."""
    generator = torch.Generator().manual_seed(0)
    population = Population(model, reward, MOVES, 1, generator=generator)
    tempering = None if beta is None else lambda t: beta
    like = torch.zeros(1, dtype=torch.float64)
    options = {"antithetic": antithetic, "tempering": tempering, "keep_draws": name == "lookahead"}
    potentials = Potentials(population, None, mc, like=like, **options)
    x = STATE.expand(MOVES, -1)
    with torch.no_grad():
        potentials.advance(x, t, like)
        after, owed = proposal_named(name, population, potentials, rho, strength)(x, t, t_next)
    return after, torch.zeros(MOVES, dtype=torch.float64) if owed is None else owed[0]


KERNELS = [
    ("lookahead", None, 1), ("lookahead", None, 5), ("lookahead", 0.0, 2), ("lookahead", 0.6, 5), ("lookahead", 1.0, 3),
    ("score", None, 2), ("score", 0.6, 5), ("score", 0.0, 3), ("plugin", 0.0, 1), ("plugin", 0.6, 1),
    ("reparam", 0.6, 1),
]  # fmt: skip


@pytest.mark.parametrize("name, rho, mc", KERNELS)
def test_a_move_and_what_it_owes_are_the_plain_transition(
    name, rho, mc, correlated, gentle, check_mean, kernel_moments
):
    model = correlated(Cosine())
    after, owed = moves(model, gentle, name, 0.4, 0.55, mc, rho)
    assert (float(owed.std()) > 0.01) == (name != "lookahead" or mc > 1)
    mean, covariance = kernel_moments(model, STATE, 0.4, 0.55, rho)
    gap, weight = after - mean, owed.exp()
    check_mean(weight, 1.0, limit=4)
    check_mean(weight[:, None] * gap, torch.zeros(2, dtype=torch.float64), limit=4)
    check_mean(weight[:, None, None] * gap[:, :, None] * gap[:, None], covariance[0], limit=4)


@pytest.mark.parametrize("beta", [None, 0.3])
def test_the_last_look_ahead_is_importance_resampling_of_the_draws(
    beta, case_a, mild, check_mean, posterior_law, moments
):
    after, owed = moves(case_a, mild, "lookahead", 0.4, 1.0, 5, beta=beta)
    mean, covariance = moments(*posterior_law(case_a, STATE, 0.4))
    gap, weight = after - mean, owed.exp()
    check_mean(weight, 1.0, limit=4)
    check_mean(weight[:, None] * gap, torch.zeros(2, dtype=torch.float64), limit=4)
    check_mean(weight[:, None, None] * gap[:, :, None] * gap[:, None], covariance[0], limit=4)
    # what it owes and the tempered reward of the chosen draw add up to the log-mean-exp of the draws: unbiased
    level = owed + (1.0 if beta is None else beta) * mild(after)
    tempered = mild if beta is None else type(mild)(mild.centre.tolist(), mild.width2 / beta)
    check_mean((level - tempered.value(case_a, STATE, 0.4)).exp(), 1.0, limit=4)


@pytest.mark.parametrize("strength, beta", [(1.0, None), (0.4, None), (1.0, 0.5)])
def test_gradients_shift_the_mean_by_the_variance_times_them(
    strength, beta, case_a, gentle, check_mean, kernel_moments
):
    """`E[x'] = m + strength s^2 grad V`, with s the step's own noise, here of correlation 0.5 on the linear path."""
    after, _ = moves(case_a, gentle, "score", 0.4, 0.6, 24, 0.5, strength, beta)
    tempered = gentle if beta is None else type(gentle)(gentle.centre.tolist(), gentle.width2 / beta)
    leaf = STATE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(tempered.value(case_a, leaf, 0.4).sum(), leaf)
    variance = 0.4**2 * (1 - 0.5**2)
    expected = kernel_moments(case_a, STATE, 0.4, 0.6, 0.5)[0][0] + strength * variance * slope[0]
    check_mean(after, expected, limit=4, slack=0.1 * strength * variance * float(slope.abs().max()))
    assert strength * variance * float(slope.abs().max()) > 0.03


def test_the_plugin_shift_is_exact(normal_law, quadratic, check_mean, kernel_moments):
    model, reward = normal_law([0.5, -0.3], torch.eye(2, dtype=torch.float64) * 0.6), quadratic([-0.5, 0.5], 1.0)
    after, owed = moves(model, reward, "plugin", 0.4, 0.6)
    gain = 0.4 * 0.6 / (0.4**2 * 0.6 + 0.6**2)
    slope = -gain * (model.denoise(STATE, 0.4)[0] - reward.centre)
    variance = 0.4**2 - (0.4**2 * 0.4 / (0.6 * 0.6)) ** 2  # of DDPM's step, whose correlation is 0.4 0.4 / 0.6 0.6
    mean, covariance = kernel_moments(model, STATE, 0.4, 0.6)
    check_mean(after, mean[0] + variance * slope, limit=4)
    check_mean(owed, -variance * slope.square().sum() / 2, limit=4)
    check_mean((owed - owed.mean()).square(), variance * slope.square().sum(), limit=4)


def test_a_look_ahead_moves_as_the_guided_denoiser_would(case_a, gentle, check_mean, kernel_moments):
    """`E[x'] = m + (1 - reserve) a (E_w[z] - E[z])`, where `E_w[z] - E[z] = s^2 / a grad V` with many draws."""
    after, _ = moves(case_a, gentle, "lookahead", 0.4, 0.6, 32)
    leaf = STATE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gentle.value(case_a, leaf, 0.4).sum(), leaf)
    signal = 0.6 - (0.4 * 0.4 / (0.6 * 0.6)) * (0.4 / 0.6) * 0.4
    shift = (1 - RESERVE) * signal * 0.6**2 / 0.4 * slope[0]
    expected = kernel_moments(case_a, STATE, 0.4, 0.6)[0][0] + shift
    check_mean(after, expected, limit=4, slack=0.05 * float(shift.abs().max()))
    assert float(shift.abs().max()) > 0.1


def test_no_factor_of_a_look_ahead_exceeds_the_reserve(case_a, hard):
    """However far one draw's reward lies above the others'."""
    for rho in (None, 0.9, 1.0):
        _, owed = moves(case_a, hard, "lookahead", 0.4, 0.6, 8, rho)
        assert float(owed.max()) <= -math.log(RESERVE) + 1e-9
        assert float(owed.min()) < -0.5


def test_hopeless_draws_are_chosen_evenly(case_a):
    after, owed = moves(case_a, lambda z: torch.full((len(z),), -torch.inf), "lookahead", 0.4, 1.0, 3)
    assert not owed.abs().gt(1e-12).any()
    plain, _ = moves(case_a, lambda z: 0 * z[:, 0], "lookahead", 0.4, 1.0, 3)
    assert torch.equal(after, plain)


def test_kept_draws_move_with_their_particles_and_rewards(case_a, mild, seeded):
    """Any choice among the draws is exact, a wrong one merely useless: no law would tell."""
    population, like = Population(case_a, mild, 3, 2, generator=seeded()), torch.zeros(1, dtype=torch.float64)
    potentials = Potentials(population, None, 5, keep_draws=True, like=like)
    potentials.advance(case_a.prior(6, generator=seeded()), 0.4, like)
    before = potentials.draws[0]
    potentials.move(torch.tensor([[2, 2, 0], [1, 0, 0]]))
    assert torch.equal(potentials.draws[0], before[:, [2, 2, 0, 4, 3, 3]])
    assert torch.equal(potentials.draws[1], mild(potentials.draws[0]))


def test_a_look_ahead_chooses_at_its_own_populations_temperature(case_a, mild, family):
    """One that is cold beside one that is hot moves as it would alone."""

    def moved(betas, seeds):
        batch = len(betas)
        population = Population(case_a, mild, 200, batch, generator=family(seeds))
        potentials = Potentials(
            population, None, 4, tempering=lambda t: 1.0, keep_draws=True, like=torch.zeros(1, dtype=torch.float64)
        )
        x = population.prior()
        potentials.advance(x, 0.4, torch.zeros(population.shape, dtype=torch.float64))
        potentials.beta = torch.tensor(betas, dtype=torch.float64)[:, None]
        return proposal_named("lookahead", population, potentials, None)(x, 0.4, 1.0)[1]

    together = moved([0.05, 1.0], [1, 2])
    assert torch.allclose(together[:1], moved([0.05], [1]))
    assert torch.allclose(together[1:], moved([1.0], [2]))
    assert together[0].std() < 0.5 * together[1].std()


def test_antithetic_draws_are_looked_ahead_at_too(case_a, gentle, check_mean, kernel_moments):
    after, owed = moves(case_a, gentle, "lookahead", 0.4, 0.55, 4, antithetic=True)
    mean, covariance = kernel_moments(case_a, STATE, 0.4, 0.55)
    gap, weight = after - mean, owed.exp()
    check_mean(weight[:, None] * gap, torch.zeros(2, dtype=torch.float64), limit=4)
    check_mean(weight[:, None, None] * gap[:, :, None] * gap[:, None], covariance[0], limit=4)


def test_shifts_are_cut_to_their_longest(case_a, quadratic):
    """What a shift of length c owes has mean -c^2 / 2 and variance c^2."""
    steep = quadratic([-9.0, 9.0], 0.01)
    _, owed = moves(case_a, steep, "plugin", 0.5, 0.7)
    assert float(owed.mean()) == pytest.approx(-(LONGEST**2) / 2, abs=4 * LONGEST / MOVES**0.5)
    assert float(owed.std()) == pytest.approx(LONGEST, rel=0.03)
