"""Events of any shape: a number, a vector, an image. What comes out depends on the numbers alone."""

import pytest
import torch

import align


class Reshaped:
    """A mixture on the line whose events have another shape."""

    def __init__(self, model, shape):
        self.model, self.interpolant, self.event_shape = model, model.interpolant, shape

    def _ask(self, method, x, *times, leading=1, **options):
        answer = getattr(self.model, method)(x.reshape(-1, 1), *times, **options)
        return answer.reshape(*answer.shape[:leading], *self.event_shape)

    def prior(self, n, *, generator=None):
        return self.model.prior(n, generator=generator).reshape(n, *self.event_shape)

    def posterior(self, x_t, t, n=1, *, cond=None, generator=None):
        return self._ask("posterior", x_t, t, n, leading=2, generator=generator)

    def transition(self, x_t, t, t_next, *, rho=None, cond=None, generator=None):
        return self._ask("transition", x_t, t, t_next, rho=rho, generator=generator)

    def velocity(self, x_t, t, *, cond=None):
        return self._ask("velocity", x_t, t)

    def denoise(self, x_t, t, *, cond=None):
        return self._ask("denoise", x_t, t)


def pull(z):
    return -(z.reshape(len(z)) + 1).square()


@pytest.mark.parametrize("shape", [(), (1, 1, 1)])
def test_algorithms_take_events_of_any_shape(shape, algorithm, line, seeded):
    vectors, other = (
        algorithm(Reshaped(line(), event), pull, generator=seeded(), batch=2, chunk=5) for event in [(1,), shape]
    )
    assert other.samples.shape == (*other.rewards.shape, *shape)
    assert torch.allclose(other.samples.flatten(), vectors.samples.flatten(), rtol=1e-12)
    assert torch.allclose(other.log_weights, vectors.log_weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (1, 1, 1)])
def test_values_take_events_of_any_shape(shape, line, seeded):
    x = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)
    vectors, other = (
        align.value(Reshaped(line(), event), pull, x.reshape(3, *event), 0.6, 4, control="plugin", generator=seeded())
        for event in [(1,), shape]
    )
    assert torch.allclose(other, vectors, rtol=1e-12)
