r"""A trained flow model: one network, three faces, and its samplers.

The probability-flow ODE :math:`\dot x = u_t(x)` carries noise at t = 0 to data at t = 1. The ancestral sampler adds
noise on the way and keeps every marginal in the limit of many steps: with :math:`\hat\epsilon = (x - \alpha_t D) /
\sigma_t`,

.. math:: x_{t'} = \alpha_{t'} D + \sqrt{\sigma_{t'}^2 - s^2} \, \hat\epsilon + s \, \epsilon, \qquad
          s = \eta \, \sigma_{t'} \sqrt{1 - \rho_{DDPM}^2}.

References:
    | Flow Matching (Lipman et al., 2022), https://arxiv.org/abs/2210.02747
    | Denoising Diffusion Implicit Models (Song et al., 2020), https://arxiv.org/abs/2010.02502, equation 12
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor, nn

from .interpolant import Interpolant, Linear
from .labels import check_labels, warn_of_no_label
from .model import Model
from .randomness import Generator, normal
from .transition import ddpm_correlation, gaussian_step
from .validation import as_times, check_choice, check_positive, check_state

__all__ = ["Flow", "euler", "heun"]

Velocity = Callable[[Tensor, Tensor], Tensor]


def euler(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrates `dx/dt = velocity(x, t)` from `times[0]` to `times[-1]` by Euler's method: first order, one
    evaluation a step."""
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        x = x + (t_next - t).to(x.dtype) * velocity(x, t)
    return x


def heun(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrates as :func:`euler` does, by Heun's method: second order, two evaluations a step."""
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        step = (t_next - t).to(x.dtype)
        slope = velocity(x, t)
        x = x + step / 2 * (slope + velocity(x + step * slope, t_next))
    return x


SOLVERS = {"euler": euler, "heun": heun}
PREDICTIONS = ("velocity", "denoiser", "noise")


class Flow(Model):
    """A flow model.

    Arguments:
        net: `net(x, t)` or `net(x, t, cond)`, with `x` `(B, *event)` and `t` `(B,)`, giving `(B, *event)`. A velocity is
            `dx_t / dt`, with t from 0 = noise to 1 = data: a network `v(x, s)` of the opposite convention, s = 0 data and
            s = 1 noise, is adapted by `net = lambda x, t: -v(x, 1 - t)`; on the linear path, that of most rectified flows.
        interpolant: the path it was trained on, linear by default.
        event_shape: the shape of one sample; `net.event_shape` where that exists.
        prediction: what the network gives: "velocity", "denoiser" or "noise" (the mean of eps given x_t).

    Raises:
        ValueError: no event shape, or an unknown prediction.
    """

    def __init__(
        self,
        net: nn.Module | Callable[..., Tensor],
        interpolant: Interpolant | None = None,
        event_shape: tuple[int, ...] | None = None,
        prediction: str = "velocity",
    ) -> None:
        event_shape = getattr(net, "event_shape", None) if event_shape is None else event_shape
        if event_shape is None:
            raise ValueError("event_shape: got None, expected the shape of one sample")
        super().__init__(interpolant or Linear(), event_shape)
        self.net = net
        self.prediction = check_choice("prediction", prediction, PREDICTIONS)

    @staticmethod
    def from_diffusers(
        model: Any,
        *,
        prediction: str | None = None,
        scheduler: Any = None,
        event_shape: tuple[int, ...] | None = None,
        no_label: int | None = None,
        interpolant: Interpolant | None = None,
    ) -> Flow:
        """A flow from a network of diffusers (:mod:`diamond.adapters.diffusers_network`).

        Arguments:
            model: a `UNet2DModel` or `DiTTransformer2DModel`, a pipeline with one, or a folder that either was saved
                to, with its weights as safetensors. Class labels, where it takes them, are passed as `cond`.
            prediction: what the network gives: "epsilon", "v_prediction", "sample" or "flow" (noise minus data, on
                the linear path); by default what the scheduler says, or "epsilon".
            scheduler: the scheduler of its training, any of diffusers with `alphas_cumprod`, or a flow-matching one;
                by default the one that came with it, or DDPM's of 1000 steps.
            event_shape: the shape `(C, H, W)` of one sample; by default the model's own.
            no_label: the label that stands for none, for a U-Net trained with one. A transformer has its own.
            interpolant: the path on which to see it, linear by default: the model's own path is one of its scale and
                its time, so that any will do.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: a folder, model or scheduler of another kind, or an event shape that does not fit.
        """
        from .adapters.diffusers_loading import load_network

        net = load_network(model, prediction, scheduler, event_shape, no_label, interpolant)
        return Flow(net, net.interpolant)

    def _network(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        self.nfe += len(x) * getattr(self.net, "evaluations", 1)
        if cond is None:
            warn_of_no_label(self)
            return self.net(x, t)
        return self.net(x, t, cond)

    def velocity(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """`u_t(x_t)`, `(B, *event)`, for states `(B, *event)` and times `(B,)` or one time. Costs one evaluation."""
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        output = self._network(x_t, t, cond)
        if self.prediction == "velocity":
            return output
        return self.interpolant.velocity_from_denoiser(x_t, t, self._denoised(x_t, t, output))

    def denoise(self, x_t: Tensor, t: Tensor | float, *, cond: Any = None) -> Tensor:
        """`D_t(x_t) = E[z | x_t]`, `(B, *event)`. Costs one evaluation."""
        check_state(x_t, self.event_shape)
        t = as_times(t, x_t)
        return self._denoised(x_t, t, self._network(x_t, t, cond))

    def _denoised(self, x: Tensor, t: Tensor, output: Tensor) -> Tensor:
        if self.prediction == "velocity":
            return self.interpolant.denoiser_from_velocity(x, t, output)
        if self.prediction == "noise":
            return self.interpolant.denoiser_from_noise(x, t, output)
        return output

    @torch.no_grad()
    def sample(
        self,
        n: int,
        steps: int = 64,
        *,
        solver: str = "euler",
        eta: float = 0.0,
        cond: Any = None,
        generator: Generator = None,
    ) -> Tensor:
        """`n` samples `(n, *event)`.

        Arguments:
            n: how many.
            steps: steps of the integration on a uniform grid.
            solver: "euler" (one evaluation a step) or "heun" (two).
            eta: 0 integrates the ODE; above 0 is the ancestral sampler with that share of DDPM's noise.
            cond: conditioning with leading dimension `n`.
            generator: the source of the noise.

        Raises:
            ValueError: a count below 1, an unknown solver, `eta` outside [0, 1], a solver chosen with `eta > 0`, or a
                label that is no class.
        """
        check_positive("n", n)
        check_labels(self, cond)
        times = torch.linspace(0, 1, check_positive("steps", steps) + 1, dtype=torch.float64, device=self.device)
        x = self.prior(n, generator=generator)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta: got {eta}, expected a number in [0, 1]")
        if eta == 0:
            integrate = SOLVERS[check_choice("solver", solver, SOLVERS)]
            return integrate(lambda x, t: self.velocity(x, t, cond=cond), x, times)
        if solver != "euler":
            raise ValueError(
                f"solver: got {solver!r} with eta={eta}, expected 'euler', the ancestral sampler's only one"
            )
        for t, t_next in zip(times[:-1].expand(n, -1).unbind(1), times[1:].expand(n, -1).unbind(1), strict=True):
            noise = normal(x.shape, generator, device=x.device, dtype=x.dtype)
            rho = (1 - eta**2 * (1 - ddpm_correlation(self.interpolant, t, t_next).square())).sqrt()
            x = gaussian_step(self.interpolant, x, self.denoise(x, t, cond=cond), t, t_next, rho, noise)
        return x

    forward = velocity
