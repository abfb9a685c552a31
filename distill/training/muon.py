r"""Steps that move all directions of a weight alike.

The gradient of a layer's weight, a matrix `(out, in)`, is mostly of a few directions, and a step along it leaves the others
where they are. Muon takes the running mean of gradients, :math:`M = U S V^\top`, and steps along its nearest
orthogonal matrix

.. math:: O = U V^\top, \qquad W \leftarrow W - \eta \, 0.2 \sqrt{\max(\mathrm{out}, \mathrm{in})} \; O,

whose entries have, with that factor, the size of AdamW's steps, so that one learning rate serves both. A quintic iteration
:math:`X \leftarrow a X + b X X^\top X + c (X X^\top)^2 X` from :math:`M / |M|` brings all singular values near 1, between
about 0.7 and 1.2, without a decomposition. What is no matrix (norms, biases, embeddings), and layers with few inputs or
outputs, take AdamW's steps.

References:
    | Muon: an optimizer for hidden layers in neural networks (Jordan et al., 2024),
      https://kellerjordan.github.io/posts/muon/
    | Muon is scalable for LLM training (Liu et al., 2025), https://arxiv.org/abs/2502.16982 (the factor)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from torch import Tensor, nn

__all__ = ["Muon", "matrices_of", "orthogonalised"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LEAST = 16  # inputs and outputs of a layer that is worth it
QUINTIC, ROUNDS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Orthogonalised steps for matrices, and AdamW's for everything else.

    Arguments:
        matrices: weights `(out, ...)`, seen as `(out, in)`.
        others: parameters for AdamW.
        options: of AdamW; the learning rate is both's.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], **options: Any) -> None:
        groups: list[dict[str, Any]] = [{"params": list(others)}, {"params": list(matrices), "turned": True}]
        super().__init__([group for group in groups if group["params"]], **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Moves every parameter that has a gradient, and gives what `closure`, which finds the gradients anew, returned. The
        matrices' gradients are None afterwards."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"] if group.get("turned") else ():
                if parameter.grad is not None:
                    alike[parameter.flatten(1).shape, parameter.device].append(parameter)
            for parameters in alike.values():
                self._turn(parameters, group["lr"])
        super().step()
        return loss

    def _turn(self, parameters: list[nn.Parameter], rate: float) -> None:
        """A step of matrices of one shape, together."""
        counts, gradients, momenta = [], [], []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["momentum"] = torch.zeros_like(parameter)
            assert parameter.grad is not None
            counts.append(state["step"])
            gradients.append(parameter.grad)
            momenta.append(state["momentum"])
            parameter.grad = None  # AdamW passes over it
        torch._foreach_add_(counts, 1)
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)  # one call: a GPU would wait for many
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        steps = orthogonalised(torch.stack([one.flatten(1) for one in ahead]))
        scale = 0.2 * max(steps.shape[1:]) ** 0.5
        moves = [step.view_as(parameter) for parameter, step in zip(parameters, steps, strict=True)]
        torch._foreach_add_([*parameters], moves, alpha=-rate * scale)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices `(N, out, in)` with singular values near 1, and the singular vectors that they had."""
    a, b, c = QUINTIC
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / wide.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
    for _ in range(ROUNDS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT


def matrices_of(module: nn.Module) -> list[nn.Parameter]:
    """The weights of linear and convolutional layers with at least 16 inputs and outputs, each once, in order; not of those
    whose channels are in groups, which hold several matrices."""
    found: dict[int, nn.Parameter] = {}
    for layer in module.modules():
        whole = isinstance(layer, LAYERS) and getattr(layer, "groups", 1) == 1
        weight = layer.weight if whole else None
        if isinstance(weight, nn.Parameter) and min(weight.flatten(1).shape) >= LEAST:
            found.setdefault(id(weight), weight)
    return list(found.values())
