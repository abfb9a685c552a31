r"""How much of a sampler's error is one of the mean, and how wide it draws.

With draws :math:`x^i` and reference draws :math:`y^i`, each of whose pairs may come from one noise, and
:math:`d^i = x^i - y^i`, the squared error of the mean is estimated without bias by

.. math:: \frac{1}{n (n - 1)} \sum_{i \ne j} d^i \cdot d^j = \frac{|\sum_i d^i|^2 - \sum_i |d^i|^2}{n (n - 1)},

to be read beside the total variance :math:`\operatorname{tr} \operatorname{Var}(y)`; draws too narrow show in the ratio of
:math:`\operatorname{tr} \operatorname{Var}(x)` to it. An energy distance adds both kinds of error up, and does not tell which
to mend: few Euler steps draw too narrowly, a distilled map is more often wide enough and off centre.
"""

from __future__ import annotations

from torch import Tensor

from .energy import check_draws

__all__ = ["mean_error", "spread"]


def mean_error(x: Tensor, y: Tensor) -> Tensor:
    """The squared error of the mean of draws `x` `(n, B, *event)`, as a share of the total variance of `y`, of the same
    shape: `(B,)` in float64, of either sign for means that agree.

    Draws `x[i]` and `y[i]` may depend on each other; those of different `i` must not.

    Raises:
        ValueError: the shapes differ, or there are fewer than two draws.
    """
    check_draws(x, y)
    n, gap = len(x), (x.double() - y.double()).unsqueeze(-1).flatten(2)
    squares = gap.sum(0).square().sum(1) - gap.square().sum((0, 2))
    return squares / (n * (n - 1)) / _total_variance(y)


def spread(x: Tensor, y: Tensor) -> Tensor:
    """The total variance of draws `x` `(n, B, *event)` divided by that of `y`, of the same shape: `(B,)` in float64.

    Raises:
        ValueError: the shapes differ, or there are fewer than two draws.
    """
    check_draws(x, y)
    return _total_variance(x) / _total_variance(y)


def _total_variance(draws: Tensor) -> Tensor:
    flat = draws.double().unsqueeze(-1).flatten(2)
    return (flat - flat.mean(0)).square().sum((0, 2)) / (len(flat) - 1)
