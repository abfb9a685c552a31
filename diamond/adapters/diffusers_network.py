r"""A network of diffusers as the velocity of a flow on any path.

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

A variance-preserving network is told the step `k` of its scheduler at which :math:`\log \bar\alpha_k / (1 - \bar\alpha_k)
= \log a^2 / s^2`, between steps by linear interpolation, and the nearest one beyond the first and last; a flow's is told
:math:`s` times the number of steps. Noisier than the last step the signal in the quotient of "epsilon" is that step's.

References:
    | Denoising Diffusion Implicit Models (Song et al., 2020), https://arxiv.org/abs/2010.02502, section 4.1
    | Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022),
    | https://arxiv.org/abs/2202.00512, section 4 (v)
"""

from __future__ import annotations

import copy
import json

from contextlib import nullcontext
from typing import Any

import torch

from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..interpolant import Interpolant, Linear, interpolant_named, per_sample
from ..nets.network import Network, check_states
from ..validation import check_choice
from .diffusers_inputs import Gain, pack_labels, widen

__all__ = ["MODELS", "PREDICTIONS", "DiffusersNetwork"]

MODELS = ("UNet2DModel", "DiTTransformer2DModel")
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow")


class DiffusersNetwork(Network):
    """A network of diffusers that predicts the velocity.

    It stays in evaluation mode, as its own dropout and its random omission of labels are for its own training.

    Arguments:
        model: a `UNet2DModel` or `DiTTransformer2DModel`, or its configuration as JSON text. Channels beyond those of
            the event (a learned variance) are dropped.
        event_shape: the shape `(C, H, W)` of one sample.
        prediction: what it gives: "epsilon", "v_prediction", "sample" or "flow".
        log_snr: `log abar_k / (1 - abar_k)` of the steps that it was trained on, decreasing; none for a flow.
        steps: the number of steps, by which a flow's time is multiplied.
        no_label: the label that stands for none, if it was trained with one.
        interpolant: the path on which to give the velocity, or its name; linear by default.
        states, times: as in :class:`~diamond.nets.ResidualMLP` (:mod:`diamond.adapters.diffusers_inputs`).

    Raises:
        ValueError: another kind of model, time or channels, or a table that does not decrease.
    """

    model: Any

    def __init__(
        self,
        model: nn.Module | str,
        event_shape: tuple[int, ...],
        prediction: str = "epsilon",
        log_snr: list[float] | None = None,
        steps: int = 1000,
        no_label: int | None = None,
        interpolant: Interpolant | str | None = None,
        states: int = 0,
        times: int = 0,
    ) -> None:
        super().__init__()
        self.model = _made(model) if isinstance(model, str) else model
        self.event_shape = tuple(int(size) for size in event_shape)
        self.prediction = check_choice("prediction", prediction, PREDICTIONS)
        self.steps, self.no_label = steps, no_label
        self.interpolant = interpolant_named(interpolant) if isinstance(interpolant, str) else interpolant or Linear()
        _check_model(self.model, self.event_shape)
        self.labels = self.model.config.get("num_class_embeds") or self.model.config.get("num_embeds_ada_norm") or 0
        self.classes = self.labels - (no_label == self.labels - 1)
        if type(self.model).__name__ == "DiTTransformer2DModel":  # its table has one row more
            self.classes, self.no_label = self.labels, self.labels
            self.labels += 1
        self.log_snr = None if prediction == "flow" else _table(log_snr)
        self.config = {
            "model": self.model.to_json_string(), "event_shape": list(self.event_shape), "prediction": prediction,
            "log_snr": log_snr, "steps": steps, "no_label": no_label, "interpolant": self.interpolant.name,
            "states": 0, "times": 0,
        }  # fmt: skip
        for part in self.model.modules():
            if isinstance(part, nn.GroupNorm):  # its forward derivative asks for contiguous features
                part.register_forward_pre_hook(_contiguous)
        self.model.eval()
        self._widen(states, times)

    def grown(self, states: int, times: int) -> DiffusersNetwork:
        """A copy with further inputs, which computes what this network does (see :func:`diamond.nets.grow`)."""
        copied = copy.deepcopy(self).requires_grad_(True)
        copied._widen(states, times)
        return copied

    def _widen(self, states: int, times: int) -> None:
        self.config.update(states=states, times=times)
        widen(self.model, states, times)
        if states:
            self.gain = Gain(self.event_shape[0], states, times)
        self.to(next(self.model.parameters()))

    def train(self, mode: bool = True) -> DiffusersNetwork:
        """Sets the mode of this module, and leaves the model inside in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor | None = None,
        states: tuple[Tensor, ...] = (),
        times: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """The velocity `(B, C, H, W)` at states `x` `(B, C, H, W)` and times `t` `(B,)`."""
        check_states(states, self.config["states"])
        if len(times) != self.config["times"]:
            raise ValueError(f"times: got {len(times)} times beside t, this network takes {self.config['times']}")
        path = self.interpolant
        alpha, sigma = path.alpha(t), path.sigma(t)
        size = alpha + sigma if self.prediction == "flow" else (alpha.square() + sigma.square()).sqrt()
        signal, noise = alpha / size, sigma / size
        told = noise * self.steps if self.log_snr is None else self._step_of(signal, noise)
        scaled = x / per_sample(size, x)
        output = self._ask(torch.cat([scaled, *states], dim=1), told, pack_labels(self._labels(x, cond), times))
        means = self._means(scaled, output, signal, noise)
        velocity = per_sample(path.alpha_dot(t), x) * means[0] + per_sample(path.sigma_dot(t), x) * means[1]
        if states:  # a direct path for noise that the map passes on
            gains = self.gain(t, times)[:, :, None, None] * torch.cat(states, dim=1)
            velocity = velocity + gains.unflatten(1, (len(states), -1)).sum(1)
        return velocity

    def _ask(self, x: Tensor, step: Tensor, labels: Tensor | None) -> Tensor:
        # the fused kernels of attention have no forward derivative
        given = [x, step] if labels is None or not labels.is_floating_point() else [x, step, labels]
        dual = any(forward_ad.unpack_dual(value).tangent is not None for value in given)
        with sdpa_kernel(SDPBackend.MATH) if dual else nullcontext():
            output = self.model(x, step, class_labels=labels, return_dict=False)[0]
        return output[:, : self.event_shape[0]]

    def _means(self, x: Tensor, output: Tensor, signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`E[z | x]` and `E[eps | x]`, each `(B, C, H, W)`."""
        a, s = per_sample(signal, x), per_sample(noise, x)
        if self.prediction == "flow":
            return x - s * output, x + a * output
        if self.prediction == "v_prediction":
            return a * x - s * output, s * x + a * output
        if self.prediction == "sample":
            safe = torch.where(s > 0, s, 1.0)
            return output, torch.where(s > 0, (x - a * output) / safe, 0.0)
        assert self.log_snr is not None
        least = self.log_snr[-1].sigmoid().sqrt().to(signal)
        held = signal.clamp_min(least)
        mean = (x - per_sample((1 - held.square()).clamp_min(0).sqrt(), x) * output) / per_sample(held, x)
        early = per_sample(signal < least, x).bool()  # where `output` and `mean` do not make up `x`
        return mean, torch.where(early, (x - a * mean) / torch.where(early, s, 1.0), output)

    def _step_of(self, signal: Tensor, noise: Tensor) -> Tensor:
        """The step `(B,)` of the scheduler at this ratio of signal to noise, a real number."""
        assert self.log_snr is not None
        rising = self.log_snr.flip(0).to(signal.device)
        ratio = 2 * (signal.double().clamp_min(1e-12).log() - noise.double().clamp_min(1e-12).log())
        above = torch.searchsorted(rising, ratio.detach().contiguous()).clamp(1, len(rising) - 1)
        low, high = rising[above - 1], rising[above]
        share = ((ratio - low) / (high - low)).clamp(0, 1)
        return (len(rising) - above - share).to(signal.dtype)

    def _labels(self, x: Tensor, cond: Tensor | None) -> Tensor | None:
        if not self.labels:
            if cond is not None:
                raise ValueError("cond: got a tensor, but this network was made without classes and takes none")
            return None
        if cond is None and self.no_label is not None:
            return torch.full((len(x),), self.no_label, device=x.device)
        if not isinstance(cond, Tensor) or cond.shape != (len(x),) or cond.is_floating_point():
            came = f"{cond.dtype} {tuple(cond.shape)}" if isinstance(cond, Tensor) else type(cond).__name__
            raise ValueError(f"cond: got {came}, expected class labels ({len(x)},), whole numbers")
        return cond.long()


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in inputs)


def _made(configuration: str) -> nn.Module:
    """The model of that configuration, with fresh weights."""
    import diffusers

    config = json.loads(configuration)
    return getattr(diffusers, check_choice("model", config["_class_name"], MODELS)).from_config(config)


def _check_model(model: Any, event_shape: tuple[int, ...]) -> None:
    if type(model).__name__ not in MODELS:
        raise ValueError(f"model: got {type(model).__name__}, expected one of {', '.join(MODELS)}")
    if (time := model.config.get("time_embedding_type", "positional")) != "positional":
        raise ValueError(f"model: got one with time_embedding_type={time!r}, expected 'positional'")
    if (kind := model.config.get("class_embed_type")) is not None:
        raise ValueError(f"model: got one with class_embed_type={kind!r}, expected class labels")
    taken, given = model.config["in_channels"], model.config["out_channels"] or model.config["in_channels"]
    if len(event_shape) != 3 or event_shape[0] != taken or given not in (taken, 2 * taken):
        raise ValueError(
            f"event_shape: got {event_shape} for a model of {taken} channels in and {given} out, expected ({taken}, H, W) "
            "and as many channels out, or twice as many"
        )


def _table(log_snr: list[float] | None) -> Tensor:
    table = torch.tensor(log_snr or [], dtype=torch.float64)
    if len(table) < 2 or not bool((table.diff() < 0).all()) or not bool(table.isfinite().all()):
        raise ValueError(f"log_snr: got {len(table)} steps, expected two or more finite numbers that decrease")
    return table
