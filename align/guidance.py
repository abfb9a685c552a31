r"""Value guidance: the flow of the tilted law.

The tilted law's flow has the denoiser :math:`D^r_t = D_t + \frac{\sigma_t^2}{\alpha_t} \nabla V_t`, that is the velocity
:math:`u_t + b_t \nabla V_t` with :math:`b_t = \sigma_t^2 \dot\alpha_t / \alpha_t - \sigma_t \dot\sigma_t`. Each step
carries the state on as the model's own samplers do, with :math:`D^r` in place of :math:`D`:

.. math:: x_{t'} = \alpha_{t'} D^r + \sqrt{\sigma_{t'}^2 - s^2} \; \frac{x_t - \alpha_t D^r}{\sigma_t} + s \, \epsilon,

:math:`s = 0` for the ODE. For the linear path this is Euler's method on :math:`u_t + b_t \nabla V_t`, exactly. At
:math:`t = 0` the gradient vanishes and its factor is infinite; the product is :math:`E_w[z] - E[z]`, which is what is
used there, and at every step by the gradient-free estimator.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Algorithm 1
    | Diffusion Posterior Sampling (Chung et al., 2022), https://arxiv.org/abs/2209.14687 (`estimator="plugin"`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.interpolant import per_sample
from diamond.model import PosteriorSampler
from diamond.randomness import normal
from diamond.transition import ddpm_correlation, gaussian_step
from diamond.validation import check_choice, check_positive

from .alignment import Alignment, Step
from .population import Population, time_grid
from .resampling import ess
from .scoring import Reward, Scorer
from .value import ESTIMATORS, mean_shift, value_gradient

__all__ = ["guide"]


@torch.no_grad()
def guide(
    model: PosteriorSampler,
    reward: Reward,
    particles: int = 8,
    steps: int = 16,
    mc: int = 4,
    *,
    estimator: str = "reparam",
    scale: float = 1.0,
    eta: float = 0.0,
    times: Tensor | Sequence[float] | None = None,
    batch: int = 1,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    progress: bool = False,
    callback: Callable[[Step], None] | None = None,
) -> Alignment:
    """Samples of the tilted law by its guided flow.

    The law is `p(z) exp(r(z)) / Z` in the limit of many steps and many draws. Finite `mc` biases it towards too high
    rewards and too little spread ("reparam" with `mc=1` follows the mean gradient of r), "plugin" does so for good, and
    a `scale` other than 1 changes it to no named law.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`, differentiable unless `estimator="score"`.
        particles: independent samples in each population.
        steps: steps from noise to data.
        mc: posterior draws for each gradient.
        estimator: "reparam", "score" (black-box rewards; `mc` of at least 2) or "plugin" (DPS; takes no draws): see
            :func:`align.value_gradient`.
        scale: factor of the gradient.
        eta: 0 follows the ODE, 1 the SDE with DDPM's noise; in between, that share of it.
        times: a grid from 0 to 1 in place of the uniform one of `steps`.
        batch, cond, generator, chunk, progress, callback: as in :func:`~align.best_of_n`.

    Raises:
        ValueError: an argument or a reward that does not fit; a reward without a derivative where one is needed.
    """
    check_positive("particles", particles), check_positive("mc", mc)
    check_choice("estimator", estimator, ESTIMATORS)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: got {eta}, expected a number in [0, 1]")
    grid = time_grid(steps, times)
    population = Population(model, particles, batch, cond, generator, chunk)
    scorer = Scorer(reward, chunk)
    path, backward = model.interpolant, 0
    x = population.prior()
    flat = torch.zeros(population.shape, device=x.device)
    for k, t, t_next in population.steps(grid, progress, "guide"):
        now, then = (torch.full((len(x),), time, device=x.device, dtype=torch.float64) for time in (t, t_next))
        z = population.denoise(x, t)
        before = population.cost()["nfe"]
        if estimator == "score" or (t == 0 and estimator == "reparam" and mc > 1):
            shift = mean_shift(
                model, scorer, x, now.to(x.dtype), mc, cond=population.cond, generator=population.generator, chunk=chunk
            )
        elif t == 0:
            shift = torch.zeros_like(x)  # one draw, or the mean, tells nothing here of how far the reward moves it
        else:
            gradient = value_gradient(
                model, scorer, x, t, mc, estimator, cond=population.cond, generator=population.generator, chunk=chunk
            )
            shift = per_sample(path.sigma(now).square() / path.alpha(now), x) * gradient
            backward += (population.cost()["nfe"] or 0) - (before or 0)
        noise = normal(x.shape, population.generator, device=x.device, dtype=x.dtype) if eta else torch.zeros_like(x)
        rho = (1 - eta**2 * (1 - ddpm_correlation(path, now, then).square())).sqrt()
        x = gaussian_step(path, x, z + scale * shift, now, then, rho, noise)
        if callback is not None:
            callback(Step(k, t_next, x.unflatten(0, population.shape), flat.clone(), ess(flat)))
    rewards = scorer(x, population.cond).reshape(population.shape)
    return Alignment(
        samples=x.unflatten(0, population.shape),
        rewards=rewards,
        log_weights=torch.zeros_like(rewards),
        ess=ess(flat).expand(len(grid) - 1, batch),
        ancestors=torch.arange(particles, device=x.device).expand(len(grid) - 1, *population.shape),
        nfe_backward=backward,
        reward_calls=scorer.calls // batch,
        method="guide",
        law=_law(estimator, scale, mc),
        settings={
            "particles": particles,
            "steps": len(grid) - 1,
            "mc": mc,
            "estimator": estimator,
            "scale": scale,
            "eta": eta,
        },
        **population.cost(),
    )


def _law(estimator: str, scale: float, mc: int) -> str:
    if scale != 1:
        return f"none: the gradient is scaled by {scale:g}"
    if estimator == "plugin":
        return "p(z) exp r(z) / Z with a Jensen bias: the reward is taken at the posterior mean"
    return f"p(z) exp r(z) / Z up to the steps' discretisation and the bias of {mc} draws a gradient"
