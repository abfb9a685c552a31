r"""Gradients through draws from a Gaussian mixture.

A draw from a mixture chooses a component, and a choice has no derivative. Yet the draw is a smooth function of the
mixture's parameters :math:`\theta` in law: let :math:`F_i(z; \theta)` be the distribution function of :math:`z_i` given
:math:`z_{<i}`. Then :math:`F(z; \theta)` is uniform on the cube whatever :math:`\theta`, and holding it fixed gives

.. math:: \frac{dz}{d\theta} = - \left( \frac{\partial F}{\partial z} \right)^{-1} \frac{\partial F}{\partial \theta},

whose first factor is triangular. With components :math:`N(m_k, L_k L_k^T)` and :math:`e_k = L_k^{-1} (z - m_k)`,

.. math::
    F_i = \sum_k w_k^{(i)} \Phi(e_{ki}), \qquad
    w_k^{(i)} \propto w_k \prod_{j < i} \phi(e_{kj}) / (L_k)_{jj}.

References:
    | Implicit Reparameterization Gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498
"""

from __future__ import annotations

import torch

from torch import Tensor

__all__ = ["attach_gradient"]


def attach_gradient(z: Tensor, log_weights: Tensor, means: Tensor, variances: Tensor, basis: Tensor | None) -> Tensor:
    """Draws `z` `(n, B, D)`, unchanged in value, with the implicit gradient with respect to the mixtures' parameters.

    Arguments:
        z: draws from the mixtures, without a gradient.
        log_weights: `(B, K)`, normalised.
        means: `(B, K, D)`.
        variances: `(B, K, D)`, the eigenvalues of the covariances.
        basis: `(K, D, D)`, the eigenvectors, or None for the unit basis.
    """
    variances = variances.detach().clamp_min(1e-30)  # those of a posterior do not depend on x_t
    if basis is None:
        inverse_factor, log_diagonal = None, 0.5 * variances.log()
        whiten = lambda gap: gap / variances.sqrt()  # noqa: E731
    else:
        covariance = torch.einsum("kde,bke,kfe->bkdf", basis, variances, basis)
        factor = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device))
        inverse_factor, log_diagonal = torch.linalg.inv(factor), factor.diagonal(dim1=-2, dim2=-1).log()
        whiten = lambda gap: torch.einsum("bkde,nbke->nbkd", inverse_factor, gap)  # noqa: E731

    def conditional_levels(z: Tensor) -> Tensor:
        """`F(z)` `(n, B, D)`."""
        whitened = whiten(z[:, :, None] - means)
        log_steps = -0.5 * whitened.square() - log_diagonal
        before = log_steps.cumsum(-1) - log_steps  # the log density of z_{<i}, up to a constant
        weights = (log_weights[..., None] + before).softmax(dim=2)
        return (weights * torch.special.ndtr(whitened)).sum(2)

    with torch.no_grad():
        basis_vectors = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        columns = [torch.func.jvp(conditional_levels, (z,), (e.expand_as(z),))[1] for e in basis_vectors]
        slopes = torch.stack(columns, dim=-1)  # (n, B, D, D), lower triangular
        diagonal = slopes.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(z.dtype).tiny ** 0.5)
        slopes = slopes.tril(-1) + torch.diag_embed(diagonal)
    levels = conditional_levels(z)
    shift = torch.linalg.solve_triangular(slopes, (levels - levels.detach()).unsqueeze(-1), upper=False)
    return z - shift.squeeze(-1)
