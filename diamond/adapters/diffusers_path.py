r"""The path that a network of diffusers was trained on, seen from ours.

Such a network was trained on a path of its own, :math:`x' = a z + s \epsilon`, with time counted from data to noise. Two
paths differ by a scale and a change of time: our state :math:`x` at time `t` holds as much of the data as
:math:`x' = x / c` does, with :math:`c = |(\alpha_t, \sigma_t)|` in the norm that makes :math:`(a, s) = (\alpha_t, \sigma_t)
/ c` a pair of that path. From what the network gives come both means, :math:`D = E[z \mid x]` and :math:`E = E[\epsilon
\mid x]`, and the velocity :math:`\dot\alpha_t D + \dot\sigma_t E`, with nothing divided by the noise:

.. math::
    \text{epsilon:} \quad & D = (x' - s \, F) / a, && E = F                         &&(a^2 + s^2 = 1) \\
    \text{v:}       \quad & D = a x' - s \, F,     && E = s x' + a F                &&(a^2 + s^2 = 1) \\
    \text{sample:}  \quad & D = F,                 && E = (x' - a \, F) / s         &&(a^2 + s^2 = 1) \\
    \text{flow:}    \quad & D = x' - s F,          && E = x' + a F                  &&(a + s = 1)

A variance-preserving network is told the step `k` of its scheduler at which :math:`\log
\frac{\bar\alpha_k}{1-\bar\alpha_k} = \log \frac{a^2}{s^2}`, between steps by linear interpolation, and the nearest one
beyond the first and last; a flow's is told :math:`s` times the number of steps. Noisier than the last step the signal
in the quotient of "epsilon" is that step's.

References:
    | Denoising Diffusion Implicit Models (Song et al., 2020), https://arxiv.org/abs/2010.02502, section 4.1
    | Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022),
    | https://arxiv.org/abs/2202.00512, section 4 (v)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from torch import Tensor

from ..interpolant import Interpolant, per_sample
from ..validation import check_choice

__all__ = ["PREDICTIONS", "Place", "TrainedPath", "log_snr_of", "prediction_of"]

PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow")


class Place(NamedTuple):
    """Where times `t` lie on the network's own path: our state is `size` times its state, which is `signal` times the
    data plus `noise` times the noise, and `step` is what the network is told; each `(B,)`."""

    size: Tensor
    signal: Tensor
    noise: Tensor
    step: Tensor


class TrainedPath:
    """The path of a network's training, and what the network's output means.

    Arguments:
        interpolant: our path.
        prediction: what the network gives: "epsilon", "v_prediction", "sample" or "flow".
        log_snr: `log(abar_k / (1 - abar_k))` of the steps that it was trained on, decreasing; none for a flow.
        steps: the number of steps, by which a flow's time is multiplied.

    Raises:
        ValueError: an unknown prediction, or a table that does not decrease.
    """

    def __init__(
        self, interpolant: Interpolant, prediction: str, log_snr: list[float] | None = None, steps: int = 1000
    ) -> None:
        self.interpolant, self.steps = interpolant, steps
        self.prediction = check_choice("prediction", prediction, PREDICTIONS)
        self.log_snr = None if prediction == "flow" else _table(log_snr)

    def place(self, t: Tensor) -> Place:
        """Where our times `t` `(B,)` lie."""
        alpha, sigma = self.interpolant.alpha(t), self.interpolant.sigma(t)
        size = alpha + sigma if self.prediction == "flow" else (alpha.square() + sigma.square()).sqrt()
        signal, noise = alpha / size, sigma / size
        return Place(size, signal, noise, noise * self.steps if self.log_snr is None else self._step(signal, noise))

    def velocity(self, x: Tensor, output: Tensor, t: Tensor, place: Place) -> Tensor:
        """Our velocity `(B, *event)`, from the network's own state `x` and its `output` there."""
        mean, noise = self.means(x, output, place)
        path = self.interpolant
        return per_sample(path.alpha_dot(t), x) * mean + per_sample(path.sigma_dot(t), x) * noise

    def means(self, x: Tensor, output: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """`E[z | x]` and `E[eps | x]`, each `(B, *event)`, from the network's own state `x` and its `output` there."""
        a, s = per_sample(place.signal, x), per_sample(place.noise, x)
        if self.prediction == "flow":
            return x - s * output, x + a * output
        if self.prediction == "v_prediction":
            return a * x - s * output, s * x + a * output
        if self.prediction == "sample":
            safe = torch.where(s > 0, s, 1.0)
            return output, torch.where(s > 0, (x - a * output) / safe, 0.0)
        assert self.log_snr is not None
        least = self.log_snr[-1].sigmoid().sqrt().to(place.signal)
        held = place.signal.clamp_min(least)
        mean = (x - per_sample((1 - held.square()).clamp_min(0).sqrt(), x) * output) / per_sample(held, x)
        early = per_sample(place.signal < least, x).bool()  # where `output` and `mean` do not make up `x`
        return mean, torch.where(early, (x - a * mean) / torch.where(early, s, 1.0), output)

    def time(self, step: Tensor) -> Tensor:
        """Our times at which the network is told these steps `(K,)`, whole or broken, in float64."""
        if self.log_snr is None:
            noise = step.double() / self.steps
            return self.interpolant.time_of(1 - noise, noise)
        low = step.double().floor().clamp(0, len(self.log_snr) - 2)
        table = self.log_snr.to(step.device)
        log_snr = torch.lerp(table[low.long()], table[low.long() + 1], step.double() - low)
        return self.interpolant.time_of(log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt())

    def _step(self, signal: Tensor, noise: Tensor) -> Tensor:
        """The step `(B,)` of the scheduler at this ratio of signal to noise, a real number."""
        assert self.log_snr is not None
        rising = self.log_snr.flip(0).to(signal.device)
        ratio = 2 * (signal.double().clamp_min(1e-12).log() - noise.double().clamp_min(1e-12).log())
        above = torch.searchsorted(rising, ratio.detach().contiguous()).clamp(1, len(rising) - 1)
        low, high = rising[above - 1], rising[above]
        share = ((ratio - low) / (high - low)).clamp(0, 1)
        return (len(rising) - above - share).to(signal.dtype)


def prediction_of(scheduler: Any) -> str:
    """What the networks of a scheduler predict, "epsilon" without one."""
    if scheduler is None:
        return "epsilon"
    if "FlowMatch" in type(scheduler).__name__:
        return "flow"
    return scheduler.config.get("prediction_type", "epsilon")


def log_snr_of(scheduler: Any) -> list[float]:
    """`log(abar_k / (1 - abar_k))` of a scheduler's steps, DDPM's of diffusers without one.

    Raises:
        ValueError: it has no table of them, or tells its networks something else than their numbers.
    """
    if scheduler is None:
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler()
    kept = getattr(scheduler, "alphas_cumprod", None)
    if kept is None:
        raise ValueError(
            f"scheduler: got a {type(scheduler).__name__}, expected one with alphas_cumprod, or prediction='flow'"
        )
    config = scheduler.config
    if config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction":
        raise ValueError(
            f"scheduler: got a {type(scheduler).__name__} of timestep_type='continuous', which tells its network noise "
            "levels, expected 'discrete'"
        )
    signal = kept.double().cpu().clone()
    if not 0 < signal[-1] < signal[-2]:  # a last step without signal, which has no logarithm
        signal[-1] = signal[-2] / 16
    return torch.logit(signal).tolist()


def _table(log_snr: list[float] | None) -> Tensor:
    table = torch.tensor(log_snr or [], dtype=torch.float64)
    if len(table) < 2 or not bool((table.diff() < 0).all()) or not bool(table.isfinite().all()):
        raise ValueError(f"log_snr: got {len(table)} steps, expected two or more finite numbers that decrease")
    return table
