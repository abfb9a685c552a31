r"""A network of diffusers as the velocity of a flow on any path: its own path is a scale and a change of time away
(:mod:`diamond.adapters.diffusers_path`)."""

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
from .diffusers_path import TrainedPath

__all__ = ["MODELS", "DiffusersNetwork"]

MODELS = ("UNet2DModel", "DiTTransformer2DModel")


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
        self.no_label = no_label
        self.interpolant = interpolant_named(interpolant) if isinstance(interpolant, str) else interpolant or Linear()
        self.path = TrainedPath(self.interpolant, prediction, log_snr, steps)
        _check_model(self.model, self.event_shape)
        self.labels = self.model.config.get("num_class_embeds") or self.model.config.get("num_embeds_ada_norm") or 0
        self.classes = self.labels - (no_label == self.labels - 1)
        if type(self.model).__name__ == "DiTTransformer2DModel":  # its table has one row more
            self.classes, self.no_label = self.labels, self.labels
            self.labels += 1
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
        place = self.path.place(t)
        scaled = x / per_sample(place.size, x)
        output = self._ask(torch.cat([scaled, *states], dim=1), place.step, pack_labels(self._labels(x, cond), times))
        velocity = self.path.velocity(scaled, output, t, place)
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
