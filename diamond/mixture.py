r"""Gaussian mixtures: the model for which everything is known in closed form, and the yardstick of every test.

Data :math:`z \sim \sum_k w_k N(m_k, Q_k \Lambda_k Q_k^T)`. A noisy look at them has components
:math:`N(\alpha m_k, Q_k V_k Q_k^T)` with :math:`V_k = \alpha^2 \Lambda_k + \sigma^2`, so that in the eigenbasis
:math:`u_k = Q_k^T (x - \alpha m_k)` every quantity at every time is diagonal. The posterior :math:`p(z \mid x_t)` is
the mixture with

.. math::
    w_k(x) \propto w_k N(u_k; 0, V_k), \qquad
    m_k(x) = m_k + Q_k \, \alpha \Lambda_k V_k^{-1} u_k, \qquad
    \Lambda_k(x) = \sigma^2 \Lambda_k V_k^{-1}.

Tilting a mixture by :math:`r(z) = b \cdot z - \tfrac{p}{2} |z|^2` gives a mixture again: with :math:`\mu = Q^T m` and
:math:`\beta = Q^T b`, componentwise,

.. math::
    \Lambda' = \frac{\Lambda}{1 + p \Lambda}, \qquad
    \mu' = \frac{\mu + \Lambda \beta}{1 + p \Lambda}, \qquad
    \log E[e^r] = \sum_d \frac{\beta \mu + \Lambda \beta^2 / 2 - p \mu^2 / 2}{1 + p \Lambda} - \tfrac12 \log(1 + p \Lambda).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from torch import Tensor

from .interpolant import Interpolant, Linear, per_sample
from .model import Model
from .randomness import Generator, normal, uniform
from .transition import gaussian_step
from .validation import as_times, check_later, check_positive, check_state, shared

__all__ = ["GaussianMixtureFlow"]


class Mixture(NamedTuple):
    """One mixture a row, in the components' eigenbases."""

    log_weights: Tensor  # (B, K)
    means: Tensor  # (B, K, D), rotated: Q_k^T m_k
    variances: Tensor  # (B, K, D)


class GaussianMixtureFlow(Model):
    """The exact flow model of a Gaussian mixture. Its network evaluations cost nothing, and are counted as nothing.

    Arguments:
        weights: `(K,)`, positive; normalised here.
        means: `(K, D)`.
        covariances: `(K, D, D)`, symmetric positive semi-definite, or `(K,)` variances of isotropic components.
        interpolant: the path from noise, linear by default.

    Raises:
        ValueError: shapes that do not fit, weights that are not positive, means that are not finite, or a covariance
            that is not symmetric or has a negative eigenvalue.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    _eigenvalues: Tensor
    _basis: Tensor | None

    def __init__(
        self, weights: Tensor, means: Tensor, covariances: Tensor, interpolant: Interpolant | None = None
    ) -> None:
        weights, means, covariances = map(torch.as_tensor, (weights, means, covariances))
        if not means.is_floating_point():
            means = means.to(torch.get_default_dtype())
        weights, covariances = weights.to(means.dtype), covariances.to(means)
        if means.ndim != 2 or weights.shape != means.shape[:1] or not means.numel():
            raise ValueError(
                f"weights, means: got {tuple(weights.shape)} and {tuple(means.shape)}, expected (K,) and (K, D)"
            )
        components, size = means.shape
        if covariances.shape not in ((components,), (components, size, size)):
            raise ValueError(
                f"covariances: got {tuple(covariances.shape)}, expected ({components},) or ({components}, {size}, {size})"
            )
        if not bool((weights > 0).all() and weights.isfinite().all()):
            raise ValueError(f"weights: got {weights.tolist()}, expected positive numbers")
        if not bool(means.isfinite().all()):
            raise ValueError("means: got a number that is not finite, expected finite numbers")
        if covariances.ndim == 3 and not torch.allclose(covariances, covariances.mT, rtol=1e-4, equal_nan=True):
            raise ValueError("covariances: got a matrix that is not symmetric, expected symmetric ones")
        super().__init__(interpolant or Linear(), (size,))
        self.isotropic = covariances.ndim == 1
        if self.isotropic:
            eigenvalues, basis = covariances[:, None].expand(-1, size), None
        else:
            eigenvalues, basis = torch.linalg.eigh(covariances)
        if bool((eigenvalues < -1e-6 * eigenvalues.abs().amax()).any()) or not bool(eigenvalues.isfinite().all()):
            raise ValueError(f"covariances: got an eigenvalue of {float(eigenvalues.min()):g}, expected none below 0")
        self.register_buffer("weights", (weights / weights.sum()).to(means.dtype))
        self.register_buffer("means", means)
        self.register_buffer("covariances", covariances.to(means.dtype))
        self.register_buffer("_eigenvalues", eigenvalues.clamp_min(0).to(means.dtype), persistent=False)
        self.register_buffer("_basis", None if basis is None else basis.to(means.dtype), persistent=False)

    # ---------------------------------------------------------------- the law of the data

    def sample(self, n: int, *, generator: Generator = None) -> Tensor:
        """`n` exact samples of the data, `(n, D)`."""
        check_positive("n", n)
        return self._draw(self._data(n), 1, generator)[0]

    def tilt(self, linear: Tensor, precision: float = 0.0) -> GaussianMixtureFlow:
        """The law `p(z) exp(r(z)) / Z` for `r(z) = linear . z - precision |z|^2 / 2`, `linear` `(D,)`, as a mixture."""
        prior = self._data(1)
        tilted, log_z = self._tilt(prior, linear, precision)
        scale = self._eigenvalues / (1 + precision * self._eigenvalues)
        if self._basis is None:
            covariances = scale[:, 0]
        else:
            covariances = (self._basis * scale[:, None]) @ self._basis.mT
        weights = (prior.log_weights + log_z)[0].softmax(-1)
        return GaussianMixtureFlow(weights, self._unrotate(tilted.means)[0], covariances, self.interpolant)

    def log_normaliser(self, linear: Tensor, precision: float = 0.0) -> Tensor:
        """`log Z = log E[exp r(z)]` for the reward of :meth:`tilt`, a scalar."""
        return self._log_normaliser(self._data(1), linear, precision)[0]

    def mean(self) -> Tensor:
        """The mean of the data, `(D,)`."""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """The covariance of the data, `(D, D)`."""
        size = self.means.shape[1]
        full = self.covariances
        if self.isotropic:
            full = full[:, None, None] * torch.eye(size, dtype=full.dtype, device=full.device)
        centred = self.means - self.mean()
        return torch.einsum("k,kde->de", self.weights, full) + torch.einsum(
            "k,kd,ke->de", self.weights, centred, centred
        )

    # ---------------------------------------------------------------- what a noisy look tells

    def log_prob(self, x_t: Tensor, t: Tensor | float = 1.0) -> Tensor:
        """`log p_t(x_t)`, `(B,)`; the data's own density at t = 1."""
        check_state(x_t, self.event_shape)
        return self._components(x_t, as_times(t, x_t))[0].logsumexp(-1)

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """`E[z | x_t]`, `(B, D)`, exactly."""
        posterior = self._posterior(x_t, t)
        return torch.einsum("bk,bkd->bd", posterior.log_weights.exp(), self._unrotate(posterior.means))

    def score(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """`grad log p_t(x_t)`, `(B, D)`, exactly, and finite at t = 1 where no component is degenerate."""
        check_state(x_t, self.event_shape)
        log_joint, rotated, variances = self._components(x_t, as_times(t, x_t))
        slopes = self._unrotate(rotated / variances)
        return -torch.einsum("bk,bkd->bd", _along_components(torch.softmax, log_joint), slopes)

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """The probability-flow ODE's velocity, `(B, D)`, exactly: with `E[eps | x_t] = -sigma grad log p_t`."""
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        sigma = self.interpolant.sigma(t)
        noise = -per_sample(sigma, x_t) * torch.where(per_sample(sigma, x_t) > 0, self.score(x_t, t), 0.0)
        alpha_dot, sigma_dot = self.interpolant.alpha_dot(t), self.interpolant.sigma_dot(t)
        return per_sample(alpha_dot, x_t) * self.denoise(x_t, t) + per_sample(sigma_dot, x_t) * noise

    def posterior(
        self, x_t: Tensor, t: Tensor | float, n: int = 1, *, cond: Any = None, generator: Generator = None
    ) -> Tensor:
        """`n` exact draws of `z` given each `x_t` `(B, D)`: `(n, B, D)`.

        Where `x_t` asks for gradients they come by implicit reparametrisation, exactly in expectation: see
        :mod:`diamond.implicit`.
        """
        check_positive("n", n)
        law = self._posterior(x_t, t)
        detached = Mixture(*(field.detach() for field in law))
        z = self._draw(detached, n, generator)
        if not (torch.is_grad_enabled() and x_t.requires_grad):
            return z
        from .implicit import attach_gradient

        return attach_gradient(z, law.log_weights, self._unrotate(law.means), law.variances, self._basis)

    def transition(
        self,
        x_t: Tensor,
        t: Tensor | float,
        t_next: Tensor | float,
        *,
        rho: Tensor | float | None = None,
        cond: Any = None,
        generator: Generator = None,
    ) -> Tensor:
        """An exact draw of `x_{t_next}` given each `x_t`, with correlation `rho` (DDPM's by default): `(B, D)`."""
        check_state(x_t, self.event_shape)
        t, t_next = as_times(t, x_t), as_times(t_next, x_t, "t_next")
        check_later(t, t_next)
        z = self.posterior(x_t, t, generator=generator)[0]
        noise = normal(x_t.shape, generator, device=x_t.device, dtype=x_t.dtype)
        return gaussian_step(self.interpolant, x_t, z, t, t_next, rho, noise)

    def value(self, x_t: Tensor, t: Tensor | float, linear: Tensor, precision: float = 0.0) -> Tensor:
        """`V_t(x_t) = log E[exp r(z) | x_t]`, `(B,)`, for the reward of :meth:`tilt`; differentiable in `x_t`."""
        return self._log_normaliser(self._posterior(x_t, t), linear, precision)

    # ---------------------------------------------------------------- eigenbasis algebra

    def _rotate(self, x: Tensor, back: bool = False) -> Tensor:
        """`(..., K, D)` into each component's eigenbasis, or `back` out of it."""
        if self._basis is None:
            return x
        return torch.einsum("...kd,kde->...ke", x, self._basis.mT if back else self._basis)

    def _unrotate(self, x: Tensor) -> Tensor:
        return self._rotate(x, back=True)

    def _data(self, n: int) -> Mixture:
        fields = self.weights.log(), self._rotate(self.means), self._eigenvalues
        return Mixture(*(field.expand(n, *field.shape) for field in fields))

    def _components(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`log w_k N(u_k; 0, V_k)` `(B, K)`, `u_k` `(B, K, D)` and `V_k` `(B, K, D)` or, where the batch shares its time,
        `(1, K, D)`."""
        alpha, sigma = self._scales(x, t)
        # at t = 1 a component without width is the limit of a narrow one
        variances = (alpha.square() * self._eigenvalues + sigma.square()).clamp_min(1e-30)
        rotated = self._rotate(x[:, None] - alpha * self.means)
        exponent = torch.einsum("bkd,bkd->bk", rotated, rotated / variances)
        log_norm = (2 * torch.pi * variances).log().sum(-1)
        return self.weights.log() - 0.5 * (exponent + log_norm), rotated, variances

    def _scales(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """`alpha` and `sigma` at times `t` `(B,)`, `(B, 1, 1)`, or `(1, 1, 1)` of a time that the batch shares."""
        t = t[:1] if shared(t) else t
        alpha, sigma = self.interpolant.alpha(t), self.interpolant.sigma(t)
        return alpha.to(x.dtype)[:, None, None], sigma.to(x.dtype)[:, None, None]

    def _posterior(self, x: Tensor, t: Tensor | float) -> Mixture:
        check_state(x, self.event_shape)
        t = as_times(t, x)
        log_joint, rotated, variances = self._components(x, t)
        alpha, sigma = self._scales(x, t)
        gain = self._eigenvalues / variances
        means = self._rotate(self.means) + alpha * gain * rotated
        log_weights = _along_components(torch.log_softmax, log_joint)
        return Mixture(log_weights, means, (sigma.square() * gain).expand_as(means))

    def _tilt(self, law: Mixture, linear: Tensor, precision: float) -> tuple[Mixture, Tensor]:
        linear = torch.as_tensor(linear, dtype=law.means.dtype, device=law.means.device)
        if linear.shape != self.event_shape:
            raise ValueError(f"linear: got shape {tuple(linear.shape)}, expected {self.event_shape}")
        if not bool(linear.isfinite().all()):
            raise ValueError(f"linear: got {linear.tolist()}, expected finite numbers")
        slope = self._rotate(linear.expand(len(self.weights), -1))
        shrink = 1 + precision * law.variances
        if not bool((shrink > 0).all()):
            raise ValueError(
                f"precision: got {precision:g}, expected more than -1 over the largest variance, so that Z is finite"
            )
        means = (law.means + law.variances * slope) / shrink
        exponent = law.means * slope + law.variances * slope.square() / 2 - precision * law.means.square() / 2
        log_z = (exponent / shrink - 0.5 * shrink.log()).sum(-1)
        return Mixture(law.log_weights + log_z, means, law.variances / shrink), log_z

    def _log_normaliser(self, law: Mixture, linear: Tensor, precision: float) -> Tensor:
        return self._tilt(law, linear, precision)[0].log_weights.logsumexp(-1)

    def _draw(self, law: Mixture, n: int, generator: Generator) -> Tensor:
        """`(n, B, D)` draws, one of each row's mixture."""
        rows, components = law.log_weights.shape
        place: dict[str, Any] = {"device": law.means.device, "dtype": law.means.dtype, "batch_axis": 1}
        levels = law.log_weights.exp().cumsum(-1)
        chosen = (uniform((n, rows, 1), generator, **place) * levels[:, -1:] >= levels).sum(-1)
        chosen = chosen.clamp_max(components - 1)[..., None, None]  # (n, B, 1, 1)
        noise = normal((n, rows, self.event_shape[0]), generator, **place)
        index = chosen.expand(-1, -1, 1, noise.shape[-1])

        def of_chosen(field: Tensor) -> Tensor:
            return field.expand(n, *field.shape).gather(2, index).squeeze(2)

        z = of_chosen(law.means) + of_chosen(law.variances).sqrt() * noise
        if self._basis is None:
            return z
        return self._unrotate(z[:, :, None].expand(-1, -1, components, -1)).gather(2, index).squeeze(2)


def _along_components(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    """`function(x, -1)` of `x` `(B, K)`, a softmax or its logarithm: along a last axis as short as K torch is slow."""
    return function(x.mT.contiguous(), 0).mT
