r"""Value guidance: the flow of the tilted law.

The tilted law's flow has the denoiser :math:`D^r_t = D_t + \frac{\sigma_t^2}{\alpha_t} \nabla V_t`, that is the velocity
:math:`u_t + b_t \nabla V_t` with :math:`b_t = \sigma_t^2 \dot\alpha_t / \alpha_t - \sigma_t \dot\sigma_t`. Each step
carries the state on as the model's own samplers do, with :math:`D^r` in place of :math:`D`:

.. math:: x_{t'} = \alpha_{t'} D^r + \sqrt{\sigma_{t'}^2 - s^2} \; \frac{x_t - \alpha_t D^r}{\sigma_t} + s \, \epsilon,

:math:`s = 0` for the ODE. For the linear path this is Euler's method on :math:`u_t + b_t \nabla V_t`, exactly. At
:math:`t = 0` the gradient vanishes and its factor is infinite; the product is :math:`E_w[z] - E[z]`, which is what is
used there, and at every step by the gradient-free estimator.

**Departures.** `strength="constant"` adds :math:`(t' - t) \, \lambda \nabla V_t` to the state, without :math:`b_t`;
`"drift"` adds :math:`\lambda (t' - t) |u_t| \, \nabla V_t / |\nabla V_t|`, each sample's gradient at a share of its
drift. Both follow no stated law.

**Correction.** With :math:`s > 0` guided and plain steps are Gaussians of one variance around different means, so the
guided walk is a proposal for the plain one and owes :math:`- \delta \cdot \epsilon - |\delta|^2 / 2` at each step, with
:math:`s \delta` the shift of the mean. With these weights times :math:`\exp r`, the samples follow the tilt of the law
that the *plain* walk samples, for any gradient and any departure, and the mean weight is an unbiased estimate of its
normaliser. The last step has no noise, and is not guided.

References:
    | Diamond Maps (Holderrieth et al., 2026), https://arxiv.org/abs/2602.05993, Algorithm 1 and the code's schedules
    | Diffusion Posterior Sampling (Chung et al., 2022), https://arxiv.org/abs/2209.14687 (`estimator="plugin"`)
    | Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models
    | (Kynkaanniemi et al., 2024), https://arxiv.org/abs/2404.07724
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch import Tensor

from diamond.interpolant import per_sample
from diamond.model import PosteriorSampler
from diamond.randomness import normal
from diamond.transition import TransitionScales, ddpm_correlation, transition_scales
from diamond.validation import check_choice, check_number, check_positive

from .alignment import Alignment, Step
from .arguments import check_callback
from .damping import as_schedule
from .draws import check_draws, flat_events
from .gradient import check_estimator, mean_shift, population_gradient
from .guided_flow import check_interval
from .population import Population
from .proposals import owed_for_shift
from .resampling import ess, log_mean_exp
from .scoring import Reward
from .time_grid import USUAL_STEPS, time_grid

__all__ = ["guide"]

STRENGTHS = ("exact", "constant", "drift")

ROUNDING = 1e-9  # of grid times, against the ends of an interval that mean the same


@torch.no_grad()
def guide(
    model: PosteriorSampler,
    reward: Reward | Sequence[Reward],
    particles: int = 8,
    steps: int | None = None,
    mc: int = 4,
    *,
    estimator: str = "reparam",
    antithetic: bool = False,
    scale: float | Callable[[float], float] = 1.0,
    strength: str = "exact",
    interval: tuple[float, float] = (0.0, 1.0),
    eta: float = 0.0,
    correct: bool = False,
    times: Tensor | Sequence[float] | None = None,
    batch: int = 1,
    cond: Any = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    chunk: int | None = None,
    reward_chunk: int | None = None,
    progress: bool = False,
    callback: Callable[[Step], None] | None = None,
) -> Alignment:
    """Samples of the tilted law by its guided flow.

    The law is `p(z) exp(r(z)) / Z` in the limit of many steps and many draws. Finite `mc` biases "reparam" towards too
    high rewards and too little spread (with `mc=1` it follows the mean gradient of r), and "score" towards too low ones
    (of a mild one it follows the share `1 - 1 / mc`, or all of it with antithetic draws). "plugin" goes too high for
    good, and a `scale`, `strength` or `interval` of one's own changes it to no named law. `correct` weighs the samples
    towards the tilt of the law that the same steps sample without guidance; it only weighs, and the weights of many steps
    or of a hard reward collapse: :func:`align.smc` with a gradient proposal resamples on the way.

    Arguments:
        model: any posterior sampler.
        reward: `reward(z)` or `reward(z, cond)`, `(N,)`, differentiable unless `estimator="score"`; a sequence gives
            each population its own.
        particles: independent samples in each population.
        steps: steps from noise to data, 16 by default, or as many as `times` has.
        mc: posterior draws for each gradient.
        estimator: "reparam", "score" (black-box rewards; `mc` of at least 2) or "plugin" (DPS; takes no draws): see
            :func:`align.value_gradient`.
        antithetic: draws in pairs of opposite noise; `mc` must be even.
        scale: factor of the gradient, or a function of t that gives it: see :func:`align.damping`.
        strength: "exact", or the departures "constant" and "drift".
        interval: the times between which steps are guided.
        eta: 0 follows the ODE, 1 the SDE with DDPM's noise; in between, that share of it.
        correct: weighs the samples for what guidance changed, as said above; needs `eta` above 0.
        times: a grid from 0 to 1 in place of the uniform one.
        batch, cond, generator, chunk, reward_chunk, progress, callback: as in :func:`~align.best_of_n`.

    Raises:
        ValueError: an argument or a reward that does not fit; a reward without a derivative where one is needed;
            a population whose rewards are all -inf.
        RewardFailure: an external judge has gone away; it keeps the samples and the rewards there were.
    """
    check_positive("particles", particles)
    check_draws(mc, antithetic)
    check_estimator(model, estimator)
    check_choice("strength", strength, STRENGTHS)
    check_callback(callback)
    eta = check_number("eta", eta, "a number in [0, 1]", lambda share: 0 <= share <= 1)
    _check_options(estimator, antithetic, eta, correct)
    low, high = check_interval(interval)
    grid = time_grid(steps, times, USUAL_STEPS["guide"])
    population = Population(model, reward, particles, batch, cond, generator, chunk, reward_chunk)
    lean = _Guidance(population, mc, estimator, antithetic, scale, strength)
    x = population.prior()
    owed = torch.zeros(population.shape, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    everyone, sizes = population.everyone(x.device), []
    for k, t, t_next in population.steps(grid, progress, "guide"):
        scales = _scales(population, x, t, t_next, eta)
        z = population.denoise(x, t)
        noise = normal(x.shape, population.generator, device=x.device, dtype=x.dtype) if eta else torch.zeros_like(x)
        step = per_sample(scales.sigma, x) * noise
        mean = per_sample(scales.alpha, x) * z + per_sample(scales.gamma, x) * x
        if low - ROUNDING <= t <= high + ROUNDING and not (correct and t_next == 1):
            shift = lean.shift(x, z, t, t_next, scales)
            if correct:
                owed = owed + owed_for_shift(shift / per_sample(scales.sigma, x), noise, owed.dtype).reshape(owed.shape)
            mean = mean + shift
        x = mean + step
        sizes.append(ess(owed))
        population.report(callback, k, t_next, x, owed, sizes[-1])
    rewards, parts = population.score(x)
    if correct:
        owed = owed + rewards
        sizes[-1] = ess(owed)
    return population.result(
        x,
        rewards,
        owed,
        parts,
        log_z=log_mean_exp(owed) if correct else None,
        ess=torch.stack(sizes),
        ancestors=everyone.expand(len(grid) - 1, *population.shape),
        method="guide",
        law=_law(estimator, scale, strength, (low, high), mc, correct),
        settings={
            "particles": particles, "steps": len(grid) - 1, "mc": mc, "estimator": estimator,
            "antithetic": antithetic, "strength": strength,
            "scale": scale if not callable(scale) else "schedule", "eta": eta, "interval": [low, high], "correct": correct,
            "times": None if times is None else grid.tolist(),
        },
    )  # fmt: skip


class _Guidance:
    """How far guidance shifts the states of a step."""

    def __init__(
        self,
        population: Population,
        mc: int,
        estimator: str,
        antithetic: bool,
        scale: float | Callable[[float], float],
        strength: str,
    ) -> None:
        self.population, self.mc, self.estimator, self.antithetic = population, mc, estimator, antithetic
        self.scale = as_schedule("scale", scale)
        self.strength = strength

    def shift(self, x: Tensor, z: Tensor, t: float, t_next: float, scales: TransitionScales) -> Tensor:
        """The shift of `x_{t_next}`, `(rows, *event)`, at states `x` with posterior means `z`."""
        moved = self._mean_shift(x, t)  # of the posterior mean
        if self.strength == "exact":
            return per_sample(self.scale(t) * scales.alpha, x) * moved
        path, now = self.population.model.interpolant, torch.tensor([t], device=x.device, dtype=torch.float64)
        if self.strength == "constant":
            slope = per_sample(path.alpha(now) / path.sigma(now).square(), x) * moved
        else:
            drift = path.velocity_from_denoiser(x, now.to(x.dtype).expand(len(x)), z)
            lengths = [flat_events(part).norm(dim=1) for part in (drift, moved)]
            share = torch.where(lengths[1] > 0, lengths[0] / torch.where(lengths[1] > 0, lengths[1], 1.0), 0.0)
            slope = per_sample(share, x) * moved  # along the gradient, which is a positive multiple
        return self.scale(t) * (t_next - t) * slope

    def _mean_shift(self, x: Tensor, t: float) -> Tensor:
        """`sigma^2 / alpha grad V`, `(rows, *event)`: how far the reward moves the posterior mean."""
        population = self.population
        if self.estimator == "score" or (t == 0 and self.estimator == "reparam" and self.mc > 1):
            blocks = population.blocks(x, t, self.mc, self.antithetic)
            return mean_shift(population.scorer, x, self.mc, blocks, population.reward_cond)
        if t == 0:
            return torch.zeros_like(x)  # one draw, or the mean, tells nothing here of how far the reward moves it
        slope = population_gradient(population, x, t, self.mc, self.estimator, self.antithetic)
        path, now = population.model.interpolant, torch.tensor([t], device=x.device, dtype=torch.float64)
        return per_sample(path.sigma(now).square() / path.alpha(now), x) * slope


def _scales(population: Population, x: Tensor, t: float, t_next: float, eta: float) -> TransitionScales:
    """The step `x_{t'} = alpha D + gamma x_t + sigma noise` of the ODE, or of the SDE with a share `eta` of the noise."""
    path = population.model.interpolant
    now, then = (torch.tensor([time], device=x.device, dtype=torch.float64) for time in (t, t_next))
    rho = (1 - eta**2 * (1 - ddpm_correlation(path, now, then).square())).sqrt()
    return transition_scales(path, now, then, rho)


def _check_options(estimator: str, antithetic: bool, eta: float, correct: bool) -> None:
    if correct and eta == 0:
        raise ValueError("correct: got True with eta=0, whose steps have no density to weigh; expected eta above 0")
    if antithetic and estimator == "plugin":
        raise ValueError("antithetic: got True with estimator='plugin', which takes no draws; leave one out")


def _law(estimator: str, scale: Any, strength: str, interval: tuple[float, float], mc: int, correct: bool) -> str:
    if correct:
        return "p(z) exp r(z) / Z by weight, with p the law of the unguided walk of these steps"
    if strength != "exact":
        return f"none: the gradient has {strength} strength"
    if callable(scale) or scale != 1:
        return f"none: the gradient is scaled by {'a schedule' if callable(scale) else format(scale, 'g')}"
    if interval != (0.0, 1.0):
        return f"none: only steps from {interval[0]:g} to {interval[1]:g} are guided"
    if estimator == "plugin":
        return "p(z) exp r(z) / Z with a Jensen bias: the reward is taken at the posterior mean"
    return f"p(z) exp r(z) / Z up to the steps' discretisation and the bias of {mc} draws a gradient"
