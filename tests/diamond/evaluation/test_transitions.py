"""Chains of transitions against the marginals of a mixture."""

import pytest
import torch

from diamond.evaluation import chain_states, marginal_distances


class PlugIn:
    """Transitions that take the posterior mean for the clean data: too narrow."""

    def __init__(self, model):
        self.model, self.prior, self.interpolant = model, model.prior, model.interpolant

    def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
        noise = torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype)
        time = torch.full((len(x_t),), t_next, dtype=x_t.dtype)
        return self.interpolant.interpolate(self.model.denoise(x_t, t), noise, time)


def distances(model, exact, seeded):
    states = chain_states(model, 4000, 4, generator=seeded(1))
    return marginal_distances(
        exact.interpolant, states, exact.sample(4000, generator=seeded(2)), 40, generator=seeded()
    )


def test_an_exact_chain_has_the_marginals_of_noised_data(correlated, path, seeded, check_mean):
    model = correlated(path)
    found = distances(model, model, seeded)
    assert found.shape == (4, 40)
    check_mean(found.T, torch.zeros(4).double())


def test_a_chain_that_is_too_narrow_is_seen(correlated, seeded):
    model = correlated()
    found = distances(PlugIn(model), model, seeded)
    error = found.std(1) / 40**0.5
    assert bool((found.mean(1) > 6 * error)[1:].all())  # the first step has little to get wrong


def test_samples_alone_are_one_state_at_the_end(correlated, seeded, check_mean):
    model = correlated()
    z, samples = (model.sample(2000, generator=seeded(seed)) for seed in (1, 2))
    found = marginal_distances(model.interpolant, [samples], z, 20)
    check_mean(found.T, torch.zeros(1).double())
    assert bool((marginal_distances(model.interpolant, [samples + 1], z, 20) > 0.1).all())


def test_what_is_refused(correlated):
    model = correlated()
    with pytest.raises(ValueError, match="^n: got 0"):
        chain_states(model, 0)
    with pytest.raises(ValueError, match="^sets: got 0"):
        marginal_distances(model.interpolant, [torch.zeros(4, 2)], torch.zeros(4, 2), 0)
    with pytest.raises(ValueError, match="^x, y: got shapes"):
        marginal_distances(model.interpolant, [torch.zeros(4, 2)], torch.zeros(4, 2), 4)
    for shape in ((8, 2), (2, 2), (4, 3)):
        with pytest.raises(ValueError, match=r"^z: got shape .*, expected that of the states, \(4, 2\)"):
            marginal_distances(model.interpolant, [torch.zeros(4, 2)], torch.zeros(shape), 2)
