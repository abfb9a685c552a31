r"""How particles move, and what a guided move owes.

A transition of any correlation is a posterior draw and a Gaussian step (:mod:`diamond.transition`),

.. math:: z \sim p(z \mid x_t), \qquad x_{t'} = \bar\alpha z + \gamma x_t + \bar\sigma \epsilon .

**Gradient.** The noise is shifted towards high values, :math:`\epsilon \to \epsilon + \delta` with :math:`\delta =
\bar\sigma \, \nabla V_t(x_t)`: for small steps it is Doob's transform, for any it is a proposal. It owes
:math:`\log N(\epsilon + \delta) - \log N(\epsilon) = - \delta \cdot \epsilon - |\delta|^2 / 2`. A few draws' gradient has
heavy tails, and a long shift hides mass where no particle is ever seen: shifts are cut to a length of 1.5. At t' = 1
there is no noise left to shift.

Both target the posterior draw and Gaussian step of the first line. A map's or GLASS flow's own transition has the same
law where the model is exact.

**Look-ahead.** The K draws :math:`z^k` that gave the value of :math:`x_t` are there already, and
:math:`W \propto \exp(\beta r(z^k))` tells the good ones. One is chosen by W, for no further call of the network and no
derivative of the reward. As a proposal it draws from :math:`\sum_k W_k N(x_{t'}; m_k, \bar\sigma^2)` with
:math:`m_k = \bar\alpha z^k + \gamma x_t`, and owes

.. math:: \log \tfrac1K \textstyle\sum_k N(x_{t'}; m_k, \bar\sigma^2) - \log \sum_k W_k N(x_{t'}; m_k, \bar\sigma^2),

whose mean over the draws is that of the plain transition. A tenth of W is shared evenly, so that no factor exceeds
ten: draws that are forbidden, or without noise to reach them from others, are rare moves and not lost ones. At t' = 1,
where :math:`\bar\sigma = 0`, all of W is the reward's, and this is :math:`\log \frac1K - \log W_k`: importance
resampling of the draws. But for that tenth, the mean of such a move is the guided denoiser's, by the gradient-free
identity :math:`E_w[z] - E[z] = \frac{\sigma_t^2}{\alpha_t} \nabla V_t`.

With either the evidence stays unbiased and the law exact, whatever the quality of gradients and draws.

References:
    | Twisted Diffusion Sampler (Wu et al., 2023), https://arxiv.org/abs/2306.17775 (shifted Gaussian steps)
    | Filtering via Simulation: Auxiliary Particle Filters (Pitt & Shephard, 1999),
    | https://doi.org/10.1080/01621459.1999.10474153 (choosing by a look ahead)
    | Weighted Average Importance Sampling and Defensive Mixture Distributions (Hesterberg, 1995),
    | https://doi.org/10.1080/00401706.1995.10484303 (the tenth)
"""

from __future__ import annotations

import math

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor

from diamond.interpolant import per_sample
from diamond.randomness import normal
from diamond.transition import transition_scales
from diamond.validation import check_choice

from .damping import as_schedule
from .draws import flat_events
from .gradient import ESTIMATORS, population_gradient
from .population import Population
from .potentials import Potentials
from .resampling import systematic
from .tempering import tempered

__all__ = ["PROPOSALS", "Proposal", "owed_for_shift", "proposal_named"]

PROPOSALS = ("lookahead", *ESTIMATORS)

LONGEST = 1.5  # of a shift of the noise, in its standard deviations
RESERVE = 0.1  # share of look-ahead moves, before the last, that choose among the draws evenly

Proposal = Callable[[Tensor, float, float], tuple[Tensor, Tensor | None]]
"""`(x, t, t_next)` to the moved rows and what the moves owe, `(batch, size)` or None for nothing."""


def proposal_named(
    name: str | None, population: Population, potentials: Potentials, rho: float | None, strength: Any = None
) -> Proposal:
    """The proposal of that name, with the `strength` of its gradient, a number or a function of t, 1 by default; without
    a name the model's own transition.

    Raises:
        ValueError: no proposal has that name.
    """

    def plain(x: Tensor, t: float, t_next: float) -> tuple[Tensor, None]:
        return population.transition(x, t, t_next, rho), None

    if name is None:
        return plain
    check_choice("proposal", name, PROPOSALS)

    strength_at = as_schedule("proposal_strength", 1.0 if strength is None else strength, least=0.0)

    def guided(x: Tensor, t: float, t_next: float) -> tuple[Tensor, Tensor | None]:
        if t == 0:  # noise tells nothing yet
            return plain(x, t, t_next)
        if name == "lookahead":
            return _look_ahead(population, potentials, x, t, t_next, rho)
        if t_next == 1:  # no noise to shift
            return plain(x, t, t_next)
        return _shifted(population, potentials, x, t, t_next, rho, name, strength_at(t))

    return guided


def _shifted(
    population: Population,
    potentials: Potentials,
    x: Tensor,
    t: float,
    t_next: float,
    rho: float | None,
    estimator: str,
    strength: float,
) -> tuple[Tensor, Tensor]:
    alpha, gamma, sigma = _scales(population, x, t, t_next, rho)
    beta = None if potentials.tempering is None else potentials.beta.expand(population.shape).flatten()
    slope = population_gradient(population, x, t, potentials.mc, estimator, potentials.antithetic, beta)
    z = population.posterior(x, t)
    noise = normal(x.shape, population.generator, device=x.device, dtype=x.dtype)
    shift = _bounded(strength * sigma * slope)
    owed = owed_for_shift(shift, noise, potentials.kept.dtype)
    return alpha * z + gamma * x + sigma * (noise + shift), owed.reshape(population.shape)


def owed_for_shift(shift: Tensor, noise: Tensor, dtype: torch.dtype) -> Tensor:
    """`log N(noise + shift) - log N(noise)` `(rows,)` in `dtype`, for standard normal `noise` `(rows, *event)`."""
    shift, noise = flat_events(shift).to(dtype), flat_events(noise).to(dtype)
    return -(shift * noise + shift.square() / 2).sum(1)


def _bounded(shift: Tensor) -> Tensor:
    """Shifts `(rows, *event)` cut to a length of at most `LONGEST`."""
    length = flat_events(shift).norm(dim=1)
    return per_sample(LONGEST / length.clamp_min(LONGEST), shift) * shift


def _look_ahead(
    population: Population, potentials: Potentials, x: Tensor, t: float, t_next: float, rho: float | None
) -> tuple[Tensor, Tensor]:
    assert potentials.draws is not None
    z, rewards = potentials.draws
    alpha, gamma, sigma = _scales(population, x, t, t_next, rho)
    beta = potentials.beta.expand(population.shape).flatten()
    logits = tempered(rewards, beta) if potentials.tempering is not None else rewards
    logits = torch.where((logits == -torch.inf).all(0), 0.0, logits)  # all are hopeless alike
    log_share = logits.log_softmax(0)
    if t_next < 1:
        even = torch.full_like(log_share, math.log(RESERVE / len(z)))
        log_share = torch.logaddexp(log_share + math.log1p(-RESERVE), even)
    chosen = systematic(log_share.T, count=1, generator=population.generator).T  # one draw a row
    means = alpha * z + gamma * x
    picked = means.gather(0, chosen.reshape(1, -1, *[1] * (x.ndim - 1)).expand(1, *x.shape))[0]
    if float(sigma.reshape(())) == 0:
        owed = -math.log(len(z)) - log_share.gather(0, chosen)[0]
        return picked, owed.reshape(population.shape)
    noise = normal(x.shape, population.generator, device=x.device, dtype=x.dtype)
    # (x' - m_k) / sigma = noise + (m_chosen - m_k) / sigma, without the cancellation of large numbers; in place, for
    # there are mc times as many of them as particles
    gaps = flat_events(means.neg_().add_(picked).div_(sigma).add_(noise), 2).to(log_share.dtype)
    log_densities = -gaps.square().sum(2) / 2
    owed = log_densities.logsumexp(0) - math.log(len(z)) - (log_densities + log_share).logsumexp(0)
    return picked + sigma * noise, owed.reshape(population.shape)


def _scales(population: Population, x: Tensor, t: float, t_next: float, rho: float | None) -> tuple[Tensor, ...]:
    now, then = (torch.tensor([time], dtype=torch.float64, device=x.device) for time in (t, t_next))
    return tuple(per_sample(scale, x) for scale in transition_scales(population.model.interpolant, now, then, rho))
