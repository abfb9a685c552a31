r"""Linear measurements with Gaussian noise, :math:`y = A z + \nu \epsilon`.

With the log-likelihood of what was measured as reward,

.. math:: r(z) = -\frac{|A z - y|^2}{2 \nu^2} = \log p(y \mid z) + \tfrac{M}{2} \log 2 \pi \nu^2,

the target is the posterior of the data given the measurement, :math:`p(z) \, p(y \mid z) / p(y)`.
For data :math:`z \sim N(m, C)` it is Gaussian, with :math:`G = C A^T (A C A^T + \nu^2 I)^{-1}`:

.. math:: N\big(m + G (y - A m), \; C - G A C\big).
"""

from __future__ import annotations

import math

from collections.abc import Callable
from typing import Any

import torch

from torch import Tensor

from diamond.randomness import Generator, normal
from diamond.validation import check_number

from .composition import RewardModule
from .operators import Blur, BoxAverage, Mask, MatrixProduct, gaussian_kernel

__all__ = ["CompressedSensing", "Deblurring", "Inpainting", "LinearInverse", "SuperResolution"]


class LinearInverse(RewardModule):
    r""":math:`-|A z - y|^2 / 2 \nu^2`, at most 0; differentiable where the operator is.

    Arguments:
        y: what was measured, of the shape of one measurement; with None `cond` holds one measurement a sample,
            `(N, *measurement)`, so that each population may have its own.
        operator: the measurement without its noise, `(N, *event)` to `(N, *measurement)`, linear in each row. Another
            one would do: the target is still the posterior, though no longer in closed form.
        noise: the noise's standard deviation :math:`\nu`, above 0.

    Raises:
        ValueError: no callable operator, a noise that is not positive; when called, no measurement, or shapes that do not fit.
    """

    y: Tensor | None

    def __init__(self, y: Tensor | None, operator: Callable[[Tensor], Tensor], noise: float) -> None:
        super().__init__()
        if not callable(operator):
            raise ValueError(f"operator: got {type(operator).__name__}, expected a callable z -> A z")
        noise = check_number("noise", noise, "a positive standard deviation", lambda n: 0 < n < math.inf)
        if y is not None and not isinstance(y, Tensor):
            raise ValueError(f"y: got {type(y).__name__}, expected a tensor, or None for measurements in cond")
        if y is not None and not y.is_floating_point():
            y = y.to(torch.get_default_dtype())
        self.register_buffer("y", y)
        self.operator, self.noise = operator, noise

    def measure(self, z: Tensor, *, generator: Generator = None) -> Tensor:
        """Noisy measurements of clean `z` `(N, *event)`, draws of `N(A z, noise^2)`: `(N, *measurement)`."""
        clean = self.operator(z)
        return clean + self.noise * normal(clean.shape, generator, device=clean.device, dtype=clean.dtype)

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """`A z - y` for measurements `y` `(N or 1, *measurement)`."""
        clean = self.operator(z)
        if len(clean) != len(z) or clean.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"y: got measurements of shape {tuple(y.shape[1:])}, expected {tuple(clean.shape[1:])}, which the "
                f"operator makes of samples of shape {tuple(z.shape)}"
            )
        return clean - y

    def forward(self, z: Tensor, cond: Any = None) -> Tensor:
        gap = self.residual(z, self._measured(z, cond))
        gap = gap.to(torch.promote_types(gap.dtype, torch.float32))  # squares overflow in half precision
        return -gap.square().flatten(1).sum(1) / (2 * self.noise**2)

    def _measured(self, z: Tensor, cond: Any) -> Tensor:
        if self.y is not None:
            return self.y.to(z)[None]
        if not isinstance(cond, Tensor):
            came = "no cond" if cond is None else f"a cond of {type(cond).__name__}"
            raise ValueError(f"y: got None and {came}, expected measurements from either")
        if cond.shape[:1] != z.shape[:1]:
            raise ValueError(
                f"cond: got shape {tuple(cond.shape)} for {len(z)} samples, expected one measurement for each"
            )
        return cond.to(z)


class Inpainting(LinearInverse):
    r""":math:`-|m (z - y)|^2 / 2 \nu^2`, at most 0: the entries where the mask is 1 were seen with Gaussian noise of
    standard deviation :math:`\nu`. Differentiable.

    Arguments:
        y: what was measured, of the event's shape, with anything in the entries that were not, NaN too; with None `cond`
            holds one a sample.
        mask: 1 or True where it was, of the event's shape.
        noise: the noise's standard deviation.
    """

    def __init__(self, y: Tensor | None, mask: Tensor, noise: float) -> None:
        seen = Mask(mask)
        if isinstance(y, Tensor) and y.shape != mask.shape:
            raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected that of y, {tuple(y.shape)}")
        super().__init__(y, seen, noise)

    @property
    def mask(self) -> Tensor:
        """1 where the entry was seen, 0 elsewhere: `(*event)`."""
        return self.get_buffer("operator.mask")

    def measure(self, z: Tensor, *, generator: Generator = None) -> Tensor:
        """What is seen of clean `z` `(N, *event)`, with its noise, and 0 elsewhere: `(N, *event)`."""
        return self.operator(super().measure(z, generator=generator))

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """`m (z - y)` for measurements `y` `(N or 1, *event)`."""
        fits = y.shape[1:] == self.mask.shape
        return super().residual(z, self.operator(y) if fits else y)  # which refuses what does not fit


class SuperResolution(LinearInverse):
    r""":math:`-|A z - y|^2 / 2 \nu^2`, at most 0: squares of `factor` by `factor` pixels were seen as their means, with
    Gaussian noise of standard deviation :math:`\nu`. For images `(N, C, H, W)` whose sides the factor divides.
    Differentiable.

    Arguments:
        y: the small image, `(C, H / factor, W / factor)`; with None `cond` holds one a sample.
        factor: pixels a side of each square.
        noise: the noise's standard deviation.
    """

    def __init__(self, y: Tensor | None, factor: int, noise: float) -> None:
        super().__init__(y, BoxAverage(factor), noise)


class Deblurring(LinearInverse):
    r""":math:`-|A z - y|^2 / 2 \nu^2`, at most 0: the image was seen through a blur, each channel alike, with Gaussian
    noise of standard deviation :math:`\nu`. For images `(N, C, H, W)`. Differentiable.

    Arguments:
        y: the blurred image, of the event's shape; with None `cond` holds one a sample.
        kernel: the standard deviation in pixels of a Gaussian blur, cut off past three of them, or any kernel `(h, w)`
            with odd sides, which is convolved with the image as it is.
        noise: the noise's standard deviation.
        padding: what the kernel meets past the edges: "reflect" (the image mirrored at its outermost pixels),
            "replicate" (these pixels themselves), "circular" (the opposite side) or "zeros".
    """

    def __init__(self, y: Tensor | None, kernel: Tensor | float, noise: float, padding: str = "reflect") -> None:
        kernel = kernel if isinstance(kernel, Tensor) else gaussian_kernel(kernel)
        super().__init__(y, Blur(kernel, padding), noise)


class CompressedSensing(LinearInverse):
    r""":math:`-|A z - y|^2 / 2 \nu^2`, at most 0: M linear functions of the flattened event were seen, each with
    Gaussian noise of standard deviation :math:`\nu`. Differentiable.

    Arguments:
        y: what was measured, `(M,)`; with None `cond` holds one a sample, `(N, M)`.
        matrix: `(M, D)`, for events of D entries in all.
        noise: the noise's standard deviation.
    """

    def __init__(self, y: Tensor | None, matrix: Tensor, noise: float) -> None:
        super().__init__(y, MatrixProduct(matrix), noise)
        if y is not None and y.shape != matrix.shape[:1]:
            raise ValueError(f"y: got shape {tuple(y.shape)}, expected ({len(matrix)},), one number a row of matrix")
